"""Search a collection exactly, some of its queries in some of its corpus, and score the rankings query by query."""

from collections.abc import Iterator
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.evaluation.measures import measure_queries, refuse_deep
from tasks.evaluation.ranking import TopPassages
from tasks.mining.dense.corpus import Frames, frames_of
from tasks.mining.encode import vectors_of
from tasks.schemas import SCORES
from tasks.summaries import FOUND, RUN

_QUERY = ["dataset", "query_id"]


class SearchConfig(BaseModel):
    """How deep a collection is searched. depth: passages ranked for each query."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(100, ge=1)


class ScoreConfig(BaseModel):
    """What is measured. model_name, seed: of the model in the scores. The others are those of the evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str
    seed: int = 42
    measures: tuple[str, ...] = Field(min_length=1)
    depth: int = Field(100, ge=1)
    min_relevance: int = 1


def search_collection(
    config: SearchConfig,
    *,
    queries: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passages: Frames,
    passage_embeddings: Frames,
) -> dict[str, Any]:
    """Rank passages for queries by the inner product of their vectors, one part of the corpus in memory at a time.

    One passage more than `depth` is ranked, as one of each query may be left out later.

    Args:
        config: the depth.
        queries: of one or more parts; `part` is the number of each one's part.
        query_embeddings: of these queries.
        passages: one frame for each part of the corpus.
        passage_embeddings: the same parts, in the same order.

    Returns:
        `found`: an iterable of (part of the queries, frame), in rising order of the parts.

    Raises:
        ValueError: a query or passage without embedding.
    """
    queries = queries.sort("part", "query_id")
    distinct, rows = vectors_of(query_embeddings, queries["text_hash"], of="queries")
    top = TopPassages(queries["query_id"], distinct[rows], config.depth + 1)
    for part, embeddings in zip(frames_of(passages), frames_of(passage_embeddings), strict=True):
        vectors, places = vectors_of(embeddings, part["text_hash"], of="passages")
        top.add(part["doc_id"], vectors[places])
    return {"found": _by_part(queries, top)}


def score_collection(
    config: ScoreConfig, *, found: pl.DataFrame, queries: pl.DataFrame, qrels: pl.DataFrame, left_out: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Merge what was found in all parts of the corpus, leave out what is the query itself, and measure.

    Every query counts, as in BEIR, also one without a relevant passage.

    Returns:
        `scores`: a row per measure and query. `run`: the ranked passages.

    Raises:
        ValueError: a measure looks at more passages than are ranked.
    """
    refuse_deep(config.measures, config.depth)
    others = found.join(left_out, on=[*_QUERY, "doc_id"], how="anti")
    ordered = others.sort("query_id", "score", "doc_id", descending=[False, True, True])
    ranked = ordered.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY))
    run = ranked.filter(pl.col("rank") <= config.depth).select(*RUN.columns)
    labels = qrels.join(queries, on=_QUERY, how="semi")
    measured = measure_queries(config.measures, run=run, labels=labels, min_relevance=config.min_relevance)
    scores = measured.join(queries.select(_QUERY), on="query_id").with_columns(
        model=pl.lit(config.model_name), seed=pl.lit(config.seed, pl.Int64)
    )
    return {"scores": scores.select(*SCORES.columns).sort(SCORES.key), "run": run}


def _by_part(queries: pl.DataFrame, top: TopPassages) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield what was found for each part of the queries; a part may stretch over several blocks of queries."""
    parts = queries.select(*_QUERY, "part")
    blocks = pl.concat([frame.join(parts, on="query_id", maintain_order="left") for _, frame in top.ranked()])
    for number in queries["part"].unique().sort():
        yield number, blocks.filter(pl.col("part") == number).select(*FOUND.columns)
