"""Draw a subset of the queries: stratified by dataset, and the same whatever the order of the files.

Each query has a place that depends on the seed and on its text alone. A subset takes the first places. So a smaller
subset lies within a larger one of the same seed, and rows that are added elsewhere move nothing.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from tasks.data.reading.records import IngestError

_REJECTS = dict.fromkeys(("key", "reason", "detail"), pl.String)
_DIGITS = 16  # hexadecimal digits of a place: 64 bits
_SPLITS = {"train": "training", "test": "held-out", "dev": "development"}


class SubsetConfig(BaseModel):
    """How many queries are kept. Equal texts of one dataset are one query."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int | None = Field(
        None, ge=1, description="training queries, from each dataset in proportion to its size; null: all"
    )
    by_dataset: Mapping[str, PositiveInt] = Field(
        default_factory=dict,
        description="training queries of the datasets named here; the others share what is left of `rows`",
    )
    seed: int = Field(42, ge=0, description="another seed draws another subset")
    held_out: int | None = Field(
        None, ge=0, description="held-out queries (of test, and of dev), in proportion likewise; null: all"
    )
    passages: int | None = Field(
        None,
        ge=0,
        description="passages beside those that the kept queries name, if any query is mined; null: the whole corpus, "
        "or none for rows that carry their passages",
    )

    @model_validator(mode="after")
    def _fits(self) -> "SubsetConfig":
        """Refuse sizes by dataset that are more than the whole."""
        named = sum(self.by_dataset.values())
        if self.rows is not None and named > self.rows:
            raise ValueError(
                f"by_dataset adds up to {named:,}, more than rows ({self.rows:,}); raise rows or remove it"
            )
        return self


class Drawn(NamedTuple):
    """Which queries are kept (one flag for each), and rejects (`key`, `reason`, `detail`) that count the others."""

    kept: pl.Series
    rejects: pl.DataFrame


def draw_queries(config: SubsetConfig, queries: pl.DataFrame) -> Drawn:
    """Draw the queries that are kept from all queries, given with `dataset`, `text_hash` and `split`.

    The k-th query of n of a dataset stands at (k - 1/2) / n, and a subset takes the queries that stand first. This is
    Webster's method: each dataset gets its share of `rows`, rounded, and the sum is exact.

    Raises:
        IngestError: `by_dataset` names a dataset that has no training query.
    """
    placed = queries.select("dataset", "split", draw=_draw(config.seed, queries["text_hash"])).with_row_index("number")
    place = pl.struct("draw", "number").rank("ordinal").over("dataset", "split")
    placed = placed.with_columns(place=place, size=pl.len().over("dataset", "split"))
    train, *held_out = (placed.filter(pl.col("split") == split) for split in _SPLITS)
    unknown = sorted(set(config.by_dataset) - set(train["dataset"]))
    if unknown:
        there = ", ".join(sorted(set(train["dataset"]))) or "none"
        raise IngestError(
            f"ingest.subset.by_dataset names {', '.join(unknown)}; the datasets of the source are {there}"
        )
    kept = pl.concat([_first_by_name(config, train), *(_first(queries, config.held_out) for queries in held_out)])
    flags = pl.Series("kept", [False]).new_from_index(0, queries.height)
    flags = flags.scatter(kept["number"], True) if kept.height else flags
    return Drawn(flags, _count(config, placed.with_columns(flags)))


def draw_passages(config: SubsetConfig, passages: pl.DataFrame, named: pl.Series, *, corpus: bool) -> pl.Series:
    """Return a flag for each passage (`dataset`, `text_hash`): whether it is kept.

    Args:
        config: the subset.
        passages: all passages.
        named: whether a kept query names it, as positive, negative or judgement.
        corpus: the source has a corpus of its own, which is kept whole unless `passages` says otherwise.
    """
    if config.passages is None:
        return pl.Series("kept", [True]).new_from_index(0, passages.height) if corpus else named
    others = passages.select("dataset", draw=_draw(config.seed, passages["text_hash"])).with_row_index("number")
    others = others.filter(~named)
    place = pl.struct("draw", "number").rank("ordinal").over("dataset")
    drawn = _first(others.with_columns(place=place, size=pl.len().over("dataset")), config.passages)
    return named.clone().scatter(drawn["number"], True) if drawn.height else named


class Subset(NamedTuple):
    """The queries and passages that are kept, rejects (`key`, `reason`, `detail`), and counts of what was there.

    facts: `train` and `test`: the queries of each split that were there, by dataset; `passages`: their number.
    """

    queries: pl.DataFrame
    passages: pl.DataFrame
    rejects: pl.DataFrame
    facts: dict[str, Any]


def draw_subset(
    config: SubsetConfig,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    pairs: Mapping[str, pl.DataFrame],
    *,
    corpus: bool,
) -> Subset:
    """Draw the subset of a source.

    Args:
        config: the subset.
        queries: all queries: `query` (a number), `dataset`, `text_hash`, `split`.
        passages: all passages: `number`, `dataset`, `text_hash`.
        pairs: what the queries name, tables of `query` and `passage` (the passage's number); `negatives` are those
            that the queries brought with them.
        corpus: the source has a corpus of its own; otherwise its rows carry their passages.
    """
    kept, rejects = draw_queries(config, queries)
    chosen = queries.filter(kept)
    wanted = [named.join(chosen, on="query", how="semi")["passage"] for named in pairs.values()]
    named = passages["number"].is_in(pl.concat(wanted).unique().implode())
    bare = chosen.filter(pl.col("split") == "train").join(pairs["negatives"], on="query", how="anti")
    if bare.is_empty() and config.passages is not None:
        config = config.model_copy(update={"passages": 0})  # nothing is mined, so no other passage is read
    drawn = passages.filter(draw_passages(config, passages, named, corpus=corpus))
    there = queries.group_by("split", "dataset").len().sort("dataset")
    facts = {split: {name: n for of, name, n in there.iter_rows() if of == split} for split in _SPLITS}
    return Subset(chosen, drawn, rejects, {**facts, "passages": passages.height})


def kept_of(config: SubsetConfig | None, there: Mapping[str, int]) -> int:
    """Return how many training queries are kept of those that are there, by dataset.

    >>> kept_of(SubsetConfig(rows=10, by_dataset={"a": 6}), {"a": 5, "b": 20})
    10
    """
    if config is None:
        return sum(there.values())
    named = sum(min(size, there.get(name, 0)) for name, size in config.by_dataset.items())
    others = sum(size for name, size in there.items() if name not in config.by_dataset)
    return named + (others if config.rows is None else min(others, config.rows - named))


def _draw(seed: int, hashes: pl.Series) -> pl.Series:
    """Return a number below 2^64 for each text, evenly spread."""
    numbers = [int(hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()[:_DIGITS], 16) for text in hashes]
    return pl.Series("draw", numbers, dtype=pl.UInt64)


def _first_by_name(config: SubsetConfig, train: pl.DataFrame) -> pl.DataFrame:
    """Keep so many of each named dataset, and of the others what is left of `rows`."""
    is_named = pl.col("dataset").is_in(list(config.by_dataset))
    wanted = pl.col("dataset").replace_strict(config.by_dataset, default=0, return_dtype=pl.Int64)
    named = train.filter(is_named, pl.col("place") <= wanted) if config.by_dataset else train.clear()
    left = None if config.rows is None else config.rows - named.height
    return pl.concat([named, _first(train.filter(~is_named), left)])


def _first(placed: pl.DataFrame, rows: int | None) -> pl.DataFrame:
    """Keep the first `rows` rows by their place among their dataset's; None keeps all."""
    if rows is None:
        return placed
    position = (2 * pl.col("place") - 1) / (2 * pl.col("size"))
    return placed.sort(position, "draw", "dataset").head(rows)


def _count(config: SubsetConfig, placed: pl.DataFrame) -> pl.DataFrame:
    """Count what is left out by dataset and split, and the datasets that have fewer queries than were asked for."""
    counts = placed.group_by("dataset", "split").agg(pl.len(), pl.col("kept").sum()).sort("dataset", "split")
    rows = []
    for dataset, split, total, kept in counts.iter_rows():
        if kept < total:
            said = f"{total - kept} of {total} {_SPLITS[split]} queries are not drawn (ingest.subset)"
            rows.append((dataset, "not_in_subset", said))
        wanted = config.by_dataset.get(dataset, 0) if split == "train" else 0
        if kept < wanted:
            said = f"{wanted} training queries wanted (ingest.subset.by_dataset), {total} are there; all are kept"
            rows.append((dataset, "subset_too_small", said))
    return pl.DataFrame(rows, schema=_REJECTS, orient="row")
