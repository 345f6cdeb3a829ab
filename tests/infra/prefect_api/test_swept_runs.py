"""Flow runs on a real Prefect server; those whose process is gone do not say Running for ever."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.settings import PREFECT_API_AUTH_STRING
from prefect.states import AwaitingRetry, Completed, Crashed, Pending, Running

from infra.prefect_api import dead_runs
from infra.prefect_api.client import Api, client_environment
from infra.prefect_api.dead_runs import owner_tag, sweep_dead_runs
from infra.prefect_api.processes import started_at
from tests.infra.prefect_calls import embedded

pytestmark = pytest.mark.slow

_FLOW = """
import os, sys, time
from prefect import flow, tags, task
from infra.prefect_api.client import Api, client_environment
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
    with embedded(tmp_path_factory.mktemp("home")) as url:
        yield url


def start(url: str, tmp_path: Path) -> tuple[subprocess.Popen[str], UUID]:
    """Start a flow run in a process of its own; returns once its task is at work and recorded."""
    api = Api(url, PREFECT_API_AUTH_STRING.value())
    environment = {**os.environ, **client_environment(api), "PREFECT_HOME": str(tmp_path / "client")}
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


def record() -> tuple[subprocess.Popen[bytes], UUID]:
    """Record a flow run with a task run, both Running, and start a process that is named as the one at work on it."""
    process = subprocess.Popen(["sleep", "120"])
    owner = f"pid:{socket.gethostname()}:{process.pid}:{started_at(process.pid)}:1"
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(endless, tags=["reneg", owner])
        client.set_flow_run_state(run.id, Running())
        client.create_task_run(part, run.id, "part-0", state=Running())
        assert client.read_flow_run(run.id).run_count == 1
    return process, run.id


@flow(name="endless")
def endless() -> None: ...


@task
def part() -> None: ...


def task_runs(id_: UUID) -> list[TaskRun]:
    with get_client(sync_client=True) as client:
        return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[id_])))


def flow_run(id_: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(id_)


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


def test_what_a_flow_run_that_was_told_crashed_by_others_left_running_is_swept_too(server: str) -> None:
    process, id_ = record()
    process.kill()
    process.wait()
    with get_client(sync_client=True) as client:  # as the heartbeat automation does
        client.set_flow_run_state(id_, Crashed(message="no heartbeat"), force=True)
    sweep_dead_runs()
    assert [run.state.is_crashed() for run in task_runs(id_) if run.state] == [True]


def test_a_process_id_that_was_used_again_does_not_keep_a_dead_run_alive(server: str) -> None:
    process, id_ = record()
    host = owner_tag().rsplit(":", 3)[0]
    with get_client(sync_client=True) as client:  # now "its" process id is ours, but ours began at another time
        client.update_flow_run(id_, tags=["reneg", f"{host}:{os.getpid()}:1:1"])
    process.kill()
    process.wait()
    assert sweep_dead_runs() == 1


def test_a_retry_that_starts_is_not_condemned_by_the_tag_of_the_attempt_that_died(server: str) -> None:
    process, id_ = record()
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


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_that_was_begun_a_while_ago_and_that_no_process_took_up_is_swept(
    server: str, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
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


def test_what_others_run_on_the_same_server_is_left_alone(server: str) -> None:
    process, id_ = record()
    with get_client(sync_client=True) as client:
        client.update_flow_run(id_, tags=[tag for tag in flow_run(id_).tags if tag != "reneg"])
    process.kill()
    process.wait()
    assert sweep_dead_runs() == 0
    assert [run.state.is_running() for run in task_runs(id_) if run.state] == [True]


def test_a_task_run_whose_end_is_still_on_its_way_is_not_called_crashed(server: str) -> None:
    process, id_ = record()
    process.kill()
    process.wait()
    with get_client(sync_client=True) as client:  # the flow run has ended well, a second ago
        client.set_flow_run_state(id_, Completed(), force=True)
    sweep_dead_runs()
    assert [run.state.is_running() for run in task_runs(id_) if run.state] == [True]
