"""Judge candidates by similarity: the first tier, computed from the vectors of the search.

A candidate whose vector is close to the query and to a positive is likely to be relevant too. Measurements on judged
pairs are in docs/experiments.md.
"""

from typing import Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks import schemas
from tasks.mining.encode import dot_pairs, vectors_of
from tasks.texts import combine_hashes, hash_text

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]


class SimilarityConfig(BaseModel):
    """Weights and thresholds of P(relevant) = logistic(w_query * to_query + w_positive * to_positive + bias).

    The weights are a logistic fit by benchmarks/similarity_trec_dl19.py on 1,867 judged BM25 candidates of TREC DL 2019
    with MiniLM. 39% of them are relevant. For data with fewer relevant ones the score is too high, but the order of the
    candidates is the same. On the fitted data 96% of the relevant ones are above 0.15, and 96% of those above 0.8 are
    relevant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    w_query: float = Field(1.82, description="weight of the cosine of candidate and query")
    w_positive: float = Field(5.27, description="weight of the largest cosine of candidate and a positive")
    bias: float = Field(-4.50, description="added to both")
    relevant_from: float = Field(0.80, ge=0, le=1, description='P(relevant) from which the state is "relevant"')
    not_relevant_below: float = Field(0.15, ge=0, le=1, description='and below which it is "not_relevant"')

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        """Refuse thresholds for which a score would have two states."""
        if self.not_relevant_below > self.relevant_from:
            raise ValueError(
                "not_relevant_below must not exceed relevant_from, "
                f"got {self.not_relevant_below:g} and {self.relevant_from:g}"
            )
        return self


def judge_similarity(
    config: SimilarityConfig,
    *,
    candidates: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
    positives: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Give each candidate a verdict of tier "similarity"; between the two thresholds its state is "unsure".

    Raises:
        ValueError: as `similarity_features`.
    """
    features = similarity_features(
        candidates=candidates,
        query_embeddings=query_embeddings,
        passage_embeddings=passage_embeddings,
        positives=positives,
    )
    logit = config.w_query * pl.col("to_query") + config.w_positive * pl.col("to_positive") + config.bias
    score = 1 / (1 + (-logit).exp())
    state = (
        pl.when(pl.col("score") >= config.relevant_from)
        .then(pl.lit("relevant"))
        .when(pl.col("score") < config.not_relevant_below)
        .then(pl.lit("not_relevant"))
        .otherwise(pl.lit("unsure"))
    )
    nothing = pl.lit(None)
    verdicts = features.with_columns(
        tier=pl.lit("similarity"),
        judge=pl.lit(f"similarity-{hash_text(config.model_dump_json())[:8]}"),
        score=score,
        grade=nothing,
        preference=nothing,
        call_id=nothing,
        attempt=pl.lit(1),
    ).with_columns(state=state)
    columns = [pl.col(name).cast(dtype) for name, dtype in schemas.VERDICTS.columns.items()]
    return {"verdicts": verdicts.select(columns).sort(schemas.VERDICTS.key)}


def similarity_features(
    *,
    candidates: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
    positives: pl.DataFrame,
) -> pl.DataFrame:
    """Add two cosines to the candidates: `to_query`, and `to_positive`, the largest to a positive of the query.

    Embeddings and positives may hold more rows than needed.

    Raises:
        ValueError: texts have no embedding, or the positives are not those with which the candidates were mined.
    """
    candidates = candidates.sort(_PAIR)
    positives = positives.join(candidates, on=_QUERY, how="semi")
    _check_positives(candidates, positives)
    passages, rows = vectors_of(passage_embeddings, candidates["text_hash"], of="candidates")
    queries, query_rows = vectors_of(query_embeddings, candidates["query_hash"], of="queries")
    to_query = dot_pairs(queries, passages, query_rows, rows).alias("to_query")

    pairs = candidates.select(*_PAIR, pl.Series("row", rows, dtype=pl.Int64)).join(
        positives.select(*_QUERY, positive_hash="text_hash"), on=_QUERY
    )
    labelled, labelled_rows = vectors_of(passage_embeddings, pairs["positive_hash"], of="positives")
    cosines = dot_pairs(labelled, passages, labelled_rows, pairs["row"].to_numpy())
    nearest = pairs.select(*_PAIR, cosines.alias("to_positive")).group_by(_PAIR).agg(pl.col("to_positive").max())
    return candidates.with_columns(to_query).join(nearest, on=_PAIR, how="left", maintain_order="left")


def _check_positives(candidates: pl.DataFrame, positives: pl.DataFrame) -> None:
    """Check that the positives have the hash with which the candidates were mined."""
    texts = positives.group_by(_QUERY).agg(pl.col("text_hash").sort())
    found = texts.select(
        *_QUERY, pl.Series("found", [combine_hashes(hashes) for hashes in texts["text_hash"]], dtype=pl.String)
    )
    mined = candidates.select(*_QUERY, "positives_hash").unique().sort(_QUERY)
    other = mined.join(found, on=_QUERY, how="left").filter(pl.col("found").ne_missing(pl.col("positives_hash")))
    if other.height:
        dataset, query_id = other.sort(_QUERY).select(_QUERY).row(0)
        raise ValueError(
            f"{other.height} queries have other positives than their candidates were mined with "
            f"(first: {dataset}/{query_id}); mine again"
        )
