"""Find rows that must not share a batch: a positive or negative of one is a positive of the other.

A trainer takes the positives of a batch's other rows as negatives of a row. Where such a positive is (nearly) the row's
own, the row is trained against its own answer. And where it is a negative of the row, the batch holds it twice.
"""

from typing import Any

import polars as pl

from tasks.guards.config import RowsConfig
from tasks.guards.duplicates import scatter
from tasks.guards.tables import DO_NOT_BATCH, USES, count_figures, number_texts

ROWS = "rows"
SAME_POSITIVE, NEGATIVE_IS_POSITIVE = "same_positive", "negative_is_positive"
_POSITIVE, _NEGATIVE = "positive", "negative"
_ROW = ["dataset", "query_id"]
_SHOWN = 3


def name_texts(
    config: RowsConfig, *, instances: pl.DataFrame, positives: pl.DataFrame, candidates: pl.DataFrame
) -> dict[str, Any]:
    """List the texts of the training rows of a part, as positives and as negatives.

    Returns:
        uses: for each shard (that of a text's number), a table of USES.
    """
    sides = [
        instances.select(*_ROW, doc_id=f"{role}s", role=pl.lit(role))
        .explode("doc_id", empty_as_null=True)
        .drop_nulls("doc_id")
        for role in (_POSITIVE, _NEGATIVE)
    ]
    pair = [*_ROW, "doc_id"]
    hashes = pl.concat([frame.select(*pair, "text_hash") for frame in (positives, candidates)]).unique(pair)
    uses = pl.concat(sides).join(hashes, on=pair).with_columns(text=number_texts("text_hash"))
    return {"uses": scatter(uses, pl.col("text") % config.shards, list(USES.columns))}


def group_uses(config: RowsConfig, *, uses: pl.DataFrame, groups: pl.DataFrame) -> dict[str, Any]:
    """Let the texts of a group of near duplicates count as one: `text` becomes the number of the group.

    `groups` is the shard of GROUPS with the same texts as `uses`.
    """
    joined = uses.join(groups, on="text", how="left").with_columns(text=pl.coalesce("group", "text"))
    return {"uses": scatter(joined, pl.col("text") % config.shards, list(USES.columns))}


def pair_rows(config: RowsConfig, *, uses: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Pair the rows that have a text of this shard in common, one of them as a positive.

    Of each text the first `most_rows` rows of each role are paired, in the order of dataset and query_id.

    Returns:
        do_not_batch: the pairs. figures: pairs by reason, and `left_out`: pairs of further rows.
    """
    distinct = uses.unique().sort("text", "role", *_ROW)
    counted = distinct.group_by("text").agg(
        positives=(pl.col("role") == _POSITIVE).sum(), negatives=(pl.col("role") == _NEGATIVE).sum()
    )
    answers, others = (distinct.filter(pl.col("role") == role) for role in (_POSITIVE, _NEGATIVE))
    most = config.most_rows
    listed = [
        frame.filter(pl.int_range(pl.len()).over("text") < most).select("text", *_ROW) for frame in (answers, others)
    ]
    other = listed[0].rename({name: f"other_{name}" for name in _ROW})
    pairs = []
    for reason, frame in zip((SAME_POSITIVE, NEGATIVE_IS_POSITIVE), listed, strict=True):
        row, match = pl.struct(_ROW), pl.struct(dataset="other_dataset", query_id="other_query_id")
        different = _before() if reason == SAME_POSITIVE else row != match
        pairs.append(frame.join(other, on="text").filter(different).with_columns(reason=pl.lit(reason)))
    found = pl.concat(pairs).rename({"text": "group"}).select(*DO_NOT_BATCH.columns).sort(DO_NOT_BATCH.key)
    return {
        "do_not_batch": found,
        "figures": count_figures(f"{ROWS}-{config.treatment}", _count(found, counted, distinct), _examples(found)),
    }


def count_nothing(treatment: str) -> pl.DataFrame:
    """Return the figures of a treatment without any row."""
    return count_figures(f"{ROWS}-{treatment}", dict.fromkeys((SAME_POSITIVE, NEGATIVE_IS_POSITIVE, "left_out"), 0))


def _before() -> pl.Expr:
    """Keep one of the two orders of a pair."""
    first, second = pl.col("dataset"), pl.col("other_dataset")
    return (first < second) | ((first == second) & (pl.col("query_id") < pl.col("other_query_id")))


def _count(found: pl.DataFrame, counted: pl.DataFrame, distinct: pl.DataFrame) -> dict[str, int]:
    p, n = pl.col("positives").cast(pl.Int64), pl.col("negatives").cast(pl.Int64)
    own = distinct.select("text", *_ROW).is_duplicated().sum() // 2  # a row with a text in both roles is no pair
    every = int(counted.select((p * (p - 1) // 2 + p * n).sum()).item() or 0) - int(own)
    by_reason = {
        reason: found.filter(pl.col("reason") == reason).height for reason in (SAME_POSITIVE, NEGATIVE_IS_POSITIVE)
    }
    return {**by_reason, "left_out": max(0, every - found.height)}


def _examples(found: pl.DataFrame) -> list[tuple[str, float]]:
    said = {SAME_POSITIVE: "have a positive in common", NEGATIVE_IS_POSITIVE: "a negative of the first is a positive"}
    first = found.head(_SHOWN).select(*DO_NOT_BATCH.columns).iter_rows()
    return [
        (f"{dataset}/{query} and {other}/{of}: {said[reason]}", 0.0) for dataset, query, other, of, reason, _ in first
    ]
