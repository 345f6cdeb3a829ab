"""Count what the data looks like, part by part: how long texts are, how many positives and negatives a query has.

A part's counts are a table of values and how often each occurs, so the counts of all parts add up exactly, and nothing
but ids and numbers is in memory (`tasks.schemas.COUNTS`). `tasks.report.data_figures` sums them up.
"""

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks import schemas

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
QUERY_CHARS, PASSAGE_CHARS = "query_chars", "passage_chars"
POSITIVES, CANDIDATES, NEGATIVES = "positives_per_query", "candidates_per_query", "negatives_per_query"
RANK, SCORE = "negative_rank", "negative_score"
_DECIMALS = 3  # of scores


class DescribeConfig(BaseModel):
    """There is nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def describe_queries(
    config: DescribeConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    candidates: pl.DataFrame,
    negatives: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Count lengths of queries, positives of each query, candidates and negatives of each training query.

    Ranks and scores are those of the negatives among the candidates. Scores are rounded to three decimals.

    Returns:
        `counts`; its column `kind` is the split of a query, or the retriever of a negative (`given`: by the source).
    """
    del config
    asked = queries.select(*_QUERY, kind="split", length=pl.col("text").str.len_chars())
    train = asked.filter(pl.col("kind") == "train")
    found = negatives.select(_PAIR).join(
        candidates.select(*_PAIR, "rank", "score", kind="retriever"), on=_PAIR, how="inner"
    )
    scored = found.filter(pl.col("score").is_not_null())
    return {
        "counts": pl.concat(
            [
                _count(asked, QUERY_CHARS, pl.col("length")),
                _count(_per_query(asked, positives), POSITIVES, pl.col("number")),
                _count(_per_query(train, candidates), CANDIDATES, pl.col("number")),
                _count(_per_query(train, negatives), NEGATIVES, pl.col("number")),
                _count(found, RANK, pl.col("rank")),
                _count(scored, SCORE, pl.col("score").round(_DECIMALS)),
            ]
        )
    }


def describe_passages(config: DescribeConfig, *, passages: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Count the lengths of passages, title and text together, by dataset; returns `counts`."""
    del config
    length = pl.col("title").str.len_chars() + pl.col("text").str.len_chars()
    return {"counts": _count(passages.with_columns(kind=pl.lit("")), PASSAGE_CHARS, length)}


def _per_query(queries: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Add to queries the number of their pairs, which may be 0."""
    numbers = pairs.group_by(_QUERY).agg(number=pl.len())
    return queries.join(numbers, on=_QUERY, how="left").with_columns(pl.col("number").fill_null(0))


def _count(frame: pl.DataFrame, subject: str, value: pl.Expr) -> pl.DataFrame:
    valued = frame.select("dataset", "kind", value=value.cast(pl.Float64)).group_by("dataset", "kind", "value").len()
    columns = {"subject": pl.lit(subject), "count": pl.col("len")}
    counted = valued.with_columns(**columns)
    return counted.select(pl.col(name).cast(dtype) for name, dtype in schemas.COUNTS.columns.items()).sort(
        "dataset", "kind", "value"
    )
