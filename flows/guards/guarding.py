"""Runs the guards: on rows before anything is encoded, on the pool before anything is judged, and before exports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from flows import stages as st
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks.fetching.fetch import FetchConfig
from tasks.guards.config import (
    ContaminationConfig,
    EvaluationConfig,
    GuardsConfig,
    NearConfig,
    RepeatsConfig,
    RowsConfig,
    SketchConfig,
)
from tasks.guards.figures import Guarded, sum_up_guards
from tasks.guards.rows import count_nothing
from tasks.guards.tables import DO_NOT_BATCH, GUARD_FIGURES, LINKS, NEAR
from tasks.schemas import Schema

DUPLICATES = "duplicates"  # the label of the fetch of their texts
OF_ROWS = ("queries", "positives", "given", "irrelevant")
POOL = ("candidates", "negatives", "reserve")


@dataclass(frozen=True)
class Screened:
    """Tables of the method after a guard: those that it replaces, the rows that it left out, and its figures.

    refused: why the run must end; empty where it may go on.
    """

    tables: Mapping[str, Any]
    rejects: Table
    figures: tuple[Table, ...]
    refused: str = ""


@dataclass(frozen=True)
class Duplicates:
    """The near duplicates of the corpus: pairs, the group of each text by shard, how many shards; and figures."""

    near: Table
    groups: Table
    shards: int
    figures: tuple[Table, ...]


@dataclass(frozen=True)
class Apart:
    """The pairs of rows of one treatment that must not share a batch, and figures."""

    do_not_batch: Table
    figures: tuple[Table, ...]


def screen_rows(
    run: Runner, config: GuardsConfig, evaluation: Directory, texts: Table, rows: Mapping[str, Any]
) -> Screened:
    """Compare the training rows with the evaluation sets.

    Args:
        run: the runner of the curation.
        config: what is looked for, and whether such rows are dropped.
        evaluation: the files of the sets, each set below its number.
        texts: the passages of the positives, by query part.
        rows: queries, positives, given, irrelevant.
    """
    names = EvaluationConfig(sets=name_sets(config.evaluation))
    read = run(st.READ_EVALUATION, names, source=evaluation)
    how = ContaminationConfig(similarity=config.similarity, drop=config.contamination == "drop")
    made = run(st.FIND_CONTAMINATION, how, **rows, texts=texts, evaluation=read["evaluation"])
    figures = (read["figures"], made["figures"])
    kept = {name: made[name] for name in OF_ROWS}
    refused = ""
    if config.contamination == "refuse":
        refused = _refusal(run, figures)
        kept = {name: _after(made["figures"], table) for name, table in kept.items()}
    _note(run, figures)
    return Screened(kept, made["rejects"], figures, refused)


def name_sets(addresses: Sequence[str]) -> tuple[str, ...]:
    """Name evaluation sets by the last part of their addresses; equal ones get their number.

    >>> name_sets(["s3://sets/nfcorpus/", "beir/scifact", "other/scifact", "mine.jsonl"])
    ('nfcorpus', 'scifact', 'scifact-2', 'mine.jsonl')
    """
    names: list[str] = []
    for number, address in enumerate(addresses):
        name = PurePosixPath(address.rpartition("://")[2]).name or "evaluation"
        names.append(f"{name}-{number}" if name in names else name)
    return tuple(names)


def _refusal(run: Runner, figures: Sequence[Table]) -> str:
    """Say why the run ends if the training data repeats evaluation sets; else empty, or where it is not known yet."""
    found = _read(run, figures)
    if found is None or not found.counts["contamination"].get("found"):
        return ""
    examples = "\n".join(f"  {example}" for example in found.examples.get("contamination", []))
    return (
        f"{' '.join(found.sentences)}\n{examples}\nguards.contamination is refuse, so the run stops before it computes "
        "anything else. Take these rows out of the source, or set `guards: {contamination: drop}`"
    )


def screen_pool(run: Runner, config: GuardsConfig, pool: Mapping[str, Any], positives: Table, texts: Table) -> Screened:
    """Compare the candidates with the positives of their queries.

    pool: candidates, negatives, reserve. texts: the passages of candidates and positives, by query part.
    """
    how = RepeatsConfig(similarity=config.similarity, drop=config.positives == "drop")
    made = run(st.GUARD_POSITIVES, how, **pool, positives=positives, texts=texts)
    kept = {name: made[name] for name in POOL} if how.drop else dict(pool)
    _note(run, (made["figures"],))
    return Screened(kept, made["rejects"], (made["figures"],))


def find_duplicates(
    run: Runner, config: GuardsConfig, passages: Table, generations: Sequence[int]
) -> Duplicates | None:
    """Find the near duplicates of the corpus; None if the settings do not ask for them.

    generations: the number of parts of each generation of the passages. The buckets are spread over as many shards as
    the first has, so growth does not move them.
    """
    if not config.corpus:
        return None
    shards = max(1, generations[0])
    how = SketchConfig(shards=shards, generations=tuple(generations))
    bands = run(st.SKETCH_PASSAGES, SketchConfig(shards=shards), passages=passages)["bands"]
    paired = run(st.PAIR_TEXTS, how, bands=bands)
    wanted = paired["wanted"]
    asked = tuple(piece for piece in passages.pieces if wanted.partial or piece.index in wanted.indexes)
    texts = run(
        st.FETCH_TEXTS, FetchConfig(), label=DUPLICATES, wanted=wanted, passages=replace(passages, pieces=asked)
    )["texts"]
    near = NearConfig(similarity=config.similarity)
    compared = run(st.COMPARE_TEXTS, near, pairs=paired["pairs"], texts=texts)
    links = _with_a_piece(run, compared["links"], LINKS.empty(), LINKS)
    for gate in (bands, wanted, texts):
        links = _after(gate, links)
    grouped = run(st.GROUP_DUPLICATES, near.model_copy(update={"shards": shards}), links=links)
    found = _with_a_piece(run, compared["near"], NEAR.empty(), NEAR)
    _note(run, (grouped["figures"],))
    return Duplicates(found, grouped["groups"], shards, (grouped["figures"],))


def keep_apart(  # noqa: PLR0913, PLR0917 - what rows are made of
    run: Runner,
    config: GuardsConfig,
    treatment: str,
    instances: Table,
    labels: Mapping[str, Any],
    duplicates: Duplicates | None,
    shards: int,
) -> Apart:
    """Find the rows of a treatment that must not share a batch.

    labels: positives and candidates, which say the texts of the instances. shards: over how many the texts are spread
    where there are no near duplicates.
    """
    near = duplicates if config.rows == "near" else None
    how = RowsConfig(treatment=treatment, shards=shards if near is None else near.shards, most_rows=config.most_rows)
    uses: Any = run(st.NAME_TEXTS, how, label=treatment, instances=instances, **labels)["uses"]
    if near is not None:
        uses = run(st.GROUP_USES, how, label=treatment, uses=uses, groups=near.groups)["uses"]
    made = run(st.PAIR_ROWS, how, label=treatment, uses=uses)
    pairs = _with_a_piece(run, made["do_not_batch"], DO_NOT_BATCH.empty(), DO_NOT_BATCH)
    figures = _with_a_piece(run, made["figures"], count_nothing(treatment), GUARD_FIGURES)
    _note(run, (figures,))
    return Apart(pairs, (figures,))


def _read(run: Runner, figures: Sequence[Table]) -> Guarded | None:
    """Sum figures up; None while a part is missing."""
    if any(table.incomplete for table in figures):
        return None
    return sum_up_guards(pl.concat([run.read(table) for table in figures]))


def _note(run: Runner, figures: Sequence[Table]) -> None:
    """Tell people what the guards found; nothing where nothing is computed."""
    found = None if run.executor is None else _read(run, figures)
    for sentence in found.sentences if found is not None else ():
        run.on_note(f"guards: {sentence}")


def _after(gate: Table, table: Table) -> Table:
    """Return a table that is missing while the gate is: every stage that reads it is then blocked."""
    return replace(table, missing=table.indexes | {0}) if gate.incomplete else table


def _with_a_piece(run: Runner, table: Table, otherwise: pl.DataFrame, schema: Schema) -> Table:
    """Return a table, or another one of its schema where no part made a piece of it."""
    return table if table.pieces or table.incomplete else run.keep_table(table.name, otherwise, schema)
