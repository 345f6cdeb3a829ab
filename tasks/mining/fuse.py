"""Put the hits of several retrievers into one order, and keep who found what.

Scores of two retrievers cannot be compared, so the order comes from ranks alone:

`rrf`: reciprocal rank fusion. A passage gets 1 / (k + rank) from each retriever that found it; k is 60 in Cormack,
Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods", SIGIR 2009.
`round_robin`: the first of each retriever, in the order of their names in the settings, then the second of each, and so
on; a passage that is already there is not taken again.

Ranks count what can be a negative, so a labelled positive or a copy moves nothing. What is masked keeps the rank of the
hit after it, and is masked again, and reported, by `mine`.
"""

from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks import schemas
from tasks.mining.masks import mask
from tasks.mining.mine import without_given
from tasks.mining.search import rank_by_score

Fusion = Literal["rrf", "round_robin"]

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
# The hits of several retrievers in one order; `retriever` names all that found the passage: "dense+bm25".
FUSED = schemas.Schema(schemas.HITS.columns, key=tuple(_PAIR), nullable=frozenset({"repeats", "score"}))
# Who found a passage, at which rank among what can be a negative, and with which score of its own.
FOUND_BY = schemas.Schema(
    {**dict.fromkeys([*_PAIR, "retriever"], pl.String), "rank": pl.Int32, "score": pl.Float64},
    key=(*_PAIR, "retriever"),
)


class FuseConfig(BaseModel):
    """How hits are merged. The flow fills it from the section `mine`.

    retrievers: their names, in the order in which `round_robin` takes them. depth: ranks of each that count.
    pool: how many places of the fused order may enter the pool: `range_max`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    retrievers: tuple[str, ...] = Field(min_length=1)
    fusion: Fusion = "rrf"
    rrf_k: int = Field(60, ge=0)
    depth: int = Field(100, ge=1)
    pool: int = Field(25, ge=1)


def fuse(
    config: FuseConfig, *, hits: pl.DataFrame, queries: pl.DataFrame, positives: pl.DataFrame, given: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Merge the hits of queries that are mined, of all retrievers and all parts of the corpus.

    Of each retriever the first `depth` hits that can be negatives count, with what is masked between them.

    Returns:
        fused: one row per query and passage, ranked from 1, as far as the pool can reach; `retriever` names all that
            found it, `score` is the dense one, null where the passage is no dense hit.
        unscored: the rows of `fused` without a score. `mine` computes it from the vectors of these passages.
        found_by: who found each of these that can be a negative, with rank and score.

    Raises:
        ValueError: hits of a retriever that the settings do not name.
    """
    unknown = sorted(set(hits["retriever"]) - set(config.retrievers))
    if unknown:
        raise ValueError(f"hits of {', '.join(config.retrievers)} expected, got some of {', '.join(unknown)}")
    wanted = without_given(queries=queries, given=given, positives=positives)
    hits = hits.join(wanted, on=_QUERY, how="semi")
    positives = positives.join(wanted, on=_QUERY, how="semi")
    ranked = pl.concat(
        [_rank(config, hits.filter(pl.col("retriever") == name), positives) for name in config.retrievers]
    )
    fused = _mark_pool(config, _merge(config, ranked), positives)
    found_by = ranked.filter("usable").join(fused, on=_PAIR, how="semi").select(*FOUND_BY.columns)
    fused = fused.sort(FUSED.key)
    unscored = fused.filter(pl.col("score").is_null())
    return {"fused": fused, "unscored": unscored, "found_by": found_by.sort(FOUND_BY.key)}


def _rank(config: FuseConfig, hits: pl.DataFrame, positives: pl.DataFrame) -> pl.DataFrame:
    """Rank one retriever's hits of all corpus parts by its own score, and cut them at the depth.

    The cut makes the order independent of the number of parts, each of which searched as deep.
    """
    # `True` masks more than any other value does, as in the search.
    marked = mask(hits.pipe(rank_by_score), positives=positives, same_id=True)
    usable = marked.with_columns(usable=pl.col("reason").is_null())
    before = pl.col("usable").cum_sum().over(_QUERY) - pl.col("usable").cast(pl.Int64)
    return (
        usable.with_columns(rank=(before + 1).cast(pl.Int32))
        .filter(pl.col("rank") <= config.depth)
        .select(*schemas.HITS.columns, "usable")
    )


def _merge(config: FuseConfig, ranked: pl.DataFrame) -> pl.DataFrame:
    """Merge the rows of each query and passage to one, in the fused order."""
    turn = pl.col("retriever").replace_strict(
        {name: turn for turn, name in enumerate(config.retrievers)}, return_dtype=pl.Int32
    )
    copied = [name for name in schemas.HITS.columns if name not in (*_PAIR, "retriever", "rank", "score")]
    dense = pl.col("score").filter(pl.col("retriever") == schemas.DENSE).first()
    merged = (
        ranked.with_columns(turn=turn)
        .sort("turn")
        .group_by(_PAIR, maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in copied),
            retriever=pl.col("retriever").str.join("+"),
            score=dense,
            weight=(1.0 / (config.rrf_k + pl.col("rank"))).sum(),
            best=pl.col("rank").min(),
            turn=pl.col("turn").sort_by("rank", "turn").first(),
        )
    )
    first = [-pl.col("weight")] if config.fusion == "rrf" else []
    ordered = merged.sort("dataset", "query_id", *first, "best", "turn", "doc_id")
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY))


def _mark_pool(config: FuseConfig, merged: pl.DataFrame, positives: pl.DataFrame) -> pl.DataFrame:
    """Cut the fused order where the pool is full whatever mining masks."""
    marked = mask(merged, positives=positives, same_id=True)
    usable = pl.col("reason").is_null().cast(pl.Int64)
    inside = marked.with_columns(before=usable.cum_sum().over(_QUERY) - usable).filter(pl.col("before") < config.pool)
    return inside.select(*FUSED.columns)
