"""Score a reranker on the held-out queries, whose passages another model found."""

import polars as pl

from tasks.data.splits import TRAIN
from tasks.evaluation.measures import measure_queries, refuse_deep
from tasks.evaluation.rerank import RerankConfig, rerank
from tasks.protocols import CrossEncoder
from tasks.schemas import SCORES
from tasks.training.evaluate import EvaluateConfig, choose_asked, split_scores


def pick_held_out(config: RerankConfig, *, queries: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the held-out queries of one part as `asked`, which every part of the corpus reads. `config` is empty."""
    return {"asked": queries.filter(pl.col("split") != TRAIN)}


def rerank_held_out(
    config: RerankConfig, *, run: pl.DataFrame, asked: pl.DataFrame, passages: pl.DataFrame, engine: CrossEncoder
) -> dict[str, pl.DataFrame]:
    """Score the ranked passages of the held-out queries that are in one part of the corpus, as `rerank` does."""
    return rerank(config, run=run, queries=asked, passages=passages, engine=engine)


def score_reranked(
    config: EvaluateConfig, *, found: pl.DataFrame, queries: pl.DataFrame, qrels: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Measure the new rankings of the held-out queries with a relevant passage, as `evaluate` measures a retriever.

    A relevant passage that was not found for the query counts as missed. found: FOUND: the pairs with the reranker's
    scores.

    Returns:
        `scores`: of the configured split, one row per measure and query. `dev_scores`: of the split `dev`.

    Raises:
        ValueError: a measure looks at more passages than are ranked.
    """
    refuse_deep(config.measures, config.depth)
    config, asked, _ = choose_asked(config, queries, qrels)
    scored = [SCORES.empty()]
    for own in asked.partition_by("dataset", maintain_order=True):
        ours = pl.col("dataset") == own["dataset"][0]
        labels = qrels.filter(ours).join(own, on="query_id", how="semi")
        run = found.filter(ours).select("query_id", "doc_id", "score")
        measured = measure_queries(config.measures, run=run, labels=labels, min_relevance=config.least)
        named = {"model": pl.lit(config.model_name), "dataset": pl.lit(own["dataset"][0])}
        seed = pl.lit(config.seed, pl.Int64)
        scored.append(measured.with_columns(**named, seed=seed).select(*SCORES.columns))
    return split_scores(config, pl.concat(scored), asked)
