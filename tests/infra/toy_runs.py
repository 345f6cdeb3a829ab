"""Run the toy pipeline as a flow run, and read what Prefect recorded of it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, LogFilter, LogFilterTaskRunId
from prefect.client.schemas.sorting import ArtifactSort
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel

from infra.execution.executor import PrefectRayExecutor
from infra.stages.runner import Runner
from infra.storage.store import Store
from tests.infra.toy import ADD_UP, DOUBLE, PRODUCE, WITH_ENGINE, ToyConfig

Pipeline = Callable[[Runner, ToyConfig], object]


def pipeline(run: Runner, config: ToyConfig) -> object:
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    doubled = run(DOUBLE, config, numbers=numbers)["doubled"]
    return run(ADD_UP, ToyConfig(), doubled=doubled)


def execute(url: str, tmp_path: Path, config: ToyConfig, stages: Pipeline = pipeline) -> tuple[Runner, str]:
    """Run the toy pipeline as a flow run; returns the runner and the flow run's id."""
    runners: list[Runner] = []
    ids: list[str] = []

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8), persist_result=False)
    def toy_flow() -> None:
        from prefect.runtime import flow_run

        ids.append(str(flow_run.id))
        store = Store.open(url)
        with PrefectRayExecutor(store, tmp_path / "scratch") as executor:
            run = Runner(store, executor)
            runners.append(run)
            stages(run, config)

    toy_flow()
    return runners[0], ids[0]


def task_states(flow_run_id: str, expected: int) -> dict[str, tuple[str, str]]:
    """Read name → (state, message), waiting for the history: the server records task runs a little later."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        for _ in range(300):
            runs = client.read_task_runs(flow_run_filter=wanted)
            final = {r.name: (r.state.name, r.state.message or "") for r in runs if r.state and r.state.is_final()}
            if len(final) >= expected:
                return final
            time.sleep(0.1)
    raise AssertionError(f"{expected} finished task runs expected, {final} recorded")


def artifact(key: str) -> str:
    """Read the newest artifact of a key."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        return str(client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC)[0].data)


def table_of(stage: str) -> list[dict[str, Any]]:
    """Read the newest table that a stage left in Prefect."""
    rows: list[dict[str, Any]] = json.loads(artifact(stage))
    return rows


def executions(log: Path) -> list[str]:
    return sorted(log.read_text().split("\n")[:-1])


def engine_pipeline(engine: BaseModel) -> Pipeline:
    def stages(run: Runner, config: ToyConfig) -> object:
        numbers = run(PRODUCE, ToyConfig())["numbers"]
        return run(WITH_ENGINE, config, engine=engine, numbers=numbers)

    return stages


def log_of(flow_run_id: str, name: str, expected: str = "Finished in state") -> list[tuple[int, str]]:
    """Read (level, line) of a task run's log, waiting for a line: the server receives them in batches."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterName

    flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    task_run = TaskRunFilter(name=TaskRunFilterName(any_=[name]))
    lines: list[tuple[int, str]] = []
    with get_client(sync_client=True) as client:
        for _ in range(300):
            for run in client.read_task_runs(flow_run_filter=flow_run, task_run_filter=task_run):
                wanted = LogFilter(task_run_id=LogFilterTaskRunId(any_=[run.id]))
                found = client.read_logs(log_filter=wanted, limit=200)
                lines = [(line.level, line.message) for line in sorted(found, key=lambda line: line.timestamp)]
            if any(expected in line for _, line in lines):
                return lines
            time.sleep(0.1)
    raise AssertionError(f"{expected!r} expected in the log of {name}, which holds {lines}")
