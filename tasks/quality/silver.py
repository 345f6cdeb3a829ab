"""Find labels in two versions of one training set: as it was, and relabelled (the paper's `default` and `rlhn`).

A negative that stands among the positives of the relabelled row was judged relevant, one that stayed was judged not
relevant. These are labels of a machine. They are called silver, and never count as labels of people.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

PAIRS = {  # the passages of the rows of one version, by the hashes of their texts
    "dataset": pl.String,
    "query_id": pl.String,
    "query_hash": pl.String,
    "doc_id": pl.String,
    "text_hash": pl.String,
    "positive": pl.Boolean,
}
SILVER = {
    "dataset": pl.String,
    "query_id": pl.String,
    "doc_id": pl.String,
    "query_hash": pl.String,
    "text_hash": pl.String,
    "label": pl.String,  # relevant | not_relevant
    "made_by": pl.String,  # MADE_BY: a sheet with this column is not taken for one that people filled in
}
MADE_BY = "silver"
_ROW = ["dataset", "query_id"]
_TEXTS = ["query_hash", "text_hash"]
_PASSAGE = [*_ROW, "text_hash"]
_DIGITS = 16


class Silver(NamedTuple):
    """Labels (`SILVER`), sorted by texts, and how many negatives have none, by reason.

    row_dropped: the relabelled set has no such row, as the paper drops rows with many false negatives.
    query_differs: its row has another query. text_differs: the id is there with another text. passage_missing: its row
    has lost the passage. already_positive: it was a positive before, too. on_both_sides: it is positive and negative in
    the relabelled row. duplicate: the row has the text twice. contradiction: other rows of the same texts say the
    opposite.
    """

    labels: pl.DataFrame
    without: dict[str, int]


def find_silver(default: pl.DataFrame, relabelled: pl.DataFrame) -> Silver:
    """Label the negatives of `default` by what became of them in `relabelled`; both have the columns of `PAIRS`.

    Rows are joined by dataset and query id, and passages by their texts: ids may have been given anew.
    """
    negatives = default.filter(~pl.col("positive"))
    before = negatives.unique(_PASSAGE, keep="first", maintain_order=True)
    sides = relabelled.group_by(_PASSAGE).agg(now=pl.col("positive").any(), still=(~pl.col("positive")).any())
    rows = relabelled.unique(_ROW, keep="first").select(*_ROW, there="query_hash")
    known = default.filter("positive").select(_PASSAGE).unique().with_columns(was=pl.lit(True))
    ids = relabelled.select(*_ROW, "doc_id").unique().with_columns(same_id=pl.lit(True))
    found = (
        before.join(rows, on=_ROW, how="left", maintain_order="left")
        .join(known, on=_PASSAGE, how="left", maintain_order="left")
        .join(sides, on=_PASSAGE, how="left", maintain_order="left")
        .join(ids, on=[*_ROW, "doc_id"], how="left", maintain_order="left")
        .with_columns(reason=_reason())
    )
    labelled = found.filter(pl.col("reason").is_null()).with_columns(
        label=pl.when("now").then(pl.lit("relevant")).otherwise(pl.lit("not_relevant")), made_by=pl.lit(MADE_BY)
    )
    opposed = pl.col("label").n_unique().over(_TEXTS) > 1
    labels = labelled.filter(~opposed).select(*SILVER).sort(*_TEXTS, *_ROW)
    counts = dict(found.group_by("reason").len().drop_nulls().sort("reason").iter_rows())
    further = {"duplicate": negatives.height - before.height, "contradiction": labelled.height - labels.height}
    return Silver(labels, counts | {name: count for name, count in further.items() if count})


def _reason() -> pl.Expr:
    return (
        pl.when(pl.col("there").is_null())
        .then(pl.lit("row_dropped"))
        .when(pl.col("there") != pl.col("query_hash"))
        .then(pl.lit("query_differs"))
        .when(pl.col("was").is_not_null())
        .then(pl.lit("already_positive"))
        .when(pl.col("now").is_null() & pl.col("same_id").is_not_null())
        .then(pl.lit("text_differs"))
        .when(pl.col("now").is_null())
        .then(pl.lit("passage_missing"))
        .when(pl.col("now") & pl.col("still"))
        .then(pl.lit("on_both_sides"))
    )


def draw_silver(labels: Iterable[pl.DataFrame], size: int, seed: int = 0) -> pl.DataFrame:
    """Draw pairs from tables of labels: as many of each dataset and label as there are, up to `size` in all.

    The draw depends on seed and texts alone. Copies of a pair under other ids count once.
    """
    drawn = pl.DataFrame(schema={**SILVER, "draw": pl.String})
    for table in labels:
        hashes = (f"{seed}:{query}:{text}".encode() for query, text in table.select(_TEXTS).iter_rows())
        draw = pl.Series("draw", [hashlib.sha256(one).hexdigest()[:_DIGITS] for one in hashes], dtype=pl.String)
        both = pl.concat([drawn, table.select(*SILVER).with_columns(draw)]).sort("draw", *_ROW)
        first = both.unique(_TEXTS, keep="first", maintain_order=True)
        drawn = first.filter(pl.int_range(pl.len()).over("dataset", "label") < size)
    place = pl.int_range(pl.len()).over("dataset", "label")
    return drawn.with_columns(place=place).sort("place", "draw").head(size).select(*SILVER)
