"""Mining: four tables-in, tables-out steps, held to unequal positives, ties and negative scores."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from tasks import schemas
from tasks.mining.mine import (
    AdoptConfig,
    MineConfig,
    adopt,
    apply_margins,
    mask_positives,
    merge_hits,
    mine,
    pick,
    score_positives,
)
from tasks.texts import combine_hashes
from tests.tasks.mining.tables import (
    COSINES,
    QUERY_EMBEDDINGS,
    embeddings_of,
    given_of,
    hits_named,
    hits_of,
    positives_of,
    queries_of,
)
from tests.tasks.settings import settings_of


def _mine(config: MineConfig | None = None, /, **tables: pl.DataFrame) -> dict[str, pl.DataFrame]:
    tables = {
        "given": schemas.GIVEN.empty(),
        "query_embeddings": QUERY_EMBEDDINGS,
        "passage_embeddings": embeddings_of(),
        **tables,
    }
    return mine(config or MineConfig(num_negatives=2), **tables)


def _candidates(*rows: tuple[str, str, int, float]) -> pl.DataFrame:
    """Candidates from (query_id, doc_id, rank, score)."""
    full = [("d", query, doc, f"t-{doc}", f"h-{query}", "hp", "dense", rank, score) for query, doc, rank, score in rows]
    return pl.DataFrame(full, schema=schemas.CANDIDATES.columns, orient="row")


def _scores(*rows: tuple[str, str, float]) -> pl.DataFrame:
    """Positives' scores from (query_id, doc_id, score)."""
    return pl.DataFrame([("d", *row) for row in rows], schema=["dataset", "query_id", "doc_id", "score"], orient="row")


# merge_hits


def test_hits_of_all_corpus_parts_are_ranked_as_one() -> None:
    hits = hits_of(("q1", "p3", "a", 0.5), ("q1", "p1", "b", 0.9), ("q2", "p1", "b", 0.1), ("q1", "p2", "c", 0.7))
    merged = merge_hits(MineConfig(), hits=hits)
    assert merged.select("query_id", "doc_id", "rank").rows() == [
        ("q1", "p1", 1),
        ("q1", "p2", 2),
        ("q1", "p3", 3),
        ("q2", "p1", 1),
    ]


def test_merged_hits_are_cut_at_depth_and_ties_go_to_the_lowest_doc_id() -> None:
    hits = hits_of(("q1", "p3", "a", 0.5), ("q1", "p1", "b", 0.5), ("q1", "p2", "c", 0.5))
    merged = merge_hits(MineConfig(depth=2, range_max=2, num_negatives=1), hits=hits)
    assert merged["doc_id"].to_list() == ["p1", "p2"]


def test_hits_of_several_retrievers_are_refused() -> None:
    hits = hits_of(("q1", "p1", "a", 0.5), ("q1", "p2", "b", 9.0)).with_columns(retriever=pl.Series(["dense", "bm25"]))
    with pytest.raises(ValueError, match="one retriever"):
        merge_hits(MineConfig(), hits=hits)


# mask_positives


def test_positives_are_masked_by_id_and_by_text_and_ranks_close_up() -> None:
    hits = hits_of(("q1", "p1", "a", 0.9), ("q1", "p2", "a", 0.9), ("q1", "p3", "c", 0.8), ("q2", "p1", "a", 0.7))
    kept, rejects = mask_positives(hits=hits, positives=positives_of(("q1", "p1", "a")))
    assert kept.select("query_id", "doc_id", "rank").rows() == [("q1", "p3", 1), ("q2", "p1", 1)]
    assert rejects.rows() == [("mine", "d/q1/p2", "same_text_as_positive", "text a")]


def test_a_text_enters_the_pool_of_a_query_once() -> None:
    hits = hits_of(("q1", "p2", "a", 0.9), ("q1", "p1", "a", 0.9), ("q1", "p3", "c", 0.8), ("q2", "p2", "a", 0.9))
    kept, rejects = mask_positives(hits=merge_hits(MineConfig(), hits=hits), positives=positives_of())
    assert kept.select("query_id", "doc_id", "rank").rows() == [("q1", "p1", 1), ("q1", "p3", 2), ("q2", "p2", 1)]
    assert rejects.rows() == [("mine", "d/q1/p2", "same_text_as_candidate", "text a")]


# score_positives


def test_positives_are_scored_whether_or_not_they_were_found() -> None:
    queries = pl.DataFrame({"dataset": ["d"], "query_id": ["q1"], "query_hash": ["h1"]})
    scores = score_positives(
        queries=queries,
        positives=positives_of(("q1", "b", "pb"), ("q1", "a", "pa")),
        query_embeddings=QUERY_EMBEDDINGS,
        passage_embeddings=embeddings_of(),
    )
    assert scores.rows() == [("d", "q1", "a", float(np.float32(0.95))), ("d", "q1", "b", float(np.float32(0.75)))]


# apply_margins


@pytest.mark.parametrize(
    ("setting", "left"),
    [
        ({"relative_margin": 0.25}, ["c3"]),
        ({"absolute_margin": 0.125}, ["c2", "c3"]),
        ({"max_score": 0.75}, ["c2", "c3"]),
        ({"min_score": 0.75}, ["c1"]),
        ({"max_score": 0.75, "min_score": 0.5}, ["c2"]),
        ({}, ["c1", "c2", "c3"]),
    ],
)
def test_each_filter_keeps_what_lies_on_its_right_side(setting: dict[str, Any], left: list[str]) -> None:
    candidates = _candidates(("q1", "c1", 1, 1.0), ("q1", "c2", 2, 0.625), ("q1", "c3", 3, 0.25))
    passing = apply_margins(
        MineConfig(num_negatives=1, **setting), candidates=candidates, positive_scores=_scores(("q1", "p", 0.75))
    )
    assert passing["doc_id"].to_list() == left


def test_the_margin_of_each_query_refers_to_its_own_positives_when_their_numbers_differ() -> None:
    scores = _scores(
        ("q1", "a", 0.5), ("q2", "a", 0.9), ("q2", "b", 0.2), ("q2", "c", 0.7), ("q3", "a", 0.6), ("q3", "b", 0.8)
    )
    rows = [(query, f"c{score}", 1, score / 10) for query in ("q1", "q2", "q3") for score in range(1, 10)]
    passing = {
        reference: apply_margins(
            MineConfig(num_negatives=1, absolute_margin=0.05, margin_reference=reference),
            candidates=_candidates(*rows),
            positive_scores=scores,
        )
        .group_by("query_id")
        .agg(pl.col("score").max())
        .sort("query_id")
        .rows()
        for reference in ("min", "max")
    }
    assert passing["min"] == [("q1", 0.4), ("q2", 0.1), ("q3", 0.5)]
    assert passing["max"] == [("q1", 0.4), ("q2", 0.8), ("q3", 0.7)]


def test_a_relative_margin_lies_below_a_negative_positive_score_too() -> None:
    candidates = _candidates(("q1", "c1", 1, -0.5), ("q1", "c2", 2, -0.55), ("q1", "c3", 3, -0.65))
    passing = apply_margins(
        MineConfig(num_negatives=1, relative_margin=0.2),
        candidates=candidates,
        positive_scores=_scores(("q1", "p", -0.5)),
    )
    assert passing["doc_id"].to_list() == ["c3"]


# pick


def test_the_top_ones_are_picked_and_ranked_from_one() -> None:
    candidates = _candidates(("q1", "c3", 9, 0.3), ("q1", "c1", 5, 0.5), ("q1", "c2", 7, 0.4), ("q2", "c1", 2, 0.1))
    picked = pick(MineConfig(num_negatives=2), candidates=candidates)
    assert picked.rows() == [("d", "q1", "c1", "t-c1", 1), ("d", "q1", "c2", "t-c2", 2), ("d", "q2", "c1", "t-c1", 1)]


def test_a_random_pick_follows_its_seed_and_nothing_else_in_the_table() -> None:
    candidates = _candidates(
        *[(query, f"c{rank}", rank, 1 - rank / 100) for query in ("q1", "q2") for rank in range(1, 20)]
    )
    config = MineConfig(num_negatives=3, sampling_strategy="random")
    both = pick(config, candidates=candidates[::-1])
    alone = pick(config, candidates=candidates.filter(pl.col("query_id") == "q1"))
    other_seed = pick(config.model_copy(update={"seed": 1}), candidates=candidates)
    assert both.filter(pl.col("query_id") == "q1").equals(alone)
    assert not both.equals(other_seed)
    assert both["rank"].to_list() == [1, 2, 3, 1, 2, 3]
    numbers = alone["doc_id"].str.slice(1).cast(pl.Int64).to_list()
    assert numbers == sorted(numbers) != [1, 2, 3]


# mine


def test_the_pool_keeps_what_the_margin_takes_from_the_pick() -> None:
    result = _mine(
        MineConfig(num_negatives=1, relative_margin=0.05),
        hits=hits_of(*hits_named("q1", "x1", "x2", "pb", "x3")),
        queries=queries_of("q1"),
        positives=positives_of(("q1", "pb", "pb")),
    )
    positives_hash = combine_hashes(["pb"])
    assert result["candidates"].rows() == [
        ("d", "q1", name, name, "h1", positives_hash, "dense", rank, float(np.float32(COSINES[name])))
        for rank, name in enumerate(["x1", "x2", "x3"], start=1)
    ]
    assert result["negatives"].rows() == [("d", "q1", "x3", "x3", 1)]
    assert result["rejects"].height == 0


def test_outputs_follow_their_schemas() -> None:
    result = _mine(
        hits=hits_of(*hits_named("q1", "x1")), queries=queries_of("q1"), positives=positives_of(("q1", "pa", "pa"))
    )
    for name, schema in (
        ("candidates", schemas.CANDIDATES),
        ("negatives", schemas.NEGATIVES),
        ("rejects", schemas.REJECTS),
    ):
        assert result[name].schema == schema.empty().schema


def test_the_rank_window_bounds_the_pool_and_keeps_the_ranks() -> None:
    result = _mine(
        MineConfig(range_min=1, range_max=3, num_negatives=1),
        hits=hits_of(*hits_named("q1", "pa", "x1", "x2", "x3", "x4")),
        queries=queries_of("q1"),
        positives=positives_of(("q1", "pa", "pa")),
    )
    assert result["candidates"].select("doc_id", "rank").rows() == [("x2", 2), ("x3", 3)]


def test_the_hash_of_the_positives_does_not_depend_on_their_order_or_ids() -> None:
    hits, queries = hits_of(*hits_named("q1", "x1"), *hits_named("q2", "x1")), queries_of("q1", "q2")
    positives = positives_of(("q1", "1", "pa"), ("q1", "2", "pb"), ("q2", "1", "pb"), ("q2", "2", "pa"))
    candidates = _mine(hits=hits, queries=queries, positives=positives)["candidates"]
    assert candidates["positives_hash"].to_list() == [combine_hashes(["pa", "pb"])] * 2


def test_queries_short_of_negatives_stay_and_are_counted() -> None:
    result = _mine(
        MineConfig(num_negatives=2, max_score=0.8),
        hits=hits_of(*hits_named("q1", "x1", "x3"), *hits_named("q2", "x1")),
        queries=queries_of("q1", "q2", "q3"),
        positives=positives_of(("q1", "pa", "pa"), ("q2", "pa", "pa"), ("q3", "pa", "pa")),
    )
    assert result["candidates"]["query_id"].to_list() == ["q1", "q1", "q2"]
    assert result["negatives"]["query_id"].to_list() == ["q1"]
    assert result["rejects"].rows() == [
        ("mine", "d/q1", "few_negatives", "1 of 2, from a pool of 2"),
        ("mine", "d/q2", "no_negatives", "0 of 2, from a pool of 1"),
        ("mine", "d/q3", "no_negatives", "0 of 2, from a pool of 0"),
    ]


def test_queries_that_carry_negatives_are_left_out() -> None:
    result = _mine(
        hits=hits_of(*hits_named("q1", "x1", "x2"), *hits_named("q2", "x1", "x2")),
        queries=queries_of("q1", "q2"),
        positives=positives_of(("q1", "pa", "pa"), ("q2", "pa", "pa")),
        given=given_of(("q1", "g1", 1, None)),
    )
    assert set(result["candidates"]["query_id"]) == {"q2"}
    assert result["rejects"].height == 0


def test_held_out_queries_are_not_mined_and_queries_without_positive_are_rejected() -> None:
    result = _mine(
        hits=hits_of(*hits_named("q1", "x1", "x2"), *hits_named("q2", "x1", "x2")),
        queries=pl.concat([queries_of("q1"), queries_of("q2", split="test")]),
        positives=positives_of(("q2", "pa", "pa")),
    )
    assert result["candidates"].height == 0
    assert result["rejects"].rows() == [("mine", "d/q1", "no_positives", "nothing to mine against")]


def test_an_empty_part_gives_empty_tables() -> None:
    result = _mine(hits=schemas.HITS.empty(), queries=schemas.QUERIES.empty(), positives=schemas.POSITIVES.empty())
    assert [result[name].height for name in ("candidates", "negatives", "rejects")] == [0, 0, 0]


def test_the_order_of_input_rows_does_not_matter() -> None:
    tables = {
        "hits": hits_of(*hits_named("q1", "x1", "x2", "x3", "pa"), *hits_named("q2", "x1", "neg", "neg2", "pb")),
        "queries": queries_of("q1", "q2"),
        "positives": positives_of(("q1", "pa", "pa"), ("q1", "pc", "pc"), ("q2", "pb", "pb")),
    }
    one, other = _mine(**tables), _mine(**{name: table[::-1] for name, table in tables.items()})
    assert all(one[name].equals(other[name]) for name in one)


def test_a_positive_without_embedding_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 of 1 distinct positives have no embedding"):
        _mine(
            hits=hits_of(*hits_named("q1", "x1")),
            queries=queries_of("q1"),
            positives=positives_of(("q1", "p", "unknown")),
        )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"relative_margin": 5}, "relative_margin must be between 0 and 1, got 5"),
        ({"relative_margin": -0.1}, "relative_margin must be between 0 and 1"),
        ({"relative_margin": float("nan")}, "finite number"),
        ({"absolute_margin": 3}, "absolute_margin must be between 0 and 2"),
        ({"min_score": 0.5, "max_score": 0.4}, "min_score must not exceed max_score"),
        ({"range_min": 25}, "range_min must be below range_max"),
        ({"num_negatives": 26}, "num_negatives=26 cannot come from a pool of 25"),
        ({"range_max": 200}, "range_max=200 exceeds depth=100"),
        ({"margin": 0.1}, "Extra inputs are not permitted"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MineConfig(**setting)


# adopt


def test_every_given_negative_becomes_a_candidate_in_its_order() -> None:
    result = adopt(
        AdoptConfig(),
        given=given_of(("q1", "b", 1, 0.4), ("q1", "a", 2, None), ("q2", "c", 1, None)),
        queries=queries_of("q1", "q2"),
        positives=positives_of(("q1", "pa", "pa"), ("q2", "pb", "pb")),
    )
    one, two = combine_hashes(["pa"]), combine_hashes(["pb"])
    assert result["candidates"].rows() == [
        ("d", "q1", "a", "t-a", "h1", one, "given", 2, None),
        ("d", "q1", "b", "t-b", "h1", one, "given", 1, 0.4),
        ("d", "q2", "c", "t-c", "h2", two, "given", 1, None),
    ]
    assert result["negatives"].sort("query_id", "rank")["doc_id"].to_list() == ["b", "a", "c"]
    assert result["rejects"].height == 0


def test_adopting_fewer_negatives_leaves_all_of_them_candidates() -> None:
    result = adopt(
        AdoptConfig(num_negatives=2),
        given=given_of(("q1", "c", 3, None), ("q1", "b", 1, None), ("q1", "a", 2, None), ("q2", "c", 1, None)),
        queries=queries_of("q1", "q2"),
        positives=positives_of(("q1", "pa", "pa"), ("q2", "pb", "pb")),
    )
    assert result["candidates"].height == 4
    assert result["negatives"].select("doc_id", "rank").rows() == [("a", 2), ("b", 1), ("c", 1)]
    assert result["rejects"].rows() == [("adopt", "d/q2", "few_negatives", "1 of 2, from a pool of 1")]


def test_given_negatives_of_unknown_queries_and_of_queries_without_positive_are_rejected() -> None:
    result = adopt(
        AdoptConfig(),
        given=given_of(("q1", "a", 1, None), ("q7", "a", 1, None), ("q3", "a", 1, None)),
        queries=pl.concat([queries_of("q1"), queries_of("q3", split="test")]),
        positives=positives_of(("q3", "pa", "pa")),
    )
    assert result["candidates"].height == 0
    assert result["rejects"].rows() == [
        ("adopt", "d/q1", "no_positives", "its negatives are left out"),
        ("adopt", "d/q7/a", "unknown_query", "not in queries"),
    ]


def test_adopting_an_empty_part_gives_empty_tables() -> None:
    result = adopt(
        AdoptConfig(), given=schemas.GIVEN.empty(), queries=queries_of("q1"), positives=positives_of(("q1", "pa", "pa"))
    )
    assert [result[name].height for name in ("candidates", "negatives", "rejects")] == [0, 0, 0]


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(MineConfig) == {
        "": "finite", "depth": (100, ">=1"), "range_min": (0, ">=0"), "range_max": (25, ">=1"),
        "relative_margin": None, "absolute_margin": None, "margin_reference": "min", "max_score": None,
        "min_score": None, "num_negatives": (7, ">=1"), "sampling_strategy": "top", "seed": 0,
    }  # fmt: skip
    assert settings_of(AdoptConfig) == {"num_negatives": (None, ">=1")}


@pytest.mark.parametrize(
    "setting", [{"relative_margin": 0.0}, {"relative_margin": 1.0}, {"absolute_margin": 0.0}, {"absolute_margin": 2.0},
                {"min_score": 0.5, "max_score": 0.5}, {"range_max": 7}, {"range_max": 100}]
)  # fmt: skip
def test_settings_at_their_bounds_are_accepted(setting: dict[str, Any]) -> None:
    MineConfig.model_validate(setting)


def test_scores_at_the_limits_may_be_picked() -> None:
    pool, positive = _candidates(("q1", "a", 1, 0.75), ("q1", "b", 2, 0.25)), _scores(("q1", "p", 1.0))
    for setting in ({"min_score": 0.25}, {"max_score": 0.75}, {"absolute_margin": 0.25}, {"relative_margin": 0.25}):
        kept = apply_margins(MineConfig.model_validate(setting), candidates=pool, positive_scores=positive)
        assert kept["doc_id"].to_list() == ["a", "b"], setting
