"""Make the treatments and exports of a finished curation again, with other settings, from its stored verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from flows.config.section import ConfigError
from flows.method.curate import judge_data, treat
from flows.method.exports import export, find_evidence, keep_apart
from flows.method.setup import TO_THE_END, Setup, TooManyRejected, WaitingForLabels
from flows.method.tables import Judged, Treated
from infra.stages.runner import Runner, WorkNeeded
from infra.storage.artifacts import Directory
from tasks.data.treatments import DROP_REASONS, KEPT_WITHOUT_NEGATIVES


@dataclass(frozen=True)
class Counts:
    """What one treatment made of the training queries.

    instances: kept queries. dropped: queries left out. relabelled, removed: edited pairs. without_negatives: kept
    queries without a negative.
    """

    instances: int
    dropped: int
    relabelled: int
    removed: int
    without_negatives: int


@dataclass(frozen=True)
class MadeAgain:
    """One treatment made again: its export, its counts, and those of the curation, None if it did not make it."""

    export: Directory
    now: Counts
    before: Counts | None


def treat_again(look: Runner, run: Runner, setup: Setup, changed: Setup) -> Mapping[str, MadeAgain]:
    """Make the treatments and exports of `changed`, whose settings differ from the curation's there only.

    Args:
        look: finds the curation's finished parts, and computes nothing.
        run: computes treatments and exports.
        setup: the curation as it was.
        changed: the curation with other treatments, or other settings of them or of the export.

    Raises:
        ConfigError: the curation is unfinished, or the parts failed; the message says why.
    """
    try:
        judged = judge_data(look, setup)
        before = {name: _treat(look, setup, judged, name) for name in setup.config.treatments}
    except (WorkNeeded, WaitingForLabels, TooManyRejected) as unfinished:
        raise ConfigError(f"{setup.curation} is unfinished ({unfinished}); {TO_THE_END}") from None
    evidence = find_evidence(judged.data, judged.pool, judged.verdicts, judged.decisions)
    found: dict[str, MadeAgain] = {}
    for name in changed.config.treatments:
        made = _treat(run, changed, judged, name)
        written = export(run, changed, judged, evidence, {name: made})[name]
        _refuse_failures(run)
        was = _count(look, before[name]) if name in before else None
        found[name] = MadeAgain(written, _count(run, made), was)
    return found


def _treat(run: Runner, setup: Setup, judged: Judged, name: str) -> Treated:
    made = treat(run, setup, judged.data, judged.pool, judged.decisions, name)
    return keep_apart(run, setup, judged, made, name)


def _refuse_failures(run: Runner) -> None:
    failed = [f"{done.name} part {part}: {why}" for done in run.runs for part, why in sorted(done.failed.items())]
    if failed:
        raise ConfigError("\n".join(failed))


def _count(run: Runner, made: Treated) -> Counts:
    edits: dict[str, Any] = dict(run.read(made.edits).group_by("to").len().iter_rows())
    rejects = run.read(made.rejects)
    return Counts(
        instances=made.instances.rows,
        dropped=rejects.filter(pl.col("reason").is_in(DROP_REASONS)).height,
        relabelled=edits.get("positive", 0),
        removed=edits.get("removed", 0),
        without_negatives=rejects.filter(pl.col("reason") == KEPT_WITHOUT_NEGATIVES).height,
    )
