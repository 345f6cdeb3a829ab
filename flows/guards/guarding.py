"""Runs the guards: contamination before anything is encoded, repeats before anything is judged, rows before the export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from flows import stages as st
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks.guards.config import (
    ContaminationConfig,
    EvaluationConfig,
    GuardsConfig,
    NearConfig,
    RepeatsConfig,
    RowsConfig,
    SketchConfig,
)
from tasks.guards.figures import sum_up_guards
from tasks.schemas import Treatment

_OF_ROWS = ("queries", "positives", "given", "irrelevant")
_POOL = ("candidates", "negatives", "reserve")


@dataclass(frozen=True)
class Screened:
    """Tables of the method after a guard: those that it replaces, the rows that it left out, and its figures."""

    tables: Mapping[str, Table]
    rejects: Table
    figures: tuple[Table, ...]


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
    run: Runner, config: GuardsConfig, evaluation: Directory, texts: Table, rows: Mapping[str, Table]
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
    kept = {name: made[name] for name in _OF_ROWS}
    return Screened(kept, made["rejects"], (read["figures"], made["figures"]))


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


def refusal(run: Runner, config: GuardsConfig, screened: Screened) -> str:
    """Say why the run ends if the training data repeats evaluation sets and the settings refuse that; else empty."""
    if config.contamination != "refuse" or any(table.incomplete for table in screened.figures):
        return ""
    found = sum_up_guards(pl.concat([run.read(table) for table in screened.figures]))
    if found is None or not found.counts["contamination"].get("found"):
        return ""
    examples = "\n".join(f"  {example}" for example in found.examples.get("contamination", []))
    return (
        f"{' '.join(found.sentences)}\n{examples}\nguards.contamination is refuse, so the run stops before it computes "
        "anything else. Take these rows out of the source, or set `guards: {contamination: drop}`"
    )


def screen_pool(
    run: Runner, config: GuardsConfig, pool: Mapping[str, Table], positives: Table, texts: Table
) -> Screened:
    """Compare the candidates with the positives of their queries.

    pool: candidates, negatives, reserve. texts: the passages of candidates and positives, by query part.
    """
    how = RepeatsConfig(similarity=config.similarity, drop=config.positives == "drop")
    made = run(st.GUARD_POSITIVES, how, **pool, positives=positives, texts=texts)
    kept = {name: made[name] for name in _POOL} if how.drop else dict(pool)
    return Screened(kept, made["rejects"], (made["figures"],))


def find_duplicates(run: Runner, config: GuardsConfig, passages: Table, generations: Sequence[int]) -> Duplicates:
    """Find the near duplicates of the corpus.

    generations: the number of parts of each generation of the passages. The buckets are spread over as many shards as
    the first has, so growth does not move them.
    """
    shards = max(1, generations[0])
    how = SketchConfig(shards=shards, generations=tuple(generations))
    bands = run(st.SKETCH_PASSAGES, SketchConfig(shards=shards), passages=passages)["bands"]
    paired = run(st.PAIR_TEXTS, how, bands=bands)
    lent = run(st.LEND_TEXTS, SketchConfig(), wanted=paired["wanted"], passages=passages)["texts"]
    near = NearConfig(similarity=config.similarity, shards=shards)
    compared = run(st.COMPARE_TEXTS, NearConfig(similarity=config.similarity), pairs=paired["pairs"], texts=lent)
    grouped = run(st.GROUP_DUPLICATES, near, links=compared["links"])
    return Duplicates(compared["near"], grouped["groups"], shards, (grouped["figures"],))


def keep_apart(  # noqa: PLR0913, PLR0917 - what rows are made of
    run: Runner,
    config: GuardsConfig,
    treatment: Treatment,
    instances: Table,
    labels: Mapping[str, Table],
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
    return Apart(made["do_not_batch"], (made["figures"],))
