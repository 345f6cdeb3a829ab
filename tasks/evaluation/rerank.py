"""Rank what a model found again, by a cross-encoder that reads query and passage together."""

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.protocols import CrossEncoder
from tasks.summaries import FOUND
from tasks.texts import show_passage

_PAIR = ["dataset", "query_id", "doc_id"]


class RerankConfig(BaseModel):
    """No settings: model, template and length are settings of the engine, and the depth is that of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def rerank(
    config: RerankConfig,
    *,
    run: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    engine: CrossEncoder,
) -> dict[str, pl.DataFrame]:
    """Score the ranked passages of some queries that are in one part of the corpus.

    `config` has no settings. Pairs are scored in the order of their ids, so the result does not depend on the order of
    the run. A pair that the engine cannot read is ranked last.

    Returns:
        `found`: the pairs with the engine's scores. Those of all parts of the corpus together are the new ranking.
    """
    pairs = (
        run.select(_PAIR)
        .join(passages.select("dataset", "doc_id", "title", "text"), on=["dataset", "doc_id"])
        .join(queries.select("dataset", "query_id", query="text"), on=["dataset", "query_id"])
        .sort(_PAIR)
    )
    if pairs.is_empty():
        return {"found": FOUND.empty()}
    texts = [
        (query, show_passage(title, text)) for query, title, text in pairs.select("query", "title", "text").iter_rows()
    ]
    scores = pl.Series("score", list(engine.score(texts)), dtype=pl.Float64).fill_nan(0.0)
    return {"found": pairs.with_columns(scores).select(*FOUND.columns)}
