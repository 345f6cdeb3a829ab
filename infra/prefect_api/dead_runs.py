"""Finds flow runs whose process died and marks them Crashed, so that none says Running for ever.

A flow run carries a tag with the host and the process that work on it, and with the attempt: while a retry starts, the
tag is still that of the attempt before. A process on that host can tell whether the named one lives. Runs of other
hosts are marked by an automation when their heartbeats stop. Open task runs of a flow run that has ended otherwise are
marked here too: nothing else in Prefect ends them.
"""

import contextlib
import itertools
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from infra.prefect_api.events import TAG
from infra.prefect_api.processes import is_alive, started_at

_OWNER = "pid:"
_DIED = "the process that ran it died"
_NOBODY = "no process took it up: its worker died before one could start"
_BEGUN = ("Pending", "Submitting", "Running")
_ABANDONED_SECONDS = 300.0
_ALONE_SECONDS = 60.0  # the same, where every worker is on this machine: whoever started it would be seen here
_HEARD_SECONDS = 600.0  # workers that were not heard of for longer started none of the runs in question
_WITH_ATTEMPT = 4  # host, process id, when it began, attempt
_PAGE = 200  # the most runs the server lists at a time
_OPEN = [StateType.RUNNING, StateType.PENDING]
_BROKEN_OFF = [StateType.CRASHED, StateType.CANCELLED]  # nothing more is reported of their task runs
_ENDED = [StateType.FAILED, StateType.COMPLETED]
_LATE_SECONDS = 60.0


def owner_tag(attempt: int = 1) -> str:
    """Name this process as the one that works on a flow run, and which of the run's attempts it is."""
    return f"{_OWNER}{socket.gethostname()}:{os.getpid()}:{started_at(os.getpid())}:{attempt}"


def sweep_dead_runs(current: UUID | None = None) -> int:
    """Mark flow runs whose process on this machine died Crashed, and what they left running; returns how many.

    Args:
        current: the flow run that sweeps, which is left alone but for the task runs of its earlier attempts.
    """
    with get_client(sync_client=True) as client:
        others = [run for run in _running(client) if run.id != current]
        dead = [(run.id, _DIED) for run in others if _is_dead(run)]
        dead += [(run.id, _NOBODY) for run in others if _is_abandoned(client, run)]
        for id_, reason in dead:
            _crash_task_runs(client, id_)
            client.set_flow_run_state(id_, Crashed(message=reason), force=True)
        for id_ in _ended_with_open_task_runs(client):
            _crash_task_runs(client, id_)
        if current is not None:
            _crash_task_runs(client, current)
    return len(dead)


def _running(client: SyncPrefectClient) -> list[FlowRun]:
    wanted = _in_state(_OPEN)
    found: list[FlowRun] = []
    for offset in itertools.count(0, _PAGE):
        page = client.read_flow_runs(
            flow_run_filter=wanted, limit=_PAGE, offset=offset, sort=FlowRunSort.EXPECTED_START_TIME_DESC
        )
        found += page
        if len(page) < _PAGE:
            return found
    return found


def _is_dead(run: FlowRun) -> bool:
    """Tell whether every process of this machine that the tags name for this attempt is gone; without any it is not."""
    mine = [owner for owner in _owners(run) if owner[0] == socket.gethostname()]
    if not mine:
        return False
    return not any(is_alive(int(pid)) and (not since or since[0] == started_at(int(pid))) for _, pid, *since in mine)


def _is_abandoned(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Tell whether a deployment's flow run was begun a while ago and no process named itself in its tags.

    Its worker, or its process, died in between; a process on this machine that still starts is not forgotten.
    """
    if run.deployment_id is None or run.state is None or _owners(run) or run.state.name not in _BEGUN:
        return False
    age = (datetime.now(UTC) - run.state.timestamp).total_seconds()
    if age <= _ALONE_SECONDS or _has_process(run.id):
        return False
    return age > _ABANDONED_SECONDS or _works_here_alone(client, run.work_pool_name)


def worker_name(suffix: str) -> str:
    """Name a worker by the machine it is on."""
    return f"reneg-{socket.gethostname()}-{suffix}"


def _works_here_alone(client: SyncPrefectClient, pool: str | None) -> bool:
    """Tell whether every worker of a pool that was heard of lately is on this machine, by its name."""
    known = client.read_workers_for_work_pool(pool) if pool else []
    lately = datetime.now(UTC) - timedelta(seconds=_HEARD_SECONDS)
    names = [w.name for w in known if w.last_heartbeat_time is None or w.last_heartbeat_time > lately]
    return bool(names) and all(worker_name(name.rpartition("-")[2]) == name for name in names)


def _owners(run: FlowRun) -> list[list[str]]:
    """List who works on the present attempt, by the tags: host, process id, when it began, attempt."""
    attempt = run.run_count + 1 if run.state is not None and run.state.is_pending() else run.run_count
    named = [tag.removeprefix(_OWNER).split(":") for tag in run.tags if tag.startswith(_OWNER)]
    return [owner for owner in named if len(owner) < _WITH_ATTEMPT or int(owner[3]) >= attempt]


def _has_process(run: UUID) -> bool:
    """Tell whether a process of this machine was started for a flow run, by the variables it was started with."""
    variable = f"PREFECT__FLOW_RUN_ID={run}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable in environment.read_bytes().split(b"\0"):
                return True
    return False


def _ended_with_open_task_runs(client: SyncPrefectClient) -> set[UUID]:
    """Find our ended flow runs with task runs that are open; how a task run ended may come in after its flow run's end.

    Only ours: on a server that others use too, what their flow runs leave is theirs.
    """
    settled = FlowRunFilterEndTime(before_=datetime.now(UTC) - timedelta(seconds=_LATE_SECONDS))
    ended = (_in_state(_BROKEN_OFF), _in_state(_ENDED).model_copy(update={"end_time": settled}))
    runs = [
        run
        for wanted in ended
        for run in client.read_task_runs(flow_run_filter=wanted, task_run_filter=_open_task_runs(), limit=_PAGE)
    ]
    return {run.flow_run_id for run in runs if run.flow_run_id is not None}


def _in_state(types: list[StateType]) -> FlowRunFilter:
    return FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)), tags=FlowRunFilterTags(all_=[TAG])
    )


def _crash_task_runs(client: SyncPrefectClient, flow_run: UUID) -> None:
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    while True:
        parts = client.read_task_runs(flow_run_filter=wanted, task_run_filter=_open_task_runs(), limit=_PAGE)
        for part in parts:
            with contextlib.suppress(ObjectNotFound):
                client.set_task_run_state(part.id, Crashed(message=_DIED), force=True)
        if len(parts) < _PAGE:
            return


def _open_task_runs() -> TaskRunFilter:
    return TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_OPEN), name=None))
