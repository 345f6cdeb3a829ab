"""The scores of a reranker in place of the retriever's: what is picked goes by them, and the pool stays as it is."""

from typing import Any

import polars as pl
import pytest

from tasks import schemas
from tasks.mining.mine import MineConfig, choose_pool, mine
from tasks.mining.rescored import RESCORED, compare
from tests.tasks.mining.tables import (
    QUERY_EMBEDDINGS,
    embeddings_of,
    hits_named,
    hits_of,
    irrelevant_of,
    positives_of,
    queries_of,
)

# By the retriever x1 is the nearest and x4 the farthest; the reranker sees it otherwise.
SCORES: dict[str, float | None] = {"x1": 0.9, "x2": 0.2, "x3": 0.75, "x4": 0.5, "pa": 0.8, "pb": 0.6}


def _tables(*docs: str, positives: tuple[str, ...] = ("pa",), **changes: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {
        "hits": hits_of(*hits_named("q1", *docs)),
        "queries": queries_of("q1"),
        "positives": positives_of(*[("q1", name, name) for name in positives]),
        "given": schemas.GIVEN.empty(),
        "irrelevant": schemas.IRRELEVANT.empty(),
        "query_embeddings": QUERY_EMBEDDINGS,
        "passage_embeddings": embeddings_of(),
        **changes,
    }


def _rescored(asked: pl.DataFrame, scores: dict[str, float | None]) -> pl.DataFrame:
    said = pl.Series("score", [scores[doc] for doc in asked["doc_id"]], dtype=pl.Float64)
    return asked.rename({"score": "retriever_score"}).with_columns(said).select(*RESCORED.columns)


def _mine(
    tables: dict[str, pl.DataFrame], scores: dict[str, float | None] | None = None, **config: Any
) -> dict[str, pl.DataFrame]:
    how = MineConfig(**{"num_negatives": 2, **config})
    asked = choose_pool(how.pool_of(25), **tables)["asked"]
    return mine(how, **tables, rescored=_rescored(asked, SCORES | (scores or {})))


def _names(frame: pl.DataFrame) -> list[str]:
    return frame.sort("rank")["doc_id"].to_list()


ALL = ("x1", "x2", "x3", "x4")


def test_the_pool_keeps_the_order_and_scores_of_the_retriever_and_the_pick_goes_by_those_of_the_reranker() -> None:
    tables = _tables(*ALL)
    made, plain = _mine(tables), mine(MineConfig(num_negatives=2), **tables)
    assert made["candidates"].equals(plain["candidates"])
    assert (_names(plain["negatives"]), _names(plain["reserve"])) == (["x1", "x2"], ["x3", "x4"])
    assert (_names(made["negatives"]), _names(made["reserve"])) == (["x1", "x3"], ["x4", "x2"])


@pytest.mark.parametrize(
    ("setting", "picked"),
    [
        ({"absolute_margin": 0.0}, ["x3", "x4"]),  # up to the positive's 0.8
        ({"absolute_margin": 0.1}, ["x4", "x2"]),
        ({"relative_margin": 0.05}, ["x3", "x4"]),  # up to 0.76
        ({"relative_margin": 0.1}, ["x4", "x2"]),
        ({"max_score": 0.6}, ["x4", "x2"]),
        ({"min_score": 0.6}, ["x1", "x3"]),
        ({"max_score": 0.76, "min_score": 0.6}, ["x3"]),
        ({"range_max": 2}, ["x1", "x2"]),  # the pool is cut by the retriever's ranks
        ({"range_min": 1}, ["x3", "x4"]),
    ],
)
def test_every_filter_compares_the_scores_of_the_reranker(setting: dict[str, Any], picked: list[str]) -> None:
    assert _names(_mine(_tables(*ALL), **setting)["negatives"]) == picked


@pytest.mark.parametrize(("reference", "picked"), [("min", ["x4", "x2"]), ("max", ["x3", "x4"])])
def test_the_reference_of_a_margin_is_the_positive_by_the_score_of_the_reranker(
    reference: str, picked: list[str]
) -> None:
    made = _mine(_tables(*ALL, positives=("pa", "pb")), absolute_margin=0.0, margin_reference=reference)
    assert _names(made["negatives"]) == picked


def test_equal_scores_keep_the_order_of_the_retriever() -> None:
    assert _names(_mine(_tables(*ALL), dict.fromkeys(ALL, 0.5))["negatives"]) == ["x1", "x2"]


def test_a_random_pick_draws_from_what_passes_and_is_ranked_by_the_reranker() -> None:
    drawn = set[tuple[str, ...]]()
    for seed in range(20):
        made = _mine(_tables(*ALL), sampling_strategy="random", seed=seed, absolute_margin=0.0)
        drawn.add(tuple(_names(made["negatives"])))
    assert drawn == {("x3", "x4"), ("x3", "x2"), ("x4", "x2")}


def test_what_people_called_irrelevant_is_scored_too_and_no_upper_bound_excludes_it() -> None:
    tables = _tables("x1", "x2", "x3", irrelevant=irrelevant_of(("q1", "x4")))
    made = _mine(tables, {"x4": 0.95}, max_score=0.5)
    assert _names(made["negatives"]) == ["x4", "x2"]
    assert _names(made["candidates"]) == ["x1", "x2", "x3", "x4"]


def test_a_candidate_without_a_score_stays_in_the_pool_is_not_picked_and_is_reported() -> None:
    made = _mine(_tables(*ALL), {"x1": None})
    assert _names(made["candidates"]) == ["x1", "x2", "x3", "x4"]
    assert [_names(made[name]) for name in ("negatives", "reserve")] == [["x3", "x4"], ["x2"]]
    assert made["rejects"].rows() == [
        ("mine", "d/q1/x1", "not_rescored", "the reranker gave no score that could be read")
    ]


def test_margins_refer_to_the_positives_that_have_a_score_and_without_one_nothing_can_be_compared() -> None:
    one = _mine(_tables(*ALL, positives=("pa", "pb")), {"pb": None}, absolute_margin=0.0)
    assert _names(one["negatives"]) == ["x3", "x4"]
    none = _mine(_tables(*ALL), {"pa": None}, absolute_margin=0.0)
    assert none["negatives"].is_empty()
    assert none["rejects"]["reason"].to_list() == ["no_negatives", "not_rescored"]
    assert _names(_mine(_tables(*ALL), {"pa": None})["negatives"]) == ["x1", "x3"]  # without a margin nothing is needed


def test_the_pool_and_the_positives_are_put_to_the_reranker_with_what_the_retriever_says_of_them() -> None:
    asked = choose_pool(MineConfig(num_negatives=1).pool_of(2), **_tables(*ALL, positives=("pa", "pb")))["asked"]
    found = asked.sort("rank", "doc_id").select("doc_id", "retriever", "rank", pl.col("score").round(2)).rows()
    assert found == [
        ("pa", "positive", 0, 0.95),
        ("pb", "positive", 0, 0.75),
        ("x1", "dense", 1, 0.9),
        ("x2", "dense", 2, 0.8),
    ]
    assert asked["query_hash"].unique().to_list() == ["h1"]


def test_the_settings_of_the_pool_hold_none_of_what_is_picked() -> None:
    plain = MineConfig(depth=50).pool_of(40)
    filters = {"relative_margin": 0.1, "absolute_margin": 0.1, "max_score": 0.9, "min_score": 0.1, "num_negatives": 3}
    picks = {"sampling_strategy": "random", "seed": 7, "margin_reference": "max", "range_min": 2, "range_max": 30}
    assert MineConfig(depth=50, **filters, **picks).pool_of(40) == plain
    assert (plain.range_min, plain.range_max) == (0, 40)
    assert MineConfig(depth=50, retrievers=("bm25",), mask_same_id=True).pool_of(40) != plain


def test_a_pool_that_reaches_deeper_than_what_was_scored_is_refused() -> None:
    tables = _tables(*ALL)
    made = mine(MineConfig(num_negatives=2), **tables)
    scored = _rescored(choose_pool(MineConfig().pool_of(3), **tables)["asked"], SCORES)
    with pytest.raises(ValueError, match=r"a score for each of 4 candidates expected, 1 were not .*d/q1/x4 first"):
        compare(scored, made["candidates"], tables["positives"])
