"""Runs a job inside a Prefect flow run: with a meter and an executor, reporting progress and how it ended."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx
from prefect import State, flow, tags
from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import temporary_settings
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.config.prices import load_prices
from flows.config.resources import resources_of
from flows.curation.lookup import Done, Job
from flows.curation.records import record_failure
from flows.curation.stored_config import key_rules
from flows.curation.workspace import Workspace
from flows.method.setup import CurationFailed, Setup, WaitingForLabels
from flows.results.summary_page import summary_markdown
from flows.runs.failures import failure_of
from infra.execution.executor import PrefectRayExecutor
from infra.execution.prefect_ui import show_summary
from infra.execution.usage_meter import Budget, RemoteMeter
from infra.names import NumberedId
from infra.prefect_api.client import Api, connected
from infra.prefect_api.dead_runs import owner_tag, sweep_dead_runs
from infra.prefect_api.events import TAG
from infra.redact import no_secrets_in_errors
from infra.settings import max_parts
from infra.stages.found_parts import FoundParts
from infra.stages.runner import PartDone, PartUnready, Runner

_METER_SECONDS = 2.0
_HISTORY_SECONDS = 30.0


@dataclass(frozen=True)
class Work:
    """What a flow run works on. It stays in this process; Prefect sees only the curation's name."""

    do: Callable[[], None]
    ended: Callable[[Exception], None]  # called with the reason if it did not finish


WORK: ContextVar[Work] = ContextVar("work")


@flow(
    name="curate",
    flow_run_name="{curation}",
    task_runner=ThreadPoolTaskRunner(max_workers=max_parts()),  # type: ignore[arg-type]
    persist_result=False,
)
@no_secrets_in_errors()
def curate(curation: str) -> State[Any]:
    """Curate once: compute every part that has no manifest, reuse the others.

    Raises:
        CurationFailed: parts failed. Other parts of their stages were computed, parts that depend on them were not.
    """
    work = WORK.get()
    try:
        work.do()
    except WaitingForLabels as waiting:
        work.ended(waiting)
        return Completed(name="Waiting", message=str(waiting))
    except Exception as error:
        work.ended(error)
        raise
    return Completed(message=f"{curation}: finished")


def run_flow(workspace: Workspace, setup: Setup, job: Job, api: Api) -> Done:
    """Do a job in a new flow run of this process; returns its outcome, and what each stage did.

    Raises:
        CurationFailed, WaitingForLabels, PartUnready: as the job ended.
    """
    done: list[Done] = []
    ended: list[Exception] = []
    task_runs: list[int] = []
    work = Work(lambda: done.append(compute_parts(workspace, setup, job, task_runs.append)), ended.append)
    token = WORK.set(work)
    try:
        with connected(api), tags(TAG, owner_tag(), setup.config.name):
            with contextlib.suppress(httpx.HTTPError):  # a failed clean-up of old runs stops no work
                sweep_dead_runs()
            state = curate(setup.curation, return_state=True)
            await_history(str(state.state_details.flow_run_id), sum(task_runs))
    finally:
        WORK.reset(token)
    if ended:
        raise ended[0]
    if not done:
        raise CurationFailed(state.message or "the flow run ended without an outcome")
    return done[0]


def compute_parts(
    workspace: Workspace, setup: Setup, job: Job, on_task_runs: Callable[[int], None] = lambda count: None
) -> Done:
    """Do a job inside a flow run, on the Ray that this process is connected to.

    `on_task_runs` is called at the end, however it comes, with the number of task runs that show the parts.

    Returns:
        What the job's method returned (None for a job of one part), and what each stage did.

    Raises:
        CurationFailed: parts failed. Other parts of their stages were computed, parts that depend on them were not.
        WaitingForLabels: people have not labelled enough yet.
        PartUnready: the one wanted part cannot be computed alone.
    """
    hooks, store = workspace.hooks, workspace.store
    prices = load_prices(setup.config)
    budget = Budget(**setup.config.budget.model_dump(), until=job.until)
    meter = RemoteMeter.start(budget, prices.of_stages(setup.config))
    executor = PrefectRayExecutor(
        store,
        workspace.settings.scratch,
        meter=meter,
        key_rules=key_rules(own_file=setup.own_file),
        until=job.until,
        on_part=hooks.on_part,
        on_failure=lambda spec, reason: record_failure(store, setup.curation, spec, reason),
    )
    run = Runner(
        store,
        executor,
        force=job.force,
        only=job.only,
        since=job.since,
        found=FoundParts() if job.found is None else job.found.for_another_walk(),
        resources=resources_of(
            setup.config.tiers, setup.config.resources, setup.config.all_encoders, setup.config.rescore
        ),
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
            on_task_runs(executor.task_runs)
            failed = [(r.name, number, reason) for r in run.runs for number, reason in sorted(r.failed.items())]
            if failed:
                raise failure_of(setup.curation, failed, job.again)
        _show(workspace, setup.curation, job.name, outcome, {"usage": meter.totals(), "currency": prices.currency})
    return outcome, tuple(run.runs)


def _show(workspace: Workspace, curation: str, job: str, outcome: Any, usage: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Attach the results to the flow run: the summary of a curation, or the page of further work."""
    page = getattr(outcome, "page", None)
    if page is None:
        return
    name = NumberedId.parse(curation).name
    report = (workspace.folder(curation) / "report.html").absolute().as_uri()
    if "summary.json" in page.files:
        summary = json.loads(workspace.store.get_object(page.files["summary.json"]))
        show_summary(name, summary_markdown({"curation": curation, **summary, **usage, "report": report}), report)
        return
    for file in (file for file in page.files if file.endswith(".md")):
        show_summary(f"{name}-{job}", workspace.store.get_object(page.files[file]).decode(), "")


@contextlib.contextmanager
def watch(meter: RemoteMeter, tell: Callable[[Mapping[str, Mapping[str, float]]], None]) -> Iterator[None]:
    """Call `tell` with the usage so far every few seconds, and once at the end."""
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


def await_history(flow_run_id: str, task_runs: int) -> bool:
    """Wait until the server has recorded the end of every task run, which takes seconds; returns whether it has."""
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)
    finished = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}
    query = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "task_runs": finished}
    deadline = time.monotonic() + _HISTORY_SECONDS
    once: Any = {"client.max_retries": 0}  # the loop is what tries again
    with temporary_settings(once), get_client(sync_client=True, httpx_settings={"timeout": 10}) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if int(client.request("POST", "/task_runs/count", json=query).text) >= task_runs:
                    return True
            time.sleep(0.25)
    return False
