"""Flow runs whose process died: found, and told as they are, so that nothing says Running for ever.

A flow run carries a tag with the host and the process that work on it. Whoever runs on that host can tell whether the
process lives. Runs of other hosts are told dead by their heartbeats (an automation, `flows.deploy`). Task runs of a
flow run that has ended otherwise are swept here too: nothing else in Prefect ends them.
"""

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from infra.prefect_server import is_alive

_OWNER = f"pid:{socket.gethostname()}:"
_DIED = "the process that ran it died"
_PAGE = 200  # the most runs the server lists at a time
_OPEN = [StateType.RUNNING, StateType.PENDING]
_ENDED = [StateType.CRASHED, StateType.FAILED, StateType.CANCELLED, StateType.COMPLETED]


def owner_tag() -> str:
    """Name this process as the one that works on a flow run."""
    return f"{_OWNER}{os.getpid()}:{_started(os.getpid())}"


def sweep_dead_runs(current: UUID | None = None) -> int:
    """Mark flow runs whose process on this machine died Crashed, and what they left running; returns how many.

    Args:
        current: the flow run that sweeps, which is left alone but for the task runs of its earlier attempts.
    """
    with get_client(sync_client=True) as client:
        dead = [run for run in _running(client) if run.id != current and _is_dead(run)]
        for run in dead:
            _crash_task_runs(client, run.id)
            client.set_flow_run_state(run.id, Crashed(message=_DIED), force=True)
        for id_ in _ended_with_open_task_runs(client):
            _crash_task_runs(client, id_)
        if current is not None:
            _crash_task_runs(client, current)
    return len(dead)


def _running(client: SyncPrefectClient) -> list[FlowRun]:
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN)))
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
    """Tell whether every process of this machine that is named in the run's tags is gone; one without tags is not."""
    owners = [tag.removeprefix(_OWNER).split(":") for tag in run.tags if tag.startswith(_OWNER)]
    if not owners:
        return False
    return not any(is_alive(int(pid)) and (not since or since[0] == _started(int(pid))) for pid, *since in owners)


def _started(pid: int) -> str:
    """Tell when a process began, in clock ticks since boot: process ids are used again."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[-1].split()[19]
    return ""


def _ended_with_open_task_runs(client: SyncPrefectClient) -> Iterator[UUID]:
    runs = client.read_task_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_ENDED))),
        task_run_filter=_open_task_runs(),
        limit=_PAGE,
    )
    return iter({run.flow_run_id for run in runs if run.flow_run_id is not None})


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
