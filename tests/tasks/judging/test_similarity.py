"""The similarity judge: two cosines, a logistic, three states."""

import math

import numpy as np
import polars as pl
import pytest

from tasks import schemas
from tasks.judging.similarity import SimilarityConfig, judge_similarity, similarity_features
from tasks.texts import combine_hashes, hash_passage, hash_text
from tests.tasks.settings import settings_of

EMBEDDINGS: dict[str, schemas.Dtype] = {"text_hash": pl.String, "vector": pl.Array(pl.Float32, 2)}
CONFIG = SimilarityConfig(w_query=2.0, w_positive=4.0, bias=-3.0, relevant_from=0.9, not_relevant_below=0.3)

QUERY_EMBEDDINGS = pl.DataFrame({"text_hash": ["hq"], "vector": [[1.0, 0.0]]}, schema=EMBEDDINGS)
PASSAGE_EMBEDDINGS = pl.DataFrame(
    {"text_hash": ["same", "up", "down", "other"], "vector": [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.6, 0.8]]},
    schema=EMBEDDINGS,
)
POSITIVES = pl.DataFrame(
    [
        ("d", q, doc, text, text, text, "input")
        for q, doc, text in (("q1", "p1", "same"), ("q1", "p2", "up"), ("q9", "p9", "no"))
    ],
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


def _features(candidates: pl.DataFrame, config: SimilarityConfig = CONFIG) -> pl.DataFrame:
    return judge_similarity(
        config,
        candidates=candidates,
        query_embeddings=QUERY_EMBEDDINGS,
        passage_embeddings=PASSAGE_EMBEDDINGS,
        positives=POSITIVES,
    )["features"]


def test_features_are_cosines_to_the_query_and_to_the_positives_their_number_and_the_rank() -> None:
    features = similarity_features(
        candidates=_candidates(("c2", "down"), ("c1", "other")),
        query_embeddings=QUERY_EMBEDDINGS,
        passage_embeddings=PASSAGE_EMBEDDINGS,
        positives=POSITIVES,
    )
    sixth, eighth = (float(np.float32(value)) for value in (0.6, 0.8))
    assert features.select("doc_id", "to_query", "to_positive", "to_positives").rows() == [
        ("c1", sixth, eighth, pytest.approx(0.7)),
        ("c2", 0.0, 0.0, -0.5),
    ]
    assert features.select("positive_to_query", "positives", "rank").rows() == [(1.0, 2, 1)] * 2
    kept = _features(_candidates(("c2", "down"), ("c1", "other")))
    assert kept.schema == schemas.FEATURES.empty().schema
    assert kept.select("doc_id", "query_hash", "text_hash").rows() == [("c1", "hq", "other"), ("c2", "hq", "down")]


def test_without_thresholds_similarity_ranks_and_decides_nothing() -> None:
    pairs = _candidates(("c1", "same"), ("c2", "down"), ("c3", "up"))
    verdicts = judge_similarity(
        SimilarityConfig(),
        candidates=pairs,
        query_embeddings=QUERY_EMBEDDINGS,
        passage_embeddings=PASSAGE_EMBEDDINGS,
        positives=POSITIVES,
    )["verdicts"]
    assert verdicts["state"].to_list() == ["unsure"] * 3
    assert verdicts["score"].arg_sort(descending=True).to_list() == [0, 2, 1]


def test_one_threshold_alone_leaves_the_other_side_open() -> None:
    pairs = _candidates(("c1", "same"), ("c2", "down"), ("c3", "up"))
    states = [
        judge_similarity(
            config,
            candidates=pairs,
            query_embeddings=QUERY_EMBEDDINGS,
            passage_embeddings=PASSAGE_EMBEDDINGS,
            positives=POSITIVES,
        )["verdicts"]["state"].to_list()
        for config in (SimilarityConfig(relevant_from=0.9), SimilarityConfig(not_relevant_below=0.3))
    ]
    assert states == [["relevant", "unsure", "unsure"], ["unsure", "not_relevant", "unsure"]]


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
        "relevant_from": (None, ">=0", "<=1"),
        "not_relevant_below": (None, ">=0", "<=1"),
    }


def test_words_are_compared_where_the_texts_are_given_and_null_without_them() -> None:
    texts = {"q1": "first n rows", "p1": "the first n rows of it", "p2": "rows", "c1": "the last n rows of it"}
    hashes = {doc: hash_passage("", text) for doc, text in texts.items()}
    query_hash = hash_text(texts["q1"])
    candidates = pl.DataFrame(
        [
            (
                "d",
                "q1",
                "c1",
                hashes["c1"],
                query_hash,
                combine_hashes(sorted([hashes["p1"], hashes["p2"]])),
                "dense",
                1,
                0.5,
            )
        ],
        schema=schemas.CANDIDATES.columns,
        orient="row",
    )
    vectors = pl.DataFrame(
        {"text_hash": [hashes[doc] for doc in ("p1", "p2", "c1")], "vector": [[1.0, 0.0]] * 3}, schema=EMBEDDINGS
    )
    tables = {
        "candidates": candidates,
        "query_embeddings": pl.DataFrame({"text_hash": [query_hash], "vector": [[1.0, 0.0]]}, schema=EMBEDDINGS),
        "passage_embeddings": vectors,
        "positives": pl.DataFrame(
            [("d", "q1", doc, *[hashes[doc]] * 3, "input") for doc in ("p1", "p2")],
            schema=schemas.POSITIVES.columns,
            orient="row",
        ),
    }
    queries = pl.DataFrame(
        [("d", "q1", texts["q1"], query_hash, "train")], schema=schemas.QUERIES.columns, orient="row"
    )
    passages = pl.DataFrame(
        [("d", doc, "", texts[doc], hashes[doc]) for doc in ("p1", "p2", "c1")],
        schema=schemas.PASSAGES.columns,
        orient="row",
    )
    compared = judge_similarity(CONFIG, **tables, queries=queries, passages=passages)["features"]
    assert compared.select("missed_words", "shared_triples").rows() == [(pytest.approx(1 / 3), pytest.approx(1 / 3))]
    without = judge_similarity(CONFIG, **tables)["features"]
    assert without.select("missed_words", "shared_triples").rows() == [(None, None)]
    assert compared.drop("missed_words", "shared_triples").equals(without.drop("missed_words", "shared_triples"))
