"""Fusion: one order from the ranks of several retrievers, and who found what."""

import math

import polars as pl
import pytest
from pydantic import ValidationError

from tasks import schemas
from tasks.mining.fuse import FOUND_BY, FUSED, FuseConfig, fuse
from tests.tasks.mining.tables import given_of, positives_of, queries_of
from tests.tasks.settings import REQUIRED, settings_of

BOTH = FuseConfig(retrievers=("dense", "bm25"))


def _hits(retriever: str, *docs: str, query_id: str = "q1", score: float = 1.0) -> pl.DataFrame:
    """Hits in this order, each with its own text; their scores fall from `score`."""
    rows = [
        ("d", query_id, doc, doc, doc, doc, None, retriever, 1, score - place / 100) for place, doc in enumerate(docs)
    ]
    return pl.DataFrame(rows, schema=schemas.HITS.columns, orient="row")


def _fuse(
    config: FuseConfig, *hits: pl.DataFrame, queries: pl.DataFrame | None = None, **tables: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    named = {"positives": positives_of(("q1", "pos", "pos")), "given": schemas.GIVEN.empty(), **tables}
    return fuse(config, hits=pl.concat(hits), queries=queries_of("q1") if queries is None else queries, **named)


def _order(made: dict[str, pl.DataFrame]) -> list[str]:
    return made["fused"].sort("rank")["doc_id"].to_list()


def test_reciprocal_ranks_are_added_and_all_finders_are_named() -> None:
    made = _fuse(BOTH, _hits("dense", "a", "b", "c"), _hits("bm25", "c", "d", score=20.0))
    assert _order(made) == ["c", "a", "b", "d"]  # 1/63 + 1/61, 1/61, 1/62, 1/62
    assert made["fused"].sort("rank")["retriever"].to_list() == ["dense+bm25", "dense", "dense", "bm25"]
    assert made["found_by"].filter(doc_id="c").rows() == [
        ("d", "q1", "c", "bm25", 1, 20.0),
        ("d", "q1", "c", "dense", 3, 0.98),
    ]


def test_the_sum_decides_as_it_is_defined() -> None:
    dense, bm25 = [f"x{n}" for n in range(8)], ["y0", "x6", "y1", "x1", "y2", "x7"]
    made = _fuse(BOTH, _hits("dense", *dense), _hits("bm25", *bm25))
    ranks = {doc: [names.index(doc) + 1 for names in (dense, bm25) if doc in names] for doc in {*dense, *bm25}}
    weight = {doc: math.fsum(1 / (60 + rank) for rank in found) for doc, found in ranks.items()}
    weights = [weight[doc] for doc in _order(made)]
    assert weights == sorted(weights, reverse=True)
    assert len(weights) == len(ranks)


def test_round_robin_takes_one_of_each_in_turn() -> None:
    config = BOTH.model_copy(update={"fusion": "round_robin"})
    made = _fuse(config, _hits("dense", "a", "b", "c", "e"), _hits("bm25", "c", "d"))
    assert _order(made) == ["a", "c", "b", "d", "e"]
    reversed_ = config.model_copy(update={"retrievers": ("bm25", "dense")})
    assert _order(_fuse(reversed_, _hits("dense", "a", "b", "c", "e"), _hits("bm25", "c", "d"))) == [
        "c", "a", "d", "b", "e",
    ]  # fmt: skip


def test_a_small_k_lets_the_first_ranks_count_more() -> None:
    hits = (_hits("dense", "a", "b", "c", "d"), _hits("bm25", "x", "y", "c", "d"))
    assert _order(_fuse(BOTH, *hits))[0] == "c"
    assert _order(_fuse(BOTH.model_copy(update={"rrf_k": 0}), *hits))[:2] == ["a", "x"]


def test_only_the_dense_score_is_kept_and_the_others_are_unscored() -> None:
    made = _fuse(BOTH, _hits("dense", "a"), _hits("bm25", "a", "b", score=17.0))
    assert made["fused"].sort("rank").select("doc_id", "score").rows() == [("a", 1.0), ("b", None)]
    assert made["unscored"]["doc_id"].to_list() == ["b"]


def test_positives_and_masked_hits_take_no_rank() -> None:
    positives = positives_of(("q1", "pos", "pos"))
    plain = _fuse(BOTH, _hits("dense", "a", "b"), _hits("bm25", "b", "c"))
    beside = _fuse(BOTH, _hits("dense", "pos", "a", "b"), _hits("bm25", "pos", "b", "c"), positives=positives)
    assert [doc for doc in _order(beside) if doc != "pos"] == _order(plain)
    assert beside["found_by"].equals(plain["found_by"].with_columns(score=beside["found_by"]["score"]))
    assert "pos" in _order(beside)  # mining masks and reports it


def test_the_parts_of_the_corpus_make_no_difference() -> None:
    """Each part is searched as deep as the whole; what lies below the depth of the whole must not count."""
    config = BOTH.model_copy(update={"depth": 3, "pool": 3})
    dense = _hits("dense", *(f"p{n}" for n in range(6)))
    bm25 = _hits("bm25", "p5", "p4", "p0", "p1")
    whole = _fuse(config, dense[:3], bm25[:3])
    assert _fuse(config, dense[::2], dense[1::2], bm25)["fused"].equals(whole["fused"])
    assert whole["found_by"].filter(doc_id="p5")["retriever"].to_list() == ["bm25"]


def test_what_the_pool_cannot_reach_is_left_out() -> None:
    config = BOTH.model_copy(update={"pool": 2})
    made = _fuse(config, _hits("dense", "pos", "a", "b", "c"), _hits("bm25", "a", "d"))
    assert [doc for doc in _order(made) if doc != "pos"] == ["a", "b"]
    assert set(made["found_by"]["doc_id"]) == {"a", "b"}


def test_queries_that_bring_negatives_are_left_out_and_others_stand_alone() -> None:
    hits = (_hits("dense", "a"), _hits("dense", "a", query_id="q2"), _hits("bm25", "b", query_id="q2"))
    made = _fuse(
        BOTH,
        *hits,
        queries=queries_of("q1", "q2"),
        given=given_of(("q1", "n1", 1, None), ("q1", "n2", 2, None)),
        positives=positives_of(("q2", "pos", "pos")),
    )
    assert made["fused"].select("query_id", "doc_id", "rank").rows() == [("q2", "a", 1), ("q2", "b", 2)]


def test_outputs_follow_their_schemas_also_when_empty() -> None:
    for hits in (schemas.HITS.empty(), _hits("bm25", "a")):
        made = _fuse(BOTH, hits)
        assert made["fused"].schema == made["unscored"].schema == FUSED.empty().schema
        assert made["found_by"].schema == FOUND_BY.empty().schema


def test_an_unknown_retriever_is_refused() -> None:
    with pytest.raises(ValueError, match="hits of dense, bm25 expected, got some of gte"):
        _fuse(BOTH, _hits("gte", "a"))
    with pytest.raises(ValidationError, match="at least 1"):
        FuseConfig(retrievers=())


def test_defaults_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(FuseConfig) == {
        "retrievers": (REQUIRED, "len>=1"), "fusion": "rrf", "rrf_k": (60, ">=0"), "depth": (100, ">=1"),
        "pool": (25, ">=1"),
    }  # fmt: skip
