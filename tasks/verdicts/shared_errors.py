"""Where two judges are wrong together: more often than two judges with their error rates would be by chance.

A cascade and a fusion gain from a second judge only where it errs on other pairs than the first. Two judges with one
ancestor, or that stumble over the same kind of pair, agree and are both wrong; no agreement between them shows it.

By chance, two judges are both wrong on a relevant pair with the product of their error rates on relevant pairs, and
likewise on pairs that are not relevant (the independence of Dawid and Skene 1979, given the true class).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl

from tasks.clustered import blocks, draw_weights, effective, interval_of
from tasks.schemas import SHARED_ERRORS
from tasks.statistics import CONFIDENCE, Floats
from tasks.summaries import ERRORS
from tasks.verdicts.pairs import PAIR

ALL = "all"
FEWEST = 20  # pairs; of fewer nothing is said
KINDS = ("data set", "language model", "retriever", "rank", "length")  # the columns of `kinds_of_pairs`
_QUERY = PAIR[:2]
_RANKS = (5, 20)
_LENGTHS = (500, 2000)  # characters of a passage


class Errors(NamedTuple):
    """What `SHARED_ERRORS` says of two judges; its columns of these names."""

    pairs: int
    queries: int
    first_wrong: float
    second_wrong: float
    both_wrong: float
    by_chance: float
    excess_low: float | None
    excess_high: float | None


def shared_errors(
    verdicts: Mapping[str, pl.DataFrame], truth: pl.DataFrame, kinds: pl.DataFrame | None = None, seed: int = 0
) -> pl.DataFrame:
    """Compare how often two judges are both wrong with what chance would give, over all pairs and by kind.

    A judge is wrong where it calls a relevant pair anything but `relevant`, or another pair `relevant`. Pairs that it
    did not judge, or whose answer could not be read, are left out.

    Args:
        verdicts: by judge: dataset, query_id, doc_id, state.
        truth: dataset, query_id, doc_id, `relevant` (boolean), for the pairs whose relevance is known.
        kinds: dataset, query_id, doc_id, and a string column for each way to tell kinds of pairs apart.
        seed: seed of the intervals.

    Returns:
        A table of `SHARED_ERRORS`, for each two judges and each kind with at least 20 pairs, in the order of the
        judges, all pairs first. `excess` is the share of pairs on which both are wrong, minus the share by chance, with
        an interval clustered by query.
    """
    described = truth.select(*PAIR, "relevant")
    if kinds is not None:
        described = described.join(kinds, on=PAIR, how="left")
    columns = [name for name in described.columns if name not in (*PAIR, "relevant")]
    rows = []
    for first, second in combinations(verdicts, 2):
        both = described
        for name, judge in (("first", first), ("second", second)):
            read = verdicts[judge].filter(pl.col("state") != "unparsed")
            both = both.join(read.select(*PAIR, **{name: pl.col("state") == "relevant"}), on=PAIR)
        both = both.sort(PAIR)
        for kind, value, pairs in _by_kind(both, columns):
            if pairs.height >= FEWEST:
                rows.append((first, second, kind, value, *compare_errors(wrong_by_query(pairs), seed)))
    return pl.DataFrame(rows, schema=SHARED_ERRORS.columns, orient="row")


def deciding(verdicts: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Keep the judges that decide anything: uncalibrated similarity leaves all pairs open, and has no errors."""
    decided = pl.col("state").is_in(("relevant", "not_relevant"))
    return {judge: frame for judge, frame in verdicts.items() if frame.filter(decided).height}


def kinds_of_pairs(
    candidates: pl.DataFrame, decisions: pl.DataFrame, lengths: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Tell apart kinds of pairs: dataset, decision, retriever, rank and length of the passage.

    Args:
        candidates: a table of CANDIDATES.
        decisions: VERDICTS of the decisions; a pair that people labelled has the state that they gave.
        lengths: LENGTHS of their passages; without it they are null.
    """
    asked = pl.when(pl.col("call_id").is_not_null()).then(pl.lit("asked")).otherwise(pl.lit("not asked"))
    pairs = candidates.select(*PAIR, "retriever", "rank")
    pairs = pairs.join(decisions.select(*PAIR, asked=asked), on=PAIR, how="left")
    if lengths is None:
        pairs = pairs.with_columns(chars=pl.lit(None, dtype=pl.UInt32))
    else:
        pairs = pairs.join(lengths, on=PAIR, how="left")
    return pairs.select(
        *PAIR,
        pl.col("dataset").alias("data set"),
        pl.col("asked").alias("language model"),
        pl.col("retriever"),
        _band("rank", _RANKS).alias("rank"),
        _band("chars", _LENGTHS).alias("length"),
    )


def _band(column: str, edges: tuple[int, int]) -> pl.Expr:
    low, high = edges
    value = pl.col(column)
    return (
        pl.when(value <= low)
        .then(pl.lit(f"up to {low:,}"))
        .when(value <= high)
        .then(pl.lit(f"{low + 1:,} to {high:,}"))
        .when(value > high)
        .then(pl.lit(f"over {high:,}"))
    )


def _by_kind(both: pl.DataFrame, columns: list[str]) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Yield all pairs, then the pairs of each kind; a column that tells nothing apart is left out."""
    yield ALL, ALL, both
    for column in columns:
        values = sorted(both[column].drop_nulls().unique())
        if len(values) > 1:
            for value in values:
                yield column, value, both.filter(pl.col(column) == value)


def wrong_by_query(pairs: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Count, for each query, on how many pairs two judges are wrong.

    Args:
        pairs: dataset, query_id, and the booleans `relevant` and what `first` and `second` call relevant.
        by: further columns that tell groups apart.

    Returns:
        `by`, dataset, query_id, and the counts `ERRORS`, sorted.
    """
    first, second = (pl.col(name) != pl.col("relevant") for name in ("first", "second"))
    wrongs = (pl.lit(True), first, second, first & second)
    sides = (pl.col("relevant"), ~pl.col("relevant"))
    counts = (side & wrong for side in sides for wrong in wrongs)
    named = {name: count.sum().cast(pl.Int32) for name, count in zip(ERRORS, counts, strict=True)}
    return pairs.group_by(*by, *_QUERY).agg(**named).sort(*by, *_QUERY)


def compare_errors(counts: pl.DataFrame, seed: int = 0) -> Errors:
    """Compare how often two judges are both wrong with what chance would give.

    Args:
        counts: `ERRORS` of each query; or of several queries with the same counts, whose number is `queries`.
        seed: seed of the interval.
    """
    times = counts["queries"].to_numpy() if "queries" in counts.columns else np.ones(counts.height, dtype=np.int64)
    block = blocks(np.arange(times.sum()), seed)
    of_queries = (np.repeat(counts[name].to_numpy(), times) for name in ERRORS)
    cells = np.stack([np.bincount(block, column) for column in of_queries], axis=1)
    first, second, both, expected = (float(share[0]) for share in _shares(cells.sum(axis=0)[None, :]))
    drawn = _shares(draw_weights(block, seed) @ cells)
    of_query = (cells[:, 0] + cells[:, 4])[:, None].astype(np.float64)
    excess = interval_of(both - expected, drawn[2] - drawn[3], effective(of_query), CONFIDENCE, lowest=-1.0)
    return Errors(int(of_query.sum()), len(block), first, second, both, expected, excess.low, excess.high)


def _shares(counts: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the shares of pairs on which the first, the second and both are wrong, and on which both are by chance.

    Args:
        counts: for relevant pairs, then for others: pairs, first wrong, second wrong, both wrong. Shape (draws, 8).
    """
    total = counts[:, 0] + counts[:, 4]
    chance = np.zeros(len(counts))
    for begin in (0, 4):
        of_class, first, second = (counts[:, begin + place] for place in range(3))
        chance += np.divide(first * second, of_class, out=np.zeros_like(of_class), where=of_class > 0)
    first, second, both = ((counts[:, place] + counts[:, 4 + place]) / total for place in (1, 2, 3))
    return first, second, both, chance / total
