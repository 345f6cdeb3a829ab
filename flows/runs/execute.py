"""Executes a curation: records its inputs, reuses or computes its parts, lays out and records its results."""

import time
from dataclasses import replace

from flows.config.prices import load_prices
from flows.config.section import ConfigError
from flows.curation.kinship import related_judges
from flows.curation.lookup import CURATE, Compute, Done, Job, look, look_at
from flows.curation.origins import computed_by
from flows.curation.prepare import fetch_models, intake_of, keep_partition, prepare
from flows.curation.records import Curation, failures_of
from flows.curation.stored_config import refuse_other_places
from flows.curation.workspace import Workspace
from flows.method.afterwards.gate import Gated
from flows.method.setup import Outcome, Setup, WaitingForLabels
from flows.promotion.gating import compares_models, gate_job
from flows.promotion.page import promotion_section
from flows.results.computed_by import add_to_folder
from flows.results.history import read_history, record_night
from flows.results.nights_page import add_section, add_to_report
from flows.results.output_folder import SAMPLE, Further, Result, lay_out, place
from flows.results.promotion import is_open, mend, promote
from flows.runs.ask_again import close_order, engines_since, open_order
from infra.ledger.ledger import Ledger
from infra.ledger.vectors import compact_vectors
from infra.stages.found_parts import FoundParts
from infra.storage.numbered_records import keep_next
from infra.storage.store import StoreError

_SEGMENTS = 64  # of the ledger, before they are merged


def execute(workspace: Workspace, curation: Curation, compute: Compute, job: Job = CURATE) -> Result:
    """Run a curation to its end. Finished parts are reused; if all are, no server and no engine is started.

    Raises:
        ConfigError: the configuration is from the store and may not use what it names of this machine.
        CurationFailed: parts failed (from flows.method.setup).
        WaitingForLabels: the sheet is laid out; the same curation continues once enough of it is labelled.
    """
    started = time.monotonic()
    if not curation.own_file:
        refuse_other_places(curation.config, workspace.settings)
    if not job.force:
        intake_of(workspace, curation, anew=True).keep(workspace.store, curation.id)
        keep_partition(workspace, curation)
    setup = prepare(workspace, curation)
    for warning in related_judges(curation.config):
        workspace.hooks.on_message(warning)
    try:
        outcome, runs = do_job(workspace, setup, job, compute)
    except WaitingForLabels as waiting:
        _record_waiting(workspace, curation.id, waiting)
        raise
    folder = lay_out(workspace, curation.id, outcome)
    summary = add_to_folder(folder, computed_by(workspace.store, runs))
    seconds = time.monotonic() - started
    result = Result(folder=folder, runs=runs, curation=curation.id, summary=summary, seconds=seconds)
    _record_result(workspace, result)
    alarms = record_night(workspace, setup, result)
    add_to_report(folder / "report.html", read_history(workspace.store, setup.config.name))
    wanted = setup.config.promote
    promotion = None
    if wanted is None:
        mend(workspace, setup.config.name)
    else:
        gate = _measure_gate(workspace, curation, outcome, job, compute)
        split = setup.config.evaluate.split
        promotion = promote(workspace, curation.id, outcome, wanted, alarms, split=split, gate=gate)
        add_section(folder / "report.html", promotion_section(promotion.as_json()))
    return replace(result, summary={**summary, "alarms": alarms}, promotion=promotion)


def execute_again(workspace: Workspace, curation: Curation, compute: Compute) -> Result:
    """Run a curation to its end, and ask its judges anew; what they answered before is not recalled.

    If it is interrupted, it is to be called again, and asks nothing twice.

    Raises:
        ConfigError, CurationFailed, WaitingForLabels: as `execute`.
    """
    since = open_order(workspace, curation.id)
    try:
        result = execute(workspace, curation, compute, replace(CURATE, since=since))
    except WaitingForLabels:  # the judges have answered
        close_order(workspace.store, curation.id, since)
        raise
    close_order(workspace.store, curation.id, since)
    return result


def work_further(workspace: Workspace, curation: Curation, compute: Compute, job: Job) -> Further:
    """Do further work on a finished curation, and lay out its page in the curation's folder."""
    outcome, runs = do_job(workspace, prepare(workspace, curation), job, compute)
    folder = place(workspace, curation.id, (outcome.page, job.name))
    return Further(folder / job.name, runs)


def do_job(workspace: Workspace, setup: Setup, job: Job, compute: Compute) -> Done:
    """Do a job: from the manifests alone if everything is finished, else by computing the rest.

    Returns:
        What the job's method returned (None for a job of one part), and what each stage did.
    """
    if not job.force and job.only is None:
        job = replace(job, found=FoundParts())
        outcome, runs = look(workspace.store, setup, job, wait=not job.since, found=job.found)
        if outcome is not None and not job.since:
            return outcome, runs
    load_prices(setup.config).of_stages(setup.config)  # a budget that cannot be kept is refused before any start
    ready = engines_since(fetch_models(workspace, setup), job.since)
    done = compute(workspace, ready, job)
    _compact_ledgers(workspace, ready)
    return done


def rerun_job(workspace: Workspace, curation: Curation, target: tuple[str, int], *, downstream: bool) -> Job:
    """Return the job that computes one part again, alone or with the parts downstream of it.

    Raises:
        ConfigError: there is no such stage or part.
    """
    found = FoundParts()
    outcome, runs = look_at(workspace, curation, found)
    known = {run.name: run.parts for run in runs}
    if target[0] in known and target[1] >= known[target[0]]:
        raise ConfigError(f"{target[0]} has {known[target[0]]} parts, numbered from 0; part {target[1]} is not there")
    if target[0] not in known and outcome is not None:
        raise ConfigError(
            f"{curation.id} is finished and has no stage {target[0]!r}; known: {', '.join(known)}. A part of retrain, "
            "prune or validate is computed again by that command, or by Retry of its flow run, which reuse the others"
        )
    if target[0] not in known and target not in failures_of(workspace.store, curation.id):
        raise ConfigError(f"no stage {target[0]!r} so far in {curation.id}; known: {', '.join(known)}")
    return Job("rerun-part", force=frozenset({target}), only=None if downstream else target, found=found)


def _measure_gate(
    workspace: Workspace, curation: Curation, outcome: Outcome, job: Job, compute: Compute
) -> Gated | None:
    """Train and score what the gate compares; None where no models are compared, or no check decides.

    Raises:
        CurationFailed: trainings failed; nothing is promoted, and the curation's own results are recorded.
    """
    store, config = workspace.store, curation.config.promote
    if config is None or not compares_models(config, outcome) or not is_open(store, curation.id, outcome, config):
        return None
    setup = prepare(workspace, curation)  # anew: the base model may have come into the store since
    gate: Gated = do_job(workspace, setup, gate_job(store, curation.config.name, config, job), compute)[0]
    return gate


def _compact_ledgers(workspace: Workspace, setup: Setup) -> None:
    """Merge small segments of answers and vectors, so that the next run reads fewer."""
    for tier in setup.asked:
        try:
            Ledger(workspace.store).compact(tier.judge.ledger_name, min_segments=_SEGMENTS)
        except StoreError as error:
            workspace.hooks.on_message(f"the ledger was not compacted, the next run will try again: {error}")
    try:
        compact_vectors(workspace.store)
    except StoreError as error:
        workspace.hooks.on_message(f"the vectors were not compacted, the next run will try again: {error}")


def _record_waiting(workspace: Workspace, curation: str, waiting: WaitingForLabels) -> None:
    """Lay out the sheet that people must fill in, and record that the curation waits."""
    if waiting.sheet is not None:
        place(workspace, curation, (waiting.sheet, SAMPLE))
    record = {"message": str(waiting), "at": workspace.clock().isoformat()}
    keep_next(workspace.store, f"curations/{curation}/waiting", record)


def _record_result(workspace: Workspace, result: Result) -> None:
    stages = [
        {"stage": r.name, "parts": r.parts, "reused": r.reused, "computed": r.computed, "seconds": r.seconds}
        for r in result.runs
    ]
    record = {**result.as_json(), "stages": stages, "manifests": [m.path for r in result.runs for m in r.manifests]}
    keep_next(workspace.store, f"curations/{result.curation}/result", record)
