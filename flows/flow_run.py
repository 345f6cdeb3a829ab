"""Runs a job inside a Prefect flow run: the meter, the executor, what is told meanwhile, and how it ended."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
from prefect import tags
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.computing import Done
from flows.config import CurationConfig, EngineConfig
from flows.curate import WORK, Work, curate, failure_of
from flows.curation import Curation, Curator
from flows.gold import LABEL
from flows.job import Job
from flows.method import CurationFailed, Setup
from flows.pricing import load_prices
from flows.results import folder_of
from flows.stages import JUDGE, STAGES
from flows.summary_page import summary_markdown
from infra.engines.specs import OpenAIBatchSpec, OpenAISpec
from infra.execution.executor import PrefectRayExecutor
from infra.execution.prefect_ui import show_summary
from infra.execution.usage_meter import Budget, RemoteMeter
from infra.prefect_api.dead_runs import owner_tag, sweep_dead_runs
from infra.prefect_api.events import TAG
from infra.stages.runner import PartDone, PartUnready, Runner
from infra.stages.stage import Resources

_METER_SECONDS = 2.0
_BATCH_SECONDS = 7 * 24 * 3600.0  # a batch may take a day, and a request may be in several
_HISTORY_SECONDS = 30.0


def run_flow(curator: Curator, curation: Curation, setup: Setup, job: Job, api_url: str) -> Done:
    """Do a job in a new flow run of this process; returns its outcome and what each stage did.

    Raises:
        CurationFailed, WaitingForLabels, PartUnready: as the job ended.
    """
    done: list[Done] = []
    ended: list[Exception] = []
    work = Work(lambda: done.append(compute_parts(curator, curation, setup, job)), ended.append)
    token = WORK.set(work)
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), tags(TAG, owner_tag(), curation.config.name):
            with contextlib.suppress(httpx.HTTPError):  # old runs' states are no reason not to work
                sweep_dead_runs()
            state = curate(curation.id, return_state=True)
            parts = sum(run.parts - run.blocked for run in done[0][1]) if done else 0
            await_history(api_url, str(state.state_details.flow_run_id), parts)
    finally:
        WORK.reset(token)
    if ended:
        raise ended[0]
    if not done:
        raise CurationFailed(state.message or "the flow run ended without an outcome")
    return done[0]


def compute_parts(curator: Curator, curation: Curation, setup: Setup, job: Job) -> Done:
    """Do a job inside a flow run, on the Ray that this process is connected to.

    Returns:
        What the job's method returned (None for a job of one part), and what each stage did.

    Raises:
        CurationFailed: parts failed. Their siblings were computed; what waits for them was not.
        WaitingForLabels: people have not labelled enough yet.
        PartUnready: the one part that was wanted cannot be computed alone.
    """
    hooks = curator.hooks
    prices = load_prices(setup.config)
    budget = Budget(**setup.config.budget.model_dump(), until=job.until)
    meter = RemoteMeter.start(budget, prices.of_stages(setup.config))
    executor = PrefectRayExecutor(
        curator.store,
        curator.settings.scratch,
        meter=meter,
        until=job.until,
        on_part=hooks.on_part,
        on_failure=lambda spec, reason: curator.record_failure(curation.id, spec, reason),
    )
    run = Runner(
        curator.store,
        executor,
        force=job.force,
        only=job.only,
        resources=resources_of(setup.config),
        on_stage=hooks.on_stage,
        on_note=hooks.on_message,
    )
    outcome = None
    with watch(meter, lambda totals: hooks.on_usage(totals, prices.currency)), executor:
        try:
            outcome = job.method(run, setup)
            if job.only is not None:
                raise PartUnready(f"{job.only[0]}: no part {job.only[1]} of it is among what the curation needs")
        except PartDone:
            pass
        finally:
            failed = [(r.name, number, reason) for r in run.runs for number, reason in sorted(r.failed.items())]
            if failed:
                raise failure_of(curation.id, failed, job.again)
        _show(curator, curation.id, job.name, outcome, {"usage": meter.totals(), "currency": prices.currency})
    return outcome, tuple(run.runs)


def _show(curator: Curator, curation: str, job: str, outcome: Any, usage: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Show what came out with the flow run: the summary of a curation, or the page of further work."""
    page = getattr(outcome, "page", None)
    if page is None:
        return
    name = curation.rpartition("-")[0]
    report = (folder_of(curator.settings, curation) / "report.html").absolute().as_uri()
    if "summary.json" in page.files:
        summary = json.loads(curator.store.get_object(page.files["summary.json"]))
        show_summary(name, summary_markdown({"curation": curation, **summary, **usage, "report": report}), report)
        return
    for file in (file for file in page.files if file.endswith(".md")):
        show_summary(f"{name}-{job}", curator.store.get_object(page.files[file]).decode(), "")


@contextlib.contextmanager
def watch(meter: RemoteMeter, tell: Callable[[Mapping[str, Mapping[str, float]]], None]) -> Iterator[None]:
    """Tell what is used up every few seconds, and once at the end."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_METER_SECONDS):
            tell(meter.totals())

    thread = threading.Thread(target=look, daemon=True, name="meter")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tell(meter.totals())


def resources_of(config: CurationConfig) -> dict[str, Resources]:
    """Lay what the tiers' engines need, then the configured resources, over the stage table's."""
    table = {stage.name: stage.resources for stage in STAGES}
    for tier in config.tiers:
        needs = replace(JUDGE.resources, engines=tier.engines, **_needs(tier.engine))
        table |= {f"{JUDGE.name}-{tier.name}": needs, f"{JUDGE.name}-{LABEL}-{tier.name}": replace(needs, engines=1)}
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
