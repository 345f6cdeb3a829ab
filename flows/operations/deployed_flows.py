"""The Prefect flows of the deployments: they take typed parameters, do a job, and end in a state that tells the result.

They run where a worker of the pool runs (`reneg serve`), with that process's environment. The store records which
curation a flow run works on, so that Retry continues the same one even if the source has changed since.
"""

import contextlib
import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect import State, flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field

from flows.config.curation import BudgetConfig
from flows.config.schedule import end_of_night, lateness
from flows.curation.labels import resumable
from flows.curation.lookup import Compute, Job
from flows.curation.prepare import prepare
from flows.curation.records import Curation, load_curation, open_curation, read_config
from flows.curation.workspace import Hooks, Workspace
from flows.maintenance.gc import Wanted, collect, collection_page
from flows.method.afterwards.prune import PruneConfig, prune_method
from flows.method.afterwards.retrain import RetrainConfig, retrain_method
from flows.method.afterwards.validate import ValidateConfig, validate_method
from flows.method.setup import CurationFailed, Setup, TooManyRejected, WaitingForLabels
from flows.runs.execute import do_job, execute, rerun_job, work_further
from flows.runs.failures import CurationStopped
from flows.runs.servers import in_this_flow_run
from infra.execution.prefect_ui import show_summary
from infra.prefect_api.dead_runs import owner_tag, sweep_dead_runs
from infra.prefect_api.events import TAG
from infra.prefect_api.processes import ignore_broken_pipes
from infra.redact import guard_logs, no_secrets_in_errors
from infra.settings import max_parts, read_settings
from infra.stages.runner import Runner
from tasks.report.data_figures import closing_line

if flow_run.id:  # this process works on a flow run
    ignore_broken_pipes()
    guard_logs()


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Nightly(_Parameters):
    """One night of one configuration."""

    configuration: str = Field(description="The name of a configuration that `reneg deploy` put into the store.")


class Curate(_Parameters):
    """A curation now, beside the schedule."""

    configuration: str = Field(description="The name of a configuration that `reneg deploy` put into the store.")
    budget: BudgetConfig | None = Field(None, description="The limits of this run, instead of the configured ones.")


class RerunPart(_Parameters):
    """One part of one curation, to compute again."""

    curation: str = Field(description="A curation's id, as in the flow run's name: my-data-000001.")
    stage: str = Field(description="The stage with its label, as in the task run's name: judge-llm.")
    part: int = Field(ge=0, description="The part's number, as in the task run's name: 3 for judge-llm-00003.")
    downstream: bool = Field(True, description="Also compute the parts downstream of it.")


_FINISHED = Field(description="A finished curation's id: my-data-000001.")


class Validate(_Parameters):
    """A validation of the judges with people's labels."""

    curation: str = _FINISHED
    reading: ValidateConfig = Field(ValidateConfig(), description="How people's labels are read.")


class Retrain(_Parameters):
    """Training with several seeds."""

    curation: str = _FINISHED
    training: RetrainConfig = Field(RetrainConfig(), description="What is trained, and how often.")


class Prune(_Parameters):
    """Training without each dataset, one at a time."""

    curation: str = _FINISHED
    trial: PruneConfig = Field(PruneConfig(), description="What is left out, and how often each mix is trained.")


class Collect(_Parameters):
    """What gc does."""

    remove: bool = Field(True, description="False: only tell what would be removed.")


_PARTS: Any = ThreadPoolTaskRunner(max_workers=max_parts())


@flow(name="nightly", task_runner=_PARTS, persist_result=False)
@no_secrets_in_errors()
def nightly(night: Nightly) -> State[Any]:
    """Curate the source as it is tonight; if the source has not changed, nothing is computed."""
    workspace = _workspace()
    config = read_config(workspace.store, night.configuration)
    late = lateness(flow_run.scheduled_start_time, config.nightly)
    if late is not None and flow_run.run_count == 1:
        return Completed(name="Skipped", message=late)
    job = Job("nightly", until=end_of_night(config.nightly, datetime.now().astimezone()))
    state = do(workspace, _take_up(workspace, lambda: open_curation(workspace, config)), job)
    return resume(workspace, config.name, job, state)


def resume(
    workspace: Workspace, name: str, job: Job, tonight: State[Any], compute: Compute = in_this_flow_run
) -> State[Any]:
    """Continue the curations that now have enough labels, after tonight's curation.

    Returns:
        Tonight's state, with their results in its message; or the state of the one in which the night ended.

    Raises:
        CurationFailed: parts of them failed; the curations after it were tried nevertheless.
    """
    said, failed, stopped = [str(tonight.message)], [], None
    for waiting in resumable(workspace, name) if tonight.is_completed() else ():
        workspace.hooks.on_message(f"{waiting}: enough labels were imported, it continues")
        try:
            state = do(workspace, load_curation(workspace.store, waiting), job, compute)
        except CurationFailed as error:
            failed.append(str(error))
            continue
        said.append(str(state.message))
        if not state.is_completed():
            stopped = state  # the night or the budget is at its end
            break
    if failed:
        raise CurationFailed("\n".join([*said, *failed]))
    if stopped is not None:
        return stopped
    if len(said) == 1:
        return tonight
    return Completed(name="Waiting" if tonight.name == "Waiting" else "Completed", message="; ".join(said))


@flow(name="curate", task_runner=_PARTS, persist_result=False)
@no_secrets_in_errors()
def curate(curation: Curate) -> State[Any]:
    """Curate a deployed configuration now."""
    workspace = _workspace()
    config = read_config(workspace.store, curation.configuration)
    if curation.budget is not None:
        config = config.model_copy(update={"budget": curation.budget})
    return do(workspace, _take_up(workspace, lambda: open_curation(workspace, config)), Job())


@flow(name="rerun-part", task_runner=_PARTS, persist_result=False)
@no_secrets_in_errors()
def rerun_part(target: RerunPart) -> State[Any]:
    """Compute one part again, alone or with the parts downstream of it; the rest is reused."""
    workspace = _workspace()
    curation = _take_up(workspace, lambda: load_curation(workspace.store, target.curation))
    job = rerun_job(workspace, curation, (target.stage, target.part), downstream=target.downstream)
    return do(workspace, curation, job)


@flow(name="validate", task_runner=_PARTS, persist_result=False)
@no_secrets_in_errors()
def validate(curation: Validate) -> State[Any]:
    """Measure how far people and judges agree, with the labels of a curation's sample."""
    return _further(curation.curation, "validate", partial(validate_method, wanted=curation.reading))


@flow(name="retrain", task_runner=_PARTS, persist_result=False)
@no_secrets_in_errors()
def retrain(curation: Retrain) -> State[Any]:
    """Train on a curation's treatments again with several seeds, and compare them in a paired test."""
    return _further(curation.curation, "retrain", partial(retrain_method, wanted=curation.training))


@flow(name="prune", task_runner=_PARTS, persist_result=False)
@no_secrets_in_errors()
def prune(curation: Prune) -> State[Any]:
    """Train without each source dataset, one at a time, and report which of them hurt."""
    return _further(curation.curation, "prune", partial(prune_method, wanted=curation.trial))


@flow(name="gc", persist_result=False)
def gc(collection: Collect = Collect()) -> State[Any]:  # noqa: B008 - frozen
    """Remove what no kept curation or release uses, as `retention` says; it goes to the trash first."""
    workspace = _workspace()
    facts = collect(workspace.settings, Wanted(), yes=collection.remove)
    page = collection_page(facts)
    workspace.hooks.on_message(page)
    show_summary("gc", page, "")
    return Completed(message=page.splitlines()[0])


def _further(curation: str, name: str, method: Callable[[Runner, Setup], Any]) -> State[Any]:
    """Do further work on a finished curation; its page is attached to the flow run."""
    workspace = _workspace()
    taken = _take_up(workspace, lambda: load_curation(workspace.store, curation))
    job = Job(name, method, again="Retry of this flow run")
    done = work_further(workspace, taken, in_this_flow_run, job)
    return Completed(message=f"{curation}: {name} finished; {done.computed} parts computed, {done.reused} reused")


def _workspace() -> Workspace:
    """Open the store of this process's environment; messages go to the flow run's log."""
    log = get_run_logger()
    hooks = Hooks(on_message=log.info, on_stage=lambda run: log.info("%s", run.line()))
    _show_who_works()
    return Workspace.open(read_settings(), hooks)


def _show_who_works() -> None:
    """Put this process into the flow run's tags, so that its death is noticed; mark runs of dead processes."""
    id_ = UUID(str(flow_run.id))
    with contextlib.suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        others = {tag for tag in client.read_flow_run(id_).tags if not tag.startswith("pid:")}
        client.update_flow_run(id_, tags=sorted(others | {TAG, owner_tag(flow_run.run_count)}))
        sweep_dead_runs(id_)


def do(workspace: Workspace, curation: Curation, job: Job, compute: Compute = in_this_flow_run) -> State[Any]:
    """Do a job on a curation; returns the state that says how it ended.

    Raises:
        CurationFailed: parts failed; the message lists them with the commands that compute them again.
    """
    try:
        if job.only is not None:
            _, runs = do_job(workspace, prepare(workspace, curation), job, compute)
            return Completed(message=f"{curation.id}: {runs[-1].line()}")
        result = execute(workspace, curation, compute, job)
    except WaitingForLabels as waiting:
        return Completed(name="Waiting", message=str(waiting))
    except (CurationStopped, TooManyRejected) as stopped:
        return Failed(name="Stopped", message=str(stopped))
    left_out = closing_line(result.summary)
    end = f"; {left_out}" if left_out else ""
    if result.computed == 0:
        return Completed(
            name="NoChange", message=f"{curation.id}: nothing to compute, {result.reused} parts reused{end}"
        )
    return Completed(message=f"{curation.id}: {result.computed} parts computed, {result.reused} reused{end}")


def _take_up(workspace: Workspace, open_: Callable[[], Curation]) -> Curation:
    """Return the curation this flow run works on, and name the flow run after it."""
    id_ = str(flow_run.id)
    record = workspace.store.read_json(f"flow-runs/{id_}.json")
    curation = load_curation(workspace.store, record["curation"]) if record else open_()
    if record is None:
        workspace.store.create(f"flow-runs/{id_}.json", json.dumps({"curation": curation.id}).encode())
    with contextlib.suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        tags = {*client.read_flow_run(UUID(id_)).tags, curation.config.name}
        client.update_flow_run(UUID(id_), name=curation.id, tags=sorted(tags))
    return curation
