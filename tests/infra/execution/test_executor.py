"""Prefect and Ray for real: parts as task runs, Ray's failures as failed attempts with their reason."""

import time
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from infra.execution.executor import PrefectRayExecutor
from infra.stages.runner import Runner
from infra.storage.store import Store
from tests.infra.toy import ToyConfig
from tests.infra.toy_runs import execute, executions, pipeline, table_of, task_states

pytestmark = pytest.mark.slow


def test_every_part_is_a_task_run_named_after_it_and_a_reused_one_is_shown_as_cached(
    services: None, store_url: str, tmp_path: Path
) -> None:
    run, first = execute(store_url, tmp_path, ToyConfig())
    assert [r.computed for r in run.runs] == [1, 4, 1]
    states = task_states(first, 6)
    assert {name: state for name, (state, _) in states.items()} == {
        "produce-00000": "Completed",
        **{f"double-{n:05d}": "Completed" for n in range(4)},
        "add_up-00000": "Completed",
    }
    rows = table_of("double")
    assert [(row["part"], row["ended"], row["rows_in"], row["rows_out"]) for row in rows] == [
        (n, "computed", 3, 3) for n in range(4)
    ]
    again, second = execute(store_url, tmp_path, ToyConfig())
    assert [(r.reused, r.computed) for r in again.runs] == [(1, 0), (4, 0), (1, 0)]
    assert {state for state, _ in task_states(second, 6).values()} == {"Cached"}


def test_a_killed_ray_worker_is_a_visible_failed_attempt_that_prefect_retries(services: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = ToyConfig(log=str(log), trouble=f"kill:{tmp_path / 'once'}")
    run, flow_run = execute(str(tmp_path / "store"), tmp_path, config)
    assert run.runs[1].failed == {}
    assert executions(log) == ["0 8", "10 8", "20 8", "20 8", "30 8"]
    assert task_states(flow_run, 6)["double-00002"][0] == "Completed"


def test_a_stages_own_refusal_is_not_retried_and_its_siblings_finish(services: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = ToyConfig(log=str(log), trouble="raise")
    run, flow_run = execute(str(tmp_path / "store"), tmp_path, config)
    assert executions(log) == ["0 8", "10 8", "20 8", "30 8"]
    assert "ValueError: 20 is not to my liking" in run.runs[1].failed[2]
    assert (run.runs[1].computed, run.runs[2].blocked) == (3, 1)
    state, message = task_states(flow_run, 5)["double-00002"]
    assert state == "Failed"
    assert "20 is not to my liking" in message


def test_a_passing_trouble_of_the_machine_is_retried(services: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = ToyConfig(log=str(log), trouble=f"oserror:{tmp_path / 'once'}")
    run, _ = execute(str(tmp_path / "store"), tmp_path, config)
    assert run.runs[1].failed == {}
    assert executions(log).count("20 8") == 2


def test_after_its_end_no_part_is_begun_and_the_reason_is_not_one_to_retry(services: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    store = Store.open(str(tmp_path / "store"))
    runs: list[Any] = []

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8), persist_result=False)
    def late_flow() -> None:
        with PrefectRayExecutor(store, tmp_path / "scratch", until=time.time() - 1) as executor:
            run = Runner(store, executor)
            runs.append(run)
            pipeline(run, ToyConfig(log=str(log)))

    late_flow()
    assert list(runs[0].runs[0].failed) == [0]
    assert "BudgetReached: end-by time" in runs[0].runs[0].failed[0]
    assert not log.exists()
    assert store.list("parts") == []
