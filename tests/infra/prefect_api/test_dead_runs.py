"""A real Prefect server; flow runs whose process is gone do not say Running for ever."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from infra.prefect_api import dead_runs
from infra.prefect_api.dead_runs import owner_tag, sweep_dead_runs
from infra.prefect_api.processes import started_at
from infra.prefect_api.server import PrefectServer

_FLOW = """
import os, sys, time
from prefect import flow, tags, task
from infra.prefect_api.dead_runs import owner_tag

@task
def part():
    print("working", flush=True)
    time.sleep(120)

@flow(name="endless")
def endless():
    from prefect.runtime import flow_run
    print(flow_run.id, flush=True)
    part.submit().wait()

with tags("reneg", owner_tag()):
    endless()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    server = PrefectServer(home)
    url = server.start()
    with temporary_settings({PREFECT_API_URL: url, PREFECT_HOME: home / "client"}):
        yield url
    assert server.stop()


def start(url: str, tmp_path: Path) -> tuple[subprocess.Popen[str], UUID]:
    """Start a flow run in a process of its own; returns once its task is at work and recorded."""
    environment = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "client")}
    process = subprocess.Popen(
        [sys.executable, "-c", _FLOW], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    id_ = UUID(process.stdout.readline().strip())
    assert process.stdout.readline() == "working\n"
    deadline = time.monotonic() + 30
    while not any(run.state and run.state.is_running() for run in task_runs(id_)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return process, id_


def task_runs(id_: UUID) -> list[TaskRun]:
    with get_client(sync_client=True) as client:
        return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[id_])))


def flow_run(id_: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(id_)


@pytest.mark.slow
def test_a_killed_process_leaves_no_run_that_says_running(server: str, tmp_path: Path) -> None:
    process, id_ = start(server, tmp_path)
    assert sweep_dead_runs() == 0  # it lives
    process.kill()
    process.wait()
    assert sweep_dead_runs() == 1
    state = flow_run(id_).state
    assert state is not None
    assert (state.is_crashed(), state.message) == (True, "the process that ran it died")
    assert [run.state.is_crashed() for run in task_runs(id_) if run.state] == [True]
    assert sweep_dead_runs() == 0


@pytest.mark.slow
def test_what_a_flow_run_that_was_told_crashed_by_others_left_running_is_swept_too(server: str, tmp_path: Path) -> None:
    from prefect.states import Crashed

    process, id_ = start(server, tmp_path)
    process.kill()
    process.wait()
    with get_client(sync_client=True) as client:  # as the heartbeat automation does
        client.set_flow_run_state(id_, Crashed(message="no heartbeat"), force=True)
    sweep_dead_runs()
    assert [run.state.is_crashed() for run in task_runs(id_) if run.state] == [True]


@pytest.mark.slow
def test_a_process_id_that_was_used_again_does_not_keep_a_dead_run_alive(server: str, tmp_path: Path) -> None:
    process, id_ = start(server, tmp_path)
    host = owner_tag().rsplit(":", 3)[0]
    with get_client(sync_client=True) as client:  # now "its" process id is ours, but ours began at another time
        client.update_flow_run(id_, tags=["reneg", f"{host}:{os.getpid()}:1:1"])
    process.kill()
    process.wait()
    assert sweep_dead_runs() == 1


@pytest.mark.slow
def test_a_retry_that_starts_is_not_condemned_by_the_tag_of_the_attempt_that_died(server: str, tmp_path: Path) -> None:
    from prefect.states import AwaitingRetry, Pending, Running

    process, id_ = start(server, tmp_path)
    process.kill()
    process.wait()
    assert sweep_dead_runs() == 1
    with get_client(sync_client=True) as client:
        for state in (AwaitingRetry(), Pending(), Running()):
            client.set_flow_run_state(id_, state)
            assert sweep_dead_runs() == 0
        assert client.read_flow_run(id_).run_count == 2
        dead = owner_tag(2).replace(f":{os.getpid()}:", f":{process.pid}:")
        client.update_flow_run(id_, tags=["reneg", dead])  # the second attempt's process died as well
    assert sweep_dead_runs() == 1


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
def test_a_run_that_was_begun_a_while_ago_and_that_no_process_took_up_is_swept(
    server: str, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    from prefect import flow
    from prefect.states import Pending

    pool = f"pool-{alone}".lower()

    @flow(name="never")
    def never() -> None: ...

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(never)
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        deployment = client.create_deployment(flow_id, pool, tags=["reneg"], work_pool_name=pool)
        run = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(run.id, Pending(name="Submitting"))
        assert sweep_dead_runs() == 0  # its worker may be about to start it
        monkeypatch.setattr(dead_runs, "_ALONE_SECONDS", 0.0)
        assert sweep_dead_runs() == 0  # it may be on another machine
        if alone:
            client.send_worker_heartbeat(pool, dead_runs.worker_name("1"), heartbeat_interval_seconds=30)
        else:
            beside = dead_runs.worker_name("2-1")  # of another machine, whose name begins like this one's
            client.send_worker_heartbeat(pool, beside, heartbeat_interval_seconds=30)
            assert sweep_dead_runs() == 0
            monkeypatch.setattr(dead_runs, "_ABANDONED_SECONDS", 0.0)
        starting = subprocess.Popen(["sleep", "60"], env={**os.environ, "PREFECT__FLOW_RUN_ID": str(run.id)})
        assert sweep_dead_runs() == 0  # it is being started here
        starting.kill()
        starting.wait()
        assert sweep_dead_runs() == 1
    state = flow_run(run.id).state
    assert state is not None
    assert state.is_crashed()
    assert "no process took it up" in str(state.message)


@pytest.mark.slow
def test_what_others_run_on_the_same_server_is_left_alone(server: str, tmp_path: Path) -> None:
    process, id_ = start(server, tmp_path)
    with get_client(sync_client=True) as client:
        client.update_flow_run(id_, tags=[tag for tag in flow_run(id_).tags if tag != "reneg"])
    process.kill()
    process.wait()
    assert sweep_dead_runs() == 0
    assert [run.state.is_running() for run in task_runs(id_) if run.state] == [True]


@pytest.mark.slow
def test_a_task_run_whose_end_is_still_on_its_way_is_not_called_crashed(server: str, tmp_path: Path) -> None:
    from prefect.states import Completed

    process, id_ = start(server, tmp_path)
    process.kill()
    process.wait()
    with get_client(sync_client=True) as client:  # the flow run has ended well, a second ago
        client.set_flow_run_state(id_, Completed(), force=True)
    sweep_dead_runs()
    assert [run.state.is_running() for run in task_runs(id_) if run.state] == [True]


# ---- with an API in this process ----

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
def test_a_run_is_dead_when_every_has_process_this_machine_that_works_on_this_attempt_is_gone(
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
