"""Flow runs with Prefect and Ray for real: parts as task runs, engines in actors, logs, figures and failures."""

import json
import logging
import os
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
import ray
from prefect import flow, runtime
from prefect.settings import (
    PREFECT_LOGGING_TO_API_BATCH_INTERVAL,
    temporary_settings,
)
from prefect.task_runners import ThreadPoolTaskRunner

from infra.cluster.ray_cluster import ray_cluster
from infra.engines.specs import SentenceTransformersSpec
from infra.execution import executor as execution
from infra.execution import metrics
from infra.execution.executor import PrefectRayExecutor
from infra.execution.prefect_ui import show_summary
from infra.execution.usage_meter import Budget, RemoteMeter, Usage
from infra.provenance import Origin
from infra.stages.origins import read
from infra.stages.runner import Runner
from infra.storage.store import Store
from tests.conftest import RAY_EXTRAS, ROOT, require, s3_variables
from tests.infra.prefect_calls import embedded
from tests.infra.ray_nodes import RayNodes
from tests.infra.toy import DOUBLE, PRODUCE, ToyConfig
from tests.infra.toy_engine import ToySpec
from tests.infra.toy_runs import artifact, engine_pipeline, execute, executions, log_of, pipeline, table_of, task_states

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, seaweedfs: str) -> Iterator[None]:
    """A real Prefect server and one Ray node that exports metrics, both on loopback."""
    home = tmp_path_factory.mktemp("home")
    storage = s3_variables(seaweedfs)
    # Ray's workers have the environment of its start: they must find the toy stages and the S3 server.
    workers = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(RAY_EXTRAS)]), **storage}
    workers |= {"RAY_metrics_report_interval_ms": "500"}  # by default ten seconds
    with pytest.MonkeyPatch.context() as patch, RayNodes(0, num_cpus=2, environment=workers) as nodes:
        for name, value in storage.items():
            patch.setenv(name, value)
        with embedded(home), temporary_settings({PREFECT_LOGGING_TO_API_BATCH_INTERVAL: 0.2}):
            with ray_cluster(nodes.address):
                yield


TOY = ToySpec(model="toy")


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


def test_of_many_reused_parts_one_task_run_tells_and_the_others_are_computed_and_tried_again(
    services: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "_SHOWN", 2)
    run, _ = execute(str(tmp_path / "store"), tmp_path, ToyConfig(trouble="raise"))
    assert (run.runs[1].computed, list(run.runs[1].failed)) == (3, [2])
    log = tmp_path / "log"
    config = ToyConfig(log=str(log), trouble=f"oserror:{tmp_path / 'once'}")
    again, flow_run = execute(str(tmp_path / "store"), tmp_path, config)
    assert [(r.reused, r.computed) for r in again.runs] == [(1, 0), (3, 1), (0, 1)]
    assert executions(log) == ["20 8", "20 8"]
    assert isinstance(again.executor, execution.PrefectRayExecutor)
    assert again.executor.task_runs == 4
    states = {name: state for name, (state, _) in task_states(flow_run, 4).items()}
    assert states == {
        "produce-00000": "Cached",
        "double (3 reused)": "Cached",
        "double-00002": "Completed",
        "add_up-00000": "Completed",
    }
    assert [(row["part"], row["ended"]) for row in table_of("double")] == [
        (0, "reused"), (1, "reused"), (2, "computed"), (3, "reused"),
    ]  # fmt: skip
    assert again.runs[1].manifests[2].ingredients == again.runs[1].ingredients[2]


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


def test_an_engine_that_dies_is_rebuilt_and_the_parts_in_it_are_tried_again_each_alone(
    services: None, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    config = ToyConfig(log=str(log), trouble=f"kill:{tmp_path / 'once'}")
    run, _ = execute(str(tmp_path / "store"), tmp_path, config, engine_pipeline(TOY))
    assert (run.runs[1].failed, run.runs[1].computed) == ({}, 4)
    done = executions(log)
    assert set(done) == {"0 8", "10 8", "20 8", "30 8"}
    assert done.count("20 8") == 2
    assert len(done) <= 6  # its companion in the engine, at most, was in vain too


def test_a_part_that_kills_engines_is_set_aside_with_its_reason(services: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run, _ = execute(str(tmp_path / "store"), tmp_path, ToyConfig(log=str(log), trouble="kill"), engine_pipeline(TOY))
    assert run.runs[1].computed == 3
    assert "set aside: the engine died 2 times" in run.runs[1].failed[2]
    assert executions(log).count("20 8") == 2


def test_an_engine_that_cannot_be_built_says_why_and_is_not_tried_again(services: None, tmp_path: Path) -> None:
    nowhere = SentenceTransformersSpec(model=str(tmp_path / "nowhere"), digest="none")
    run, _ = execute(str(tmp_path / "store"), tmp_path, ToyConfig(), engine_pipeline(nowhere))
    assert set(run.runs[1].failed) == {0, 1, 2, 3}
    assert all("nowhere" in reason for reason in run.runs[1].failed.values())


def test_parts_that_share_an_engine_have_each_its_own_lines_and_one_tells_of_its_building(
    services: None, tmp_path: Path
) -> None:
    run, flow_run = execute(str(tmp_path / "store"), tmp_path, ToyConfig(), engine_pipeline(TOY))
    (digest,) = {manifest.origin for manifest in run.runs[1].manifests}
    assert read(run.store, digest) == Origin(endpoint="toy toy")  # of the engine, not of this process
    built = 0
    for number in range(4):
        lines = [line for _, line in log_of(flow_run, f"with_engine-{number:05d}", "doubling")]
        assert [line for line in lines if "doubling" in line] == [f"doubling from {number * 10}"]
        built += any(line.startswith("engine built in") for line in lines)
    assert built == 1


def test_what_a_worker_logs_stands_in_the_log_of_its_own_part(services: None, tmp_path: Path) -> None:
    _, flow_run = execute(str(tmp_path / "store"), tmp_path, ToyConfig())
    for number in range(4):
        lines = log_of(flow_run, f"double-{number:05d}", "doubling from")
        said = [line for line in lines if line[1].startswith("doubling from")]
        assert said == [(logging.INFO, f"doubling from {number * 10}")]
        assert any(line.startswith(f"double-{number:05d}: begun on 127.0.0.1 (node ") for _, line in lines)
    assert all(row["node"].startswith("127.0.0.1 (node ") for row in table_of("double"))


def test_a_failing_part_leaves_its_traceback_and_no_secret(services: None, tmp_path: Path, seaweedfs: str) -> None:
    secret = s3_variables(seaweedfs)["AWS_SECRET_ACCESS_KEY"]
    run, flow_run = execute(str(tmp_path / "store"), tmp_path, ToyConfig(trouble="tell"))
    assert run.runs[1].failed == {2: "PartError: OSError: *** is not accepted"}
    lines = log_of(flow_run, "double-00002", "I was given")
    assert (logging.WARNING, "a_library: I was given ***") in lines
    errors = "\n".join(line for level, line in lines if level == logging.ERROR)
    assert "in _misbehave" in errors
    assert "*** is not accepted" in errors
    assert secret not in "\n".join(line for _, line in lines)
    assert len({tuple(row) for row in table_of("double")}) == 1  # the UI takes its columns from the first row
    assert secret not in json.dumps(table_of("double")) + str(task_states(flow_run, 5))


def test_lines_of_a_worker_that_is_killed_are_there_up_to_the_end(services: None, tmp_path: Path) -> None:
    def see(flow_run: str) -> None:
        log_of(flow_run, "double-00002", "line 49")
        (tmp_path / "once-seen").touch()

    def stages(run: Runner, config: ToyConfig) -> object:
        numbers = run(PRODUCE, ToyConfig())["numbers"]
        # Prefect's settings, and so the address of its server, are in the context.
        threading.Thread(target=copy_context().run, args=(see, str(runtime.flow_run.id)), daemon=True).start()
        return run(DOUBLE, config, numbers=numbers)

    config = ToyConfig(trouble=f"say-and-kill:{tmp_path / 'once'}")
    run, flow_run = execute(str(tmp_path / "store"), tmp_path, config, stages)
    assert run.runs[1].failed == {}
    log_of(flow_run, "double-00002", "WorkerCrashedError")  # told by the driver, and may come first or last
    lines = [line for _, line in log_of(flow_run, "double-00002", "line 49")]
    assert [line for line in lines if "before the end" in line] == [f"line {n} before the end" for n in range(50)]


def test_a_meter_that_is_killed_goes_on_from_what_it_had_counted(services: None) -> None:
    meter = RemoteMeter.start(Budget(tokens=100), {})
    meter.add("judge", Usage(calls=1, prompt_tokens=90))
    assert meter.totals()["judge"]["prompt_tokens"] == 90
    life, deadline = meter._life, time.monotonic() + 120
    ray.kill(meter._actor, no_restart=False)
    while meter._life == life:  # the killed actor may answer for a moment, and what it counts then is lost
        assert meter.totals()["judge"]["prompt_tokens"] == 90
        assert time.monotonic() < deadline
        time.sleep(0.05)
    meter.add("judge", Usage(calls=1, prompt_tokens=10))
    assert meter.totals()["judge"]["prompt_tokens"] == 100
    assert "tokens 100 used up" in str(meter.reached())


def test_progress_and_the_summary_are_shown_and_a_key_holds_only_what_prefect_allows(
    services: None, tmp_path: Path
) -> None:
    def stages(run: Runner, config: ToyConfig) -> object:
        show_summary("Toy_data", "**3** found", "https://reports.example/toy.html")
        return pipeline(run, config)

    execute(str(tmp_path / "store"), tmp_path, ToyConfig(), stages)
    assert float(artifact("progress-double")) == 100.0
    assert artifact("summary-toy-data") == "**3** found"
    assert "https://reports.example/toy.html" in artifact("report-toy-data")


def test_every_figure_of_a_part_is_of_a_kind_that_ray_counts(services: None) -> None:
    facts = {"calls": 3, "recalled": 4, "prompt_tokens": 50, "cached_tokens": 6, "output_tokens": 7, "unparsed": 1}
    stats = {"seconds": 1.5, "rows_in": 3, "rows_out": 0, "facts": facts}
    metrics._count(metrics._instruments(), "judge-llm", "computed", stats)


def test_what_parts_did_is_exported_for_prometheus(services: None, tmp_path: Path) -> None:
    require(RAY_EXTRAS)
    execute(
        str(tmp_path / "store"), tmp_path, ToyConfig(log=str(tmp_path / "log"), trouble=f"kill:{tmp_path / 'once'}")
    )
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    wanted = re.compile(r'^ray_reneg_parts_total{.*ended="(killed|computed)".*stage="double".*} (\d+)', re.MULTILINE)
    found: dict[str, str] = {}
    for _ in range(300):  # Ray passes numbers on after a while
        page = urllib.request.urlopen(address, timeout=5).read().decode()
        found = dict(wanted.findall(page))
        if int(found.get("computed", 0)) >= 4 and "add_up" in page:
            break
        time.sleep(0.1)
    assert int(found["killed"]) >= 1
    assert int(found["computed"]) >= 4
    assert "ray_reneg_part_seconds_bucket{" in page
    assert re.search(r'^ray_reneg_rows_total{.*direction="out".*stage="add_up".*} ', page, re.MULTILINE)
