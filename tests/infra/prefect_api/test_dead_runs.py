"""Which flow runs are taken for dead, with an API in this process; on a real server, in test_swept_runs.py."""

import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.exceptions import ObjectNotFound

from infra.prefect_api import dead_runs
from infra.prefect_api.dead_runs import owner_tag, sweep_dead_runs
from infra.prefect_api.processes import started_at

HOST = "node-a"


@dataclass
class Api:
    """Prefect's API as far as it is asked: flow runs, their task runs, and the workers of a pool."""

    runs: list[FlowRun] = field(default_factory=list)
    parts: dict[UUID, list[TaskRun]] = field(default_factory=dict)
    workers: list[Any] = field(default_factory=list)
    told: list[tuple[str, UUID, str]] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None: ...

    def read_flow_runs(self, *, flow_run_filter: FlowRunFilter, limit: int, offset: int, sort: Any) -> list[FlowRun]:
        self.asked.append((flow_run_filter.state.type.any_, flow_run_filter.tags.all_))  # type: ignore[union-attr]
        return self.runs[offset : offset + limit]

    def read_task_runs(self, *, flow_run_filter: FlowRunFilter, task_run_filter: Any, limit: int) -> list[TaskRun]:
        if flow_run_filter.id is not None:
            ids = flow_run_filter.id.any_ or []
        else:
            self.asked.append((flow_run_filter.state.type.any_, flow_run_filter.end_time))  # type: ignore[union-attr]
            ids = list(self.parts) if flow_run_filter.end_time is None else []
        return [part for id_ in ids for part in self.parts.get(id_, []) if not self._is_told(part.id)][:limit]

    def read_workers_for_work_pool(self, pool: str) -> list[Any]:
        return self.workers

    def set_flow_run_state(self, id_: UUID, state: State, force: bool) -> None:
        self.told.append(("flow run", id_, f"{state.name}: {state.message}"))
        self.runs = [run for run in self.runs if run.id != id_]

    def set_task_run_state(self, id_: UUID, state: State, force: bool) -> None:
        self.told.append(("task run", id_, f"{state.name}: {state.message}"))

    def _is_told(self, id_: UUID) -> bool:
        return any(told[1] == id_ for told in self.told)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    api = Api()
    monkeypatch.setattr(dead_runs, "get_client", lambda sync_client: api)
    monkeypatch.setattr(dead_runs.socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(dead_runs, "is_alive", lambda pid: pid < 100)
    monkeypatch.setattr(dead_runs, "started_at", lambda pid: f"began-{pid}" if pid < 100 else "")
    monkeypatch.setattr(dead_runs, "_has_process", lambda run: False)
    return api


def run_of(
    *tags: str,
    state: str = "RUNNING",
    name: str | None = None,
    count: int = 1,
    age: float = 0.0,
    deployed: bool = False,
) -> FlowRun:
    at = datetime.now(UTC) - timedelta(seconds=age)
    return FlowRun(
        flow_id=uuid4(), tags=["reneg", *tags], run_count=count, deployment_id=uuid4() if deployed else None,
        work_pool_name="pool" if deployed else None, state=State(type=StateType(state), name=name, timestamp=at),
    )  # fmt: skip


def part_of(run: FlowRun) -> TaskRun:
    return TaskRun(flow_run_id=run.id, task_key="part", dynamic_key=str(uuid4()))


@pytest.mark.parametrize(
    ("tags", "count", "state", "dead"),
    [
        (["pid:node-a:7:began-7:1"], 1, "RUNNING", False),
        (["pid:node-a:700:began-700:1"], 1, "RUNNING", True),
        (["pid:node-a:7:began-8:1"], 1, "RUNNING", True),  # the process id was used again
        (["pid:node-a:7"], 1, "RUNNING", False),  # of an older release, which told less
        (["pid:node-a:700"], 1, "RUNNING", True),
        (["pid:node-b:700:began-700:1"], 1, "RUNNING", False),  # of another machine, which alone can tell
        (["pid:node-a:700:began-700:1", "pid:node-a:7:began-7:1"], 1, "RUNNING", False),
        (["pid:node-a:700:began-700:1"], 2, "RUNNING", False),  # the tag is of the attempt before
        (["pid:node-a:700:began-700:2"], 2, "RUNNING", True),
        (["pid:node-a:700:began-700:1"], 1, "PENDING", False),  # the second attempt starts
        (["pid:node-a:700:began-700:1"], 0, "PENDING", True),
        ([], 1, "RUNNING", False),
    ],
)
def test_a_run_is_dead_when_no_process_of_this_machine_works_on_this_attempt_any_more(
    api: Api, tags: list[str], count: int, state: str, dead: bool
) -> None:
    api.runs = [run_of(*tags, count=count, state=state)]
    assert sweep_dead_runs() == int(dead)


def test_a_dead_run_and_what_it_left_running_are_told_crashed(api: Api) -> None:
    dead, mine = run_of("pid:node-a:700:began-700:1"), run_of("pid:node-a:700:began-700:1")
    api.runs = [dead, mine]
    parts = [part_of(dead), part_of(dead)]
    api.parts = {dead.id: parts, mine.id: [part_of(mine)]}
    assert sweep_dead_runs(mine.id) == 1
    told = "Crashed: the process that ran it died"
    assert api.told[:3] == [
        ("task run", parts[0].id, told), ("task run", parts[1].id, told), ("flow run", dead.id, told),
    ]  # fmt: skip
    assert ("task run", api.parts[mine.id][0].id, told) in api.told  # of an earlier attempt
    assert [run.id for run in api.runs] == [mine.id]


def test_only_runs_of_ours_that_are_open_or_broken_off_are_asked_for(api: Api) -> None:
    sweep_dead_runs()
    running, broken_off, ended = api.asked
    assert running == ([StateType.RUNNING, StateType.PENDING], ["reneg"])
    assert broken_off == ([StateType.CRASHED, StateType.CANCELLED], None)
    assert ended[0] == [StateType.FAILED, StateType.COMPLETED]
    age = (datetime.now(UTC) - ended[1].before_).total_seconds()
    assert 60.0 <= age < 90.0  # how a task run ended may come in after its flow run's end


def test_every_page_of_the_server_is_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_runs, "_PAGE", 2)
    api.runs = [run_of("pid:node-a:700:began-700:1") for _ in range(5)]
    api.parts = {run.id: [part_of(run) for _ in range(3)] for run in api.runs}
    assert sweep_dead_runs() == 5
    assert sum(told[0] == "task run" for told in api.told) == 15


@pytest.mark.parametrize(
    ("changes", "workers", "swept"),
    [
        ({"age": 61.0}, ["reneg-node-a-1"], True),
        ({"age": 45.0}, ["reneg-node-a-1"], False),
        ({"age": 61.0}, ["reneg-node-a-1", "reneg-node-b-1"], False),
        ({"age": 61.0}, ["reneg-node-a-b-1"], False),
        ({"age": 61.0}, [], False),
        ({"age": 301.0}, ["reneg-node-b-1"], True),
        ({"age": 280.0}, ["reneg-node-b-1"], False),
        ({"age": 301.0, "deployed": False}, [], False),
        ({"age": 301.0, "state": "SCHEDULED", "name": "Late"}, [], False),
        ({"age": 301.0, "state": "PENDING", "name": "Submitting"}, [], True),
        ({"age": 301.0, "state": "RUNNING", "name": "Retrying"}, [], False),
    ],
)
def test_a_deployments_run_that_no_process_took_up_is_swept_after_a_while(
    api: Api, changes: dict[str, Any], workers: list[str], swept: bool
) -> None:
    fields = {"state": "PENDING", "name": "Pending", "deployed": True, "count": 0, **changes}
    api.runs = [run_of(**fields)]
    api.workers = [SimpleNamespace(name=name, last_heartbeat_time=None) for name in workers]
    assert sweep_dead_runs() == int(swept)
    if swept:
        assert api.told[0][2] == "Crashed: no process took it up: its worker died before one could start"


def test_a_run_that_is_being_started_here_or_has_an_owner_is_not_abandoned(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.runs = [run_of("pid:node-b:700:began-700:1", age=301.0, deployed=True, name="Running")]
    assert sweep_dead_runs() == 0
    api.runs = [run_of(age=301.0, deployed=True, name="Running")]
    monkeypatch.setattr(dead_runs, "_has_process", lambda run: True)
    assert sweep_dead_runs() == 0


def test_a_worker_that_was_not_heard_of_for_ten_minutes_does_not_count(api: Api) -> None:
    def worker(name: str, heard: float) -> SimpleNamespace:
        return SimpleNamespace(name=name, last_heartbeat_time=datetime.now(UTC) - timedelta(seconds=heard))

    api.runs = [run_of(age=61.0, deployed=True, state="PENDING", name="Pending", count=0)]
    api.workers = [worker("reneg-node-a-1", 5.0), worker("reneg-node-b-1", 570.0)]
    assert sweep_dead_runs() == 0
    api.workers = [worker("reneg-node-a-1", 5.0), worker("reneg-node-b-1", 610.0)]
    assert sweep_dead_runs() == 1


def test_a_task_run_that_was_deleted_meanwhile_stops_no_sweep(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("pid:node-a:700:began-700:1")
    api.runs, api.parts = [run], {run.id: [part_of(run)]}

    def gone(id_: UUID, state: State, force: bool) -> None:
        raise ObjectNotFound(Exception("deleted"))

    monkeypatch.setattr(api, "set_task_run_state", gone)
    assert sweep_dead_runs() == 1


def test_the_owners_tag_names_host_process_its_beginning_and_the_attempt() -> None:
    host, pid, began, attempt = owner_tag(3).removeprefix("pid:").split(":")
    assert (host, int(pid), attempt) == (socket.gethostname(), os.getpid(), "3")
    assert began == started_at(os.getpid()) != ""
    assert owner_tag().endswith(":1")


def test_a_process_that_was_started_for_a_run_is_found_by_its_environment() -> None:
    run = uuid4()
    assert dead_runs._has_process(run) is False
    sleeper = subprocess.Popen(["sleep", "60"], env={"PREFECT__FLOW_RUN_ID": str(run)})
    try:
        until = time.monotonic() + 10
        while not dead_runs._has_process(run):  # between fork and exec it still has our environment
            assert time.monotonic() < until
    finally:
        sleeper.kill()
        sleeper.wait()
