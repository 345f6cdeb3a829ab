"""Judge candidates by similarity: the first tier, computed from the vectors of the search.

A candidate whose vector is close to the query and to a positive is likely to be relevant too. How likely depends on the
encoder: some give unrelated texts a cosine of 0.85. So the score here ranks the candidates and says which ones the next
tier is asked about. It decides nothing, unless the settings name thresholds. A calibration turns the cosines into
probabilities (tasks.verdicts.combiner). Measurements on judged pairs are in docs/experiments.md.
"""

from typing import Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks import schemas
from tasks.mining.encode import dot_pairs, vectors_of
from tasks.mining.wording import compare_words
from tasks.prompts.prompt import join_texts
from tasks.texts import combine_hashes, hash_text

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_OF_TEXTS = ["missed_words", "shared_triples"]


class SimilarityConfig(BaseModel):
    """Weights of the score, logistic(w_query * to_query + w_positive * to_positive + bias), and optional thresholds.

    The weights are a logistic fit by benchmarks/similarity_trec_dl19.py on 1,867 judged BM25 candidates of TREC DL 2019
    with MiniLM. 39% of them are relevant. For another encoder or other data the score is no probability, but it ranks
    the candidates. So without thresholds every candidate is `unsure`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    w_query: float = Field(1.82, description="weight of the cosine of candidate and query")
    w_positive: float = Field(5.27, description="weight of the largest cosine of candidate and a positive")
    bias: float = Field(-4.50, description="added to both")
    relevant_from: float | None = Field(
        None,
        ge=0,
        le=1,
        description='score from which the state is "relevant"; unset: similarity calls nothing relevant',
    )
    not_relevant_below: float | None = Field(
        None, ge=0, le=1, description='and below which it is "not_relevant"; unset: it rules nothing out'
    )

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        """Refuse thresholds for which a score would have two states."""
        low, high = self.not_relevant_below, self.relevant_from
        if low is not None and high is not None and low > high:
            raise ValueError(f"not_relevant_below must not exceed relevant_from, got {low:g} and {high:g}")
        return self

    @property
    def decides(self) -> bool:
        """Whether the settings name a threshold, so that the score counts as a probability."""
        return self.relevant_from is not None or self.not_relevant_below is not None


def judge_similarity(  # noqa: PLR0913 - tables by name
    config: SimilarityConfig,
    *,
    candidates: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
    positives: pl.DataFrame,
    queries: pl.DataFrame | None = None,
    passages: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Give each candidate a verdict of tier "similarity", `unsure` unless a threshold says otherwise.

    Returns:
        `verdicts`, and `features`, from which a calibration computes P(relevant). Those that compare words need
            `queries` and `passages`, and are null without them.

    Raises:
        ValueError: as `similarity_features`; or a text is not the one with which the candidate was mined.
    """
    features = similarity_features(
        candidates=candidates,
        query_embeddings=query_embeddings,
        passage_embeddings=passage_embeddings,
        positives=positives,
    )
    if queries is not None and passages is not None:
        texts = join_texts(candidates, queries=queries, passages=passages, positives=positives)
        features = features.drop(_OF_TEXTS).join(compare_words(texts), on=_PAIR, maintain_order="left")
    logit = config.w_query * pl.col("to_query") + config.w_positive * pl.col("to_positive") + config.bias
    score = 1 / (1 + (-logit).exp())
    high, low = config.relevant_from, config.not_relevant_below
    state = (
        pl.when(pl.lit(False) if high is None else pl.col("score") >= high)
        .then(pl.lit("relevant"))
        .when(pl.lit(False) if low is None else pl.col("score") < low)
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
    made = {"verdicts": (verdicts, schemas.VERDICTS), "features": (features, schemas.FEATURES)}
    return {
        name: frame.select(pl.col(column).cast(dtype) for column, dtype in schema.columns.items()).sort(schema.key)
        for name, (frame, schema) in made.items()
    }


def similarity_features(
    *,
    candidates: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
    positives: pl.DataFrame,
) -> pl.DataFrame:
    """Add the features that need no judge to the candidates, as `schemas.FEATURES` explains them.

    Embeddings and positives may hold more rows than needed. Cosines are of shape (candidates,), in -1..1. Features that
    compare words are null.

    Raises:
        ValueError: texts have no embedding, or the positives are not those with which the candidates were mined.
    """
    candidates = candidates.sort(_PAIR)
    positives = positives.join(candidates, on=_QUERY, how="semi")
    _check_positives(candidates, positives)
    passages, rows = vectors_of(passage_embeddings, candidates["text_hash"], of="candidates")
    queries, query_rows = vectors_of(query_embeddings, candidates["query_hash"], of="queries")
    to_query = dot_pairs(queries, passages, query_rows, rows).alias("to_query")
    asked = candidates.select(*_QUERY, pl.Series("query_row", query_rows, dtype=pl.Int64)).unique(
        _QUERY, keep="first", maintain_order=True
    )
    known = positives.select(*_QUERY, positive_hash="text_hash").join(asked, on=_QUERY, maintain_order="left")
    labelled, labelled_rows = vectors_of(passage_embeddings, known["positive_hash"], of="positives")
    known = known.with_columns(
        pl.Series("labelled_row", labelled_rows, dtype=pl.Int64),
        dot_pairs(labelled, queries, labelled_rows, known["query_row"].to_numpy()).alias("positive_to_query"),
    )
    of_query = known.group_by(_QUERY).agg(pl.col("positive_to_query").max(), positives=pl.len().cast(pl.Int32))
    pairs = candidates.select(*_PAIR, pl.Series("row", rows, dtype=pl.Int64)).join(known, on=_QUERY)
    cosines = dot_pairs(labelled, passages, pairs["labelled_row"].to_numpy(), pairs["row"].to_numpy())
    to_positives = (
        pairs.select(*_PAIR, cosines.alias("cosine"))
        .group_by(_PAIR)
        .agg(to_positive=pl.col("cosine").max(), to_positives=pl.col("cosine").sort().mean())
    )
    return (
        candidates.with_columns(to_query)
        .join(to_positives, on=_PAIR, how="left", maintain_order="left")
        .join(of_query, on=_QUERY, how="left", maintain_order="left")
        .with_columns(pl.lit(None, pl.Float64).alias(name) for name in _OF_TEXTS)
    )


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
