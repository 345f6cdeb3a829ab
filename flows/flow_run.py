"""Runs the Prefect flow for a curation and cleans up after runs that died."""

import contextlib
import itertools
import os
import socket
import time
from dataclasses import replace

import httpx
from prefect import tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed

from flows.config import CurationConfig
from flows.curate import WORK, Work, curate
from flows.curation import Curation, Curator
from flows.method import CurationFailed, Outcome, Setup
from flows.stages import STAGES
from infra.execution import PrefectRayExecutor
from infra.prefect_server import is_alive
from infra.runner import Runner, StageRun
from infra.stage import Resources

_OWNER = f"pid:{socket.gethostname()}:"
_DIED = "the process that ran it died"
_HISTORY_SECONDS = 30.0
_PAGE = 200  # the most task runs the server lists at a time


def run_flow(
    curator: Curator, curation: Curation, setup: Setup, force: frozenset[tuple[str, int]], api_url: str
) -> tuple[Outcome, tuple[StageRun, ...]]:
    """Execute the flow in this process; returns the outcome and what each stage did.

    Raises:
        CurationFailed: parts failed.
    """
    outcomes: list[Outcome] = []
    runners: list[Runner] = []
    hooks = curator.hooks

    def make_executor() -> PrefectRayExecutor:
        return PrefectRayExecutor(
            curator.store,
            curator.settings.scratch,
            engines=setup.config.llm.engines if setup.config.llm else 1,
            on_part=hooks.on_part,
            on_failure=lambda spec, reason: curator.record_failure(curation.id, spec, reason),
        )

    def make_runner(executor: PrefectRayExecutor) -> Runner:
        runners.append(
            Runner(curator.store, executor, force=force, on_stage=hooks.on_stage, resources=resources_of(setup.config))
        )
        return runners[-1]

    token = WORK.set(Work(setup, make_executor, make_runner, outcomes.append))
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), tags(f"{_OWNER}{os.getpid()}", setup.config.name):
            with contextlib.suppress(httpx.HTTPError):  # old runs' states are no reason not to work
                sweep_dead_runs()
            state = curate(curation.id, return_state=True)
            parts = sum(run.parts - run.blocked for runner in runners for run in runner.runs)
            await_history(api_url, str(state.state_details.flow_run_id), parts)
    finally:
        WORK.reset(token)
    if not outcomes:
        error = state.result(raise_on_failure=False)
        if isinstance(error, Exception):
            raise error
        raise CurationFailed(state.message or "the flow run ended without an outcome")
    return outcomes[0], tuple(runners[0].runs)


def resources_of(config: CurationConfig) -> dict[str, Resources]:
    """Lay the configured resources over the stage table's."""
    table = {stage.name: stage.resources for stage in STAGES}
    return {n: replace(table[n], **c.model_dump(exclude_none=True)) for n, c in config.resources.items()}


def await_history(api_url: str, flow_run_id: str, parts: int) -> bool:
    """Wait until the server has recorded how every part ended: it learns of task runs from events, seconds later."""
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)
    finished = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}
    query = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "task_runs": finished}
    deadline = time.monotonic() + _HISTORY_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            reply = httpx.post(f"{api_url}/task_runs/count", json=query, timeout=10)
            if reply.is_success and int(reply.text) >= parts:
                return True
        time.sleep(0.25)
    return False


def sweep_dead_runs() -> int:
    """Mark flow runs whose process on this machine died Crashed, with their task runs; returns how many."""
    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
    swept = 0
    with get_client(sync_client=True) as client:
        for found in client.read_flow_runs(flow_run_filter=running):
            owners = [int(tag.removeprefix(_OWNER)) for tag in found.tags if tag.startswith(_OWNER)]
            if not owners or any(is_alive(pid) for pid in owners):
                continue
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=[found.id]))
            for offset in itertools.count(0, _PAGE):
                parts = client.read_task_runs(flow_run_filter=wanted, limit=_PAGE, offset=offset)
                for part in parts:
                    if part.state is None or not part.state.is_final():
                        client.set_task_run_state(part.id, Crashed(message=_DIED), force=True)
                if len(parts) < _PAGE:
                    break
            client.set_flow_run_state(found.id, Crashed(message=_DIED), force=True)
            swept += 1
    return swept
