"""Runs the Prefect flow for a curation and cleans up after runs that died."""

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

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
from ray.exceptions import RayError

from flows.config import CurationConfig, EngineConfig
from flows.curate import WORK, Work, curate
from flows.curation import Curation, Curator
from flows.method import CurationFailed, Outcome, Setup
from flows.pricing import load_prices
from flows.stages import JUDGE, STAGES
from infra.engines import OpenAIBatchSpec, OpenAISpec
from infra.execution import PrefectRayExecutor
from infra.meter import Budget, RemoteMeter
from infra.prefect_server import is_alive
from infra.runner import Runner, StageRun
from infra.stage import Resources

_METER_SECONDS = 2.0
_BATCH_SECONDS = 7 * 24 * 3600.0  # a batch may take a day, and a request may be in several
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

    prices = load_prices(setup.config)
    meter = RemoteMeter.start(Budget(**setup.config.budget.model_dump()), prices.of_stages(setup.config))

    def make_executor() -> PrefectRayExecutor:
        return PrefectRayExecutor(
            curator.store,
            curator.settings.scratch,
            meter=meter,
            on_part=hooks.on_part,
            on_failure=lambda spec, reason: curator.record_failure(curation.id, spec, reason),
        )

    def make_runner(executor: PrefectRayExecutor) -> Runner:
        runners.append(
            Runner(
                curator.store,
                executor,
                force=force,
                resources=resources_of(setup.config),
                on_stage=hooks.on_stage,
                on_note=hooks.on_message,
            )
        )
        return runners[-1]

    token = WORK.set(Work(setup, make_executor, make_runner, outcomes.append))
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), tags(f"{_OWNER}{os.getpid()}", setup.config.name):
            with contextlib.suppress(httpx.HTTPError):  # old runs' states are no reason not to work
                sweep_dead_runs()
            with watch(meter, lambda totals: hooks.on_usage(totals, prices.currency)):
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


@contextlib.contextmanager
def watch(meter: RemoteMeter, tell: Callable[[Mapping[str, Mapping[str, float]]], None]) -> Iterator[None]:
    """Tell what is used up every few seconds, and once at the end."""
    over = threading.Event()

    def show() -> None:
        with contextlib.suppress(RayError):  # the meter may be gone, and what it shows is no reason to fail
            tell(meter.totals())

    def look() -> None:
        while not over.wait(_METER_SECONDS):
            show()

    thread = threading.Thread(target=look, daemon=True, name="meter")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        show()


def resources_of(config: CurationConfig) -> dict[str, Resources]:
    """Lay what the tiers' engines need, then the configured resources, over the stage table's."""
    table = {stage.name: stage.resources for stage in STAGES}
    for tier in config.tiers:
        table[f"{JUDGE.name}-{tier.name}"] = replace(JUDGE.resources, engines=tier.engines, **_needs(tier.engine))
    for name, wanted in sorted(config.resources.items(), key=lambda item: "-" in item[0]):  # a label has the last word
        changes = wanted.model_dump(exclude_none=True)
        if name not in table:
            table[name] = replace(table[name.partition("-")[0]], **changes)
        for known in [k for k in table if k == name or k.partition("-")[0] == name]:
            table[known] = replace(table[known], **changes)
    return table


def _needs(engine: EngineConfig) -> dict[str, Any]:
    """Say what an engine's actor is granted where the configuration does not: GPUs, or next to nothing."""
    if isinstance(engine, OpenAIBatchSpec):
        return {"num_cpus": 0.1, "deadline": _BATCH_SECONDS}
    if isinstance(engine, OpenAISpec):
        return {"num_cpus": 0.1}
    if engine.device == "cuda":
        return {"num_gpus": float(getattr(engine, "tensor_parallel_size", 1))}
    return {}


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
