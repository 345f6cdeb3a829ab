"""Jobs on a curation, and what of a job is finished, read from the manifests without computing anything."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from flows.config.section import ConfigError
from flows.curation.prepare import prepare
from flows.curation.records import Curation, say_unfinished
from flows.curation.workspace import Workspace
from flows.method.curate import curate_method
from flows.method.exports import wanted_tables, with_facts
from flows.method.setup import Setup, TooManyRejected, WaitingForLabels
from flows.stages import EXPORT
from infra.stages.found_parts import FoundParts
from infra.stages.runner import Runner, StageRun, WorkNeeded
from infra.storage.artifacts import read_table
from infra.storage.store import Store
from infra.storage.tables import Stream
from tasks.data.writing.config import ExportConfig

# What a job's method returned (None while it is unfinished, and for a job of one part), and what each stage did.
Done = tuple[Any, tuple[StageRun, ...]]


@dataclass(frozen=True)
class Job:
    """One piece of work on one curation.

    name: its name in flow runs.
    method: runs the stages; what it returns is the outcome.
    force: (stage with its label, part) to compute again although they are finished.
    only: the one part to compute; no other part is touched.
    until: seconds since the epoch, after which no part is begun; None for no end.
    since: judges are asked again: what they answered before is not recalled, in seconds since the epoch; 0: it is.
    again: how people repeat a job that is no curation: the command with its options, or Retry of the flow run.
    found: the finished parts that a look has found; computing does not list and read them again. None: nobody looked.
    """

    name: str = "curate"
    method: Callable[[Runner, Setup], Any] = curate_method
    force: frozenset[tuple[str, int]] = frozenset()
    only: tuple[str, int] | None = None
    until: float | None = None
    since: int = 0
    again: str = ""
    found: FoundParts | None = None


CURATE = Job()
# Computes the parts of a job that are not finished: `flows.runs.servers.in_own_flow_run` or `in_this_flow_run`.
Compute = Callable[[Workspace, Setup, Job], Done]


def look(store: Store, setup: Setup, job: Job = CURATE, *, wait: bool = False, found: FoundParts | None = None) -> Done:
    """Run a method over the manifests only; the outcome is None while any part is unfinished.

    Args:
        store: that holds the manifests.
        setup: the curation's.
        job: whose method is run.
        wait: raise instead of returning None where people have to do something.
        found: takes up what is found, for another walk.

    Raises:
        WaitingForLabels: with `wait`, if only people's labels are missing; without it the outcome is None then.
        TooManyRejected: with `wait`, if too much of the source cannot be used; without it the outcome is None then.
    """
    runner = Runner(store, found=FoundParts() if found is None else found)
    try:
        outcome = job.method(runner, setup)
    except WorkNeeded as unfinished:
        return None, (*runner.runs, unfinished.run)
    except (WaitingForLabels, TooManyRejected):
        if wait:
            raise
        return None, tuple(runner.runs)
    return outcome, tuple(runner.runs)


def look_at(workspace: Workspace, curation: Curation, found: FoundParts | None = None) -> Done:
    """Run the whole method over a curation's manifests (see `look`)."""
    return look(workspace.store, prepare(workspace, curation), found=found)


def training_set(
    workspace: Workspace, curation: Curation, treatment: str, formats: tuple[str, ...]
) -> tuple[ExportConfig, dict[str, pl.DataFrame | Stream]]:
    """Return the settings of an export of a finished curation in some formats, and the tables that it needs.

    Those that the stage reads part by part are not read yet.

    Raises:
        ConfigError: it is unfinished, or did not make this treatment.
    """
    setup = prepare(workspace, curation)
    outcome = look(workspace.store, setup)[0]
    if outcome is None:
        raise ConfigError(say_unfinished(workspace.store, curation.id))
    if treatment not in outcome.instances:
        raise ConfigError(f"{curation.id} made {', '.join(outcome.instances)}, not {treatment!r}")
    config = with_facts(setup, curation.config.export, formats)
    tables = {"instances": outcome.instances[treatment], "queries": outcome.queries, "passages": outcome.passages}
    tables |= wanted_tables(config, outcome.evidence)
    if treatment in outcome.do_not_batch:
        tables["do_not_batch"] = outcome.do_not_batch[treatment]
    streams = {name: Stream(workspace.store, tables[name]) for name in EXPORT.streams if name in tables}
    whole = {name: read_table(workspace.store, table) for name, table in tables.items() if name not in streams}
    return config, {**streams, **whole}
