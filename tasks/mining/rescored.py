"""The scores of a reranker for the pool of mined candidates and for the positives, and what mining does with them.

sentence-transformers' `mine_hard_negatives(cross_encoder=…)` does the same: a cross-encoder scores the passages found
and the positives, and margins and the pick go by these scores. The order of the retriever decides only what is scored,
and which of two equal scores comes first.
"""

import polars as pl

from tasks import schemas
from tasks.mining.picks import reject

NOT_RESCORED = "not_rescored"

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_POSITIVE = "positive"  # in place of a retriever
# What a reranker says of each pair that it was asked about, beside what the retriever says.
RESCORED = schemas.Schema(
    {
        **dict.fromkeys([*_PAIR, "text_hash", "retriever"], pl.String),
        "rank": pl.Int32,  # the retriever's; 0: a positive
        "retriever_score": pl.Float64,
        "score": pl.Float64,  # P(relevant) by the reranker, 0 to 1; null: it gave none that could be read
    },
    key=tuple(_PAIR),
    nullable=frozenset({"retriever_score", "score"}),
)


def put_pairs(candidates: pl.DataFrame, positives: pl.DataFrame) -> pl.DataFrame:
    """Return the candidates, and the positives of their queries with the rank 0, as CANDIDATES.

    Args:
        candidates: CANDIDATES.
        positives: POSITIVES with the columns `query_hash`, `positives_hash` and `score`, the retriever's.
    """
    asked = positives.join(candidates, on=_QUERY, how="semi").with_columns(
        retriever=pl.lit(_POSITIVE), rank=pl.lit(0, pl.Int32)
    )
    columns = list(schemas.CANDIDATES.columns)
    return pl.concat([candidates.select(columns), asked.select(columns)]).sort(schemas.CANDIDATES.key)


def compare(
    rescored: pl.DataFrame, candidates: pl.DataFrame, positives: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Put the scores of the reranker in place of the retriever's; the ranks stay.

    Args:
        rescored: RESCORED. It may hold more pairs than needed.
        candidates: CANDIDATES.
        positives: dataset, query_id and doc_id of the positives.

    Returns:
        The candidates that have a score; the positives, with `score`, null where there is none; rejects for the pairs
        without a score. A candidate without a score cannot be compared, so it is not picked.

    Raises:
        ValueError: a candidate was not put to the reranker.
    """
    said = rescored.select(*_PAIR, _said="score")
    absent = candidates.join(said, on=_PAIR, how="anti")
    if not absent.is_empty():
        first = "/".join(absent.sort(_PAIR).select(_PAIR).row(0))
        raise ValueError(
            f"rescored: a score for each of {candidates.height} candidates expected, {absent.height} were not asked "
            f"about ({first} first); rescore at least as deep as the pool reaches"
        )
    scores = positives.select(_PAIR).join(candidates.select(_QUERY).unique(), on=_QUERY, how="semi")
    scores = scores.join(said, on=_PAIR, how="left").rename({"_said": "score"})
    heard = candidates.join(said, on=_PAIR)
    scored = heard.filter(pl.col("_said").is_not_null()).with_columns(score="_said")
    silent = [heard.filter(pl.col("_said").is_null()), scores.filter(pl.col("score").is_null())]
    pairs = pl.concat([frame.select(_PAIR) for frame in silent])
    unscored = reject("mine", pairs, NOT_RESCORED, pl.lit("the reranker gave no score that could be read"), _PAIR)
    return scored.select(candidates.columns), scores, unscored


def rank_again(candidates: pl.DataFrame) -> pl.DataFrame:
    """Rank the candidates of each query from 1 by their scores; equal scores keep the order of the retriever."""
    ordered = candidates.sort(*_QUERY, "score", "rank", "doc_id", descending=[False, False, True, False, False])
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY))
