"""What of its source a curation does not use: what ingest could not read, and what the guards find before judging.

A curation that lost too much, or whose rows repeat evaluation sets, is stopped before it costs anything.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from flows import stages as st
from flows.guards import guarding
from flows.method.fetching import fetch_texts
from flows.method.setup import Contaminated, Setup, TooManyRejected
from flows.method.tables import Ingested, Pool, union
from infra.stages.runner import Runner, StageRun
from infra.storage.artifacts import Manifest, Table, read_table
from infra.storage.store import Store
from tasks import schemas
from tasks.formatting import percent
from tasks.rejects import LeftOut, count_left_out, explain_losses


def refuse_losses(run: Runner, setup: Setup) -> None:
    """Check how much of the source ingest left out; without its result there is nothing to check.

    Raises:
        TooManyRejected: more than `ingest.max_rejected` allows.
    """
    refused = too_much_lost(run.store, run.runs, setup.config.ingest.max_rejected)
    if refused:
        raise TooManyRejected(refused)


def guard_rows(run: Runner, setup: Setup, data: Ingested) -> tuple[Ingested, tuple[Table, ...]]:
    """Compare the training rows with the evaluation sets; returns the rows that may be used, and figures.

    Raises:
        Contaminated: a row repeats one of their texts, and `guards.contamination` refuses that.
    """
    if setup.evaluation is None:
        return data, ()
    texts = fetch_texts(run, data, data.positives, data.positives, "screen")
    rows = {name: getattr(data, name) for name in guarding.OF_ROWS}
    found = guarding.screen_rows(run, setup.config.guards, setup.evaluation, texts, rows)
    if found.refused:
        raise Contaminated(found.refused)
    return replace(data, **found.tables, rejects=union("rejects", data.rejects, found.rejects)), found.figures


def guard_pool(run: Runner, setup: Setup, data: Ingested, pool: Pool) -> tuple[Pool, tuple[Table, ...]]:
    """Compare the candidates with the positives of their queries; returns the pool to judge, and figures."""
    if setup.config.guards.positives == "none":
        return pool, ()
    texts = fetch_texts(run, data, pool.candidates, data.positives, "guard")
    tables = {name: getattr(pool, name) for name in guarding.POOL}
    found = guarding.screen_pool(run, setup.config.guards, tables, data.positives, texts)
    return replace(pool, **found.tables, rejects=union("rejects", pool.rejects, found.rejects)), found.figures


def too_much_lost(store: Store, runs: Sequence[StageRun], most: float) -> str:
    """Say why a curation stops after ingest, with reasons, examples and the remedy; empty if it may go on.

    Args:
        store: holds the results of `runs`.
        runs: stages of the curation so far.
        most: the share of the rows that may be lost; 0: nothing may be lost.
    """
    left = left_out_of(store, runs)
    if left is None or (left.share <= most and (most > 0 or not left.by_reason)):
        return ""
    return f"{_headline(left, most)}\n{explain_losses(_rejects(store, runs))}\n{_remedy(left)}"


def left_out_of(store: Store, runs: Sequence[StageRun]) -> LeftOut | None:
    """Count what ingest left out; None while it is not finished."""
    if not _manifests(runs):
        return None
    return count_left_out(_rejects(store, runs), **counted_rows(runs))


def counted_rows(runs: Sequence[StageRun]) -> dict[str, int]:
    """Return how many rows ingest read and kept, from its manifest; empty if it is not finished, or did not count."""
    done = _manifests(runs)
    facts = done[0].stats.get("facts", {}) if done else {}
    return {name: int(facts[name]) for name in ("rows_read", "rows_kept") if name in facts}


def _manifests(runs: Sequence[StageRun]) -> list[Manifest]:
    return [manifest for stage in runs if stage.name == st.INGEST.name for manifest in stage.manifests]


def _rejects(store: Store, runs: Sequence[StageRun]) -> pl.DataFrame:
    pieces = tuple(piece for manifest in _manifests(runs) for piece in manifest.tables["rejects"])
    return read_table(store, Table("rejects", pieces), schemas.REJECTS)


def _headline(left: LeftOut, most: float) -> str:
    whole = f"{percent(left.lost / left.rows_read)} is" if left.lost and left.rows_read else "This is"
    allowed = (
        f"more than ingest.max_rejected allows ({percent(most)})" if most else "too much where nothing may be lost"
    )
    return f"{left.line(losses_only=True)}. {whole} {allowed}, so the run stops before it computes anything else."


def _remedy(left: LeftOut) -> str:
    needed = max(0.01, math.ceil(left.share * 100) / 100)
    return (
        f"Mend the source, or go on without this: set `ingest: {{max_rejected: {needed:g}}}` in the configuration "
        "(without --strict), and run the same command again."
    )
