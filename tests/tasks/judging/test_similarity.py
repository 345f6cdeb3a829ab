"""The similarity judge: two cosines, a logistic, three states."""

import math

import numpy as np
import polars as pl
import pytest

from tasks import schemas
from tasks.judging.similarity import SimilarityConfig, judge_similarity, similarity_features
from tasks.texts import combine_hashes
from tests.tasks.settings import settings_of

EMBEDDINGS: dict[str, schemas.Dtype] = {"text_hash": pl.String, "vector": pl.Array(pl.Float32, 2)}
CONFIG = SimilarityConfig(w_query=2.0, w_positive=4.0, bias=-3.0, relevant_from=0.9, not_relevant_below=0.3)

QUERY_EMBEDDINGS = pl.DataFrame({"text_hash": ["hq"], "vector": [[1.0, 0.0]]}, schema=EMBEDDINGS)
PASSAGE_EMBEDDINGS = pl.DataFrame(
    {"text_hash": ["same", "up", "down", "other"], "vector": [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.6, 0.8]]},
    schema=EMBEDDINGS,
)
POSITIVES = pl.DataFrame(
    [("d", "q1", "p1", "same", "input"), ("d", "q1", "p2", "up", "input"), ("d", "q9", "p9", "unused", "input")],
    schema=schemas.POSITIVES.columns,
    orient="row",
)


def _candidates(*rows: tuple[str, str], positives_hash: str = combine_hashes(["same", "up"])) -> pl.DataFrame:
    """Candidates of query q1 from (doc_id, text_hash)."""
    full = [("d", "q1", doc_id, text, "hq", positives_hash, "dense", 1, 0.5) for doc_id, text in rows]
    return pl.DataFrame(full, schema=schemas.CANDIDATES.columns, orient="row")


def _judge(candidates: pl.DataFrame) -> pl.DataFrame:
    return judge_similarity(
        CONFIG,
        candidates=candidates,
        query_embeddings=QUERY_EMBEDDINGS,
        passage_embeddings=PASSAGE_EMBEDDINGS,
        positives=POSITIVES,
    )["verdicts"]


def test_features_are_the_cosine_to_the_query_and_the_largest_to_a_positive() -> None:
    features = similarity_features(
        candidates=_candidates(("c2", "down"), ("c1", "other")),
        query_embeddings=QUERY_EMBEDDINGS,
        passage_embeddings=PASSAGE_EMBEDDINGS,
        positives=POSITIVES,
    )
    sixth, eighth = (float(np.float32(value)) for value in (0.6, 0.8))
    assert features.select("doc_id", "to_query", "to_positive").rows() == [("c1", sixth, eighth), ("c2", 0.0, 0.0)]
    assert features.columns == [*schemas.CANDIDATES.columns, "to_query", "to_positive"]


def test_the_score_is_the_logistic_of_the_weighted_cosines() -> None:
    verdict = _judge(_candidates(("c1", "same"))).row(0, named=True)
    assert verdict["score"] == pytest.approx(1 / (1 + math.exp(-(2.0 * 1 + 4.0 * 1 - 3.0))))
    assert (verdict["tier"], verdict["attempt"], verdict["preference"]) == ("similarity", 1, None)


def test_the_two_thresholds_make_three_states() -> None:
    verdicts = _judge(_candidates(("c1", "same"), ("c2", "down"), ("c3", "up")))
    assert verdicts["state"].to_list() == ["relevant", "not_relevant", "unsure"]
    assert verdicts.schema == schemas.VERDICTS.empty().schema


def test_other_settings_are_another_judge() -> None:
    names = [
        judge_similarity(
            config,
            candidates=_candidates(("c1", "same")),
            query_embeddings=QUERY_EMBEDDINGS,
            passage_embeddings=PASSAGE_EMBEDDINGS,
            positives=POSITIVES,
        )["verdicts"]["judge"].item()
        for config in (CONFIG, SimilarityConfig())
    ]
    assert names[0] != names[1]


def test_an_empty_part_gives_no_verdicts() -> None:
    assert _judge(schemas.CANDIDATES.empty()).equals(schemas.VERDICTS.empty())


def test_candidates_without_embedding_are_counted() -> None:
    with pytest.raises(ValueError, match="1 of 2 distinct candidates have no embedding"):
        _judge(_candidates(("c1", "same"), ("c2", "unknown")))


def test_positives_that_changed_after_mining_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 queries have other positives .*d/q1"):
        _judge(_candidates(("c1", "same"), positives_hash="old"))


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="not_relevant_below must not exceed relevant_from"):
        SimilarityConfig(relevant_from=0.2, not_relevant_below=0.5)


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(SimilarityConfig) == {
        "": "finite",
        "w_query": 1.82,
        "w_positive": 5.27,
        "bias": -4.5,
        "relevant_from": (0.8, ">=0", "<=1"),
        "not_relevant_below": (0.15, ">=0", "<=1"),
    }
