"""Mining: four tables-in, tables-out steps, held to unequal positives, ties and negative scores."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from tasks import schemas
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.mining.mine import (
    MineConfig,
    apply_margins,
    mine,
    pick,
    score_pairs,
    without_given,
)
from tasks.texts import combine_hashes, hash_guard
from tests.tasks.mining.tables import (
    COSINES,
    QUERY_EMBEDDINGS,
    embeddings_of,
    given_of,
    hits_named,
    hits_of,
    irrelevant_of,
    positives_of,
    queries_of,
)
from tests.tasks.settings import settings_of


def _mine(config: MineConfig | None = None, /, **tables: pl.DataFrame) -> dict[str, pl.DataFrame]:
    tables = {
        "given": schemas.GIVEN.empty(),
        "irrelevant": schemas.IRRELEVANT.empty(),
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


# hits of several parts and of several retrievers


def test_hits_of_all_corpus_parts_are_ranked_as_one_and_ties_go_to_the_lowest_doc_id() -> None:
    """Each is the first of its own part."""
    hits = hits_of(("q1", "p3", "x3", 0.5), ("q1", "p1", "x1", 0.9), ("q1", "p2", "x2", 0.5))
    result = _mine(hits=hits, queries=queries_of("q1"), positives=positives_of(("q1", "pa", "pa")))
    assert result["candidates"].sort("rank")["doc_id"].to_list() == ["p1", "p2", "p3"]


def test_fused_hits_keep_their_order_and_get_the_dense_score_that_they_lack() -> None:
    hits = hits_of(*hits_named("q1", "x2", "x1", "x4")).with_columns(
        rank=pl.Series([1, 2, 3], dtype=pl.Int32),
        retriever=pl.Series(["bm25", "dense+bm25", "bm25"]),
        score=pl.Series([None, COSINES["x1"], None]),
    )
    both = MineConfig(num_negatives=1, retrievers=("dense", "bm25"), max_score=0.85)
    result = _mine(both, hits=hits, queries=queries_of("q1"), positives=positives_of(("q1", "pa", "pa")))
    found = result["candidates"].sort("rank").select("doc_id", "retriever", "score")
    assert found.rows() == [
        ("x2", "bm25", float(np.float32(COSINES["x2"]))),
        ("x1", "dense+bm25", COSINES["x1"]),
        ("x4", "bm25", float(np.float32(COSINES["x4"]))),
    ]
    assert result["negatives"]["doc_id"].to_list() == ["x2"]
    assert result["reserve"]["doc_id"].to_list() == ["x4"]  # the filters compare dense scores


def test_a_fused_hit_without_embedding_is_an_error() -> None:
    hits = hits_of(("q1", "p1", "nowhere", 0.5)).with_columns(retriever=pl.lit("bm25"), score=pl.lit(None, pl.Float64))
    with pytest.raises(ValueError, match="hits of further retrievers have no embedding"):
        _mine(
            MineConfig(num_negatives=1, retrievers=("bm25",)),
            hits=hits,
            queries=queries_of("q1"),
            positives=positives_of(("q1", "pa", "pa")),
        )


# score_pairs


def test_positives_are_scored_whether_or_not_they_were_found() -> None:
    queries = pl.DataFrame({"dataset": ["d"], "query_id": ["q1"], "query_hash": ["h1"]})
    scores = score_pairs(
        queries=queries,
        pairs=positives_of(("q1", "b", "pb"), ("q1", "a", "pa")),
        of="positives",
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
    picked, rest = pick(MineConfig(num_negatives=2), candidates=candidates)
    assert picked.rows() == [("d", "q1", "c1", "t-c1", 1), ("d", "q1", "c2", "t-c2", 2), ("d", "q2", "c1", "t-c1", 1)]
    assert rest.rows() == [("d", "q1", "c3", "t-c3", 1)]


def test_a_random_pick_follows_its_seed_and_nothing_else_in_the_table() -> None:
    candidates = _candidates(
        *[(query, f"c{rank}", rank, 1 - rank / 100) for query in ("q1", "q2") for rank in range(1, 20)]
    )
    config = MineConfig(num_negatives=3, sampling_strategy="random")
    both, rest = pick(config, candidates=candidates[::-1])
    alone, _ = pick(config, candidates=candidates.filter(pl.col("query_id") == "q1"))
    other_seed, _ = pick(config.model_copy(update={"seed": 1}), candidates=candidates)
    more, _ = pick(config.model_copy(update={"num_negatives": 4}), candidates=candidates)
    assert set(more["doc_id"]) == set(both["doc_id"]) | set(rest.filter(pl.col("rank") == 1)["doc_id"])
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
        ("reserve", schemas.NEGATIVES),
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


# masks, and what people called irrelevant


def _hits_with(*rows: tuple[str, str, str, str, str | None]) -> pl.DataFrame:
    """Hits of q1 in this order, from (doc_id, text, shown, guard, repeats); the vectors' texts name the scores."""
    full = [
        ("d", "q1", doc, text, shown, guard, repeats, "dense", rank, 1 - rank / 100)
        for rank, (doc, text, shown, guard, repeats) in enumerate(rows, start=1)
    ]
    return pl.DataFrame(full, schema=schemas.HITS.columns, orient="row")


def test_the_query_s_own_text_copies_of_positives_and_of_candidates_are_neither_candidates_nor_negatives() -> None:
    result = _mine(
        hits=_hits_with(
            ("q1", "x1", "x1", "x1", "shown text"),
            ("p9", "x2", "x2", "pa", None),
            ("p1", "pa", "pa", "pa", None),
            ("c1", "x3", "x3", "x3", None),
            ("c2", "x4", "x3", "x3", None),
            ("c3", "neg", "neg", "neg", None),
        ),
        queries=queries_of("q1"),
        positives=positives_of(("q1", "p1", "pa")),
    )
    assert result["candidates"].select("doc_id", "rank").rows() == [("c1", 1), ("c3", 2)]
    assert result["negatives"]["doc_id"].to_list() == ["c1", "c3"]
    assert result["rejects"].rows() == [
        ("mine", "d/q1/c2", "same_text_as_candidate", "shown text x4"),
        ("mine", "d/q1/p9", "same_text_as_positive", "normalised text x2"),
        ("mine", "d/q1/q1", "same_text_as_query", "shown text x1"),
    ]


def test_a_passage_with_the_query_s_id_and_another_text_is_masked_only_if_the_settings_say_so() -> None:
    tables = {
        "hits": _hits_with(("q1", "x1", "x1", "x1", "another text"), ("c1", "x2", "x2", "x2", None)),
        "queries": queries_of("q1"),
        "positives": positives_of(("q1", "p1", "pa")),
    }
    assert _mine(**tables)["candidates"]["doc_id"].to_list() == ["c1", "q1"]
    masked = _mine(MineConfig(num_negatives=1, mask_same_id=True), **tables)
    assert masked["candidates"]["doc_id"].to_list() == ["c1"]
    assert masked["rejects"]["reason"].to_list() == ["same_id_as_query"]


def test_positives_and_masked_passages_take_no_place_of_the_pool() -> None:
    """Before, twenty positives left a pool of five where depth and range_max were twenty-five."""
    names = [f"p{n:02d}" for n in range(45)]
    hits = _hits_with(*[(name, name, name, name, None) for name in names])
    embeddings = embeddings_of(dict.fromkeys(names, 0.5))
    result = _mine(
        MineConfig(depth=25, range_max=25, num_negatives=7),
        hits=hits,
        queries=queries_of("q1"),
        positives=positives_of(*[("q1", name, name) for name in names[:20]]),
        passage_embeddings=embeddings,
    )
    assert result["candidates"]["doc_id"].to_list() == names[20:]
    assert result["reserve"].sort("rank")["doc_id"].to_list() == names[27:]


def test_the_reserve_holds_what_the_filters_let_pass_and_nothing_else() -> None:
    result = _mine(
        MineConfig(num_negatives=1, min_score=0.65, max_score=0.85),
        hits=hits_of(*hits_named("q1", "x1", "x2", "x3", "x4")),
        queries=queries_of("q1"),
        positives=positives_of(("q1", "pa", "pa")),
    )
    assert result["negatives"]["doc_id"].to_list() == ["x2"]
    assert result["reserve"].rows() == [("d", "q1", "x3", "x3", 1)]


def test_what_people_called_irrelevant_is_a_candidate_at_any_rank_and_passes_the_filters_for_false_negatives() -> None:
    tables = {
        "hits": hits_of(*hits_named("q1", "x1", "x2", "x3")),
        "queries": queries_of("q1"),
        "positives": positives_of(("q1", "pb", "pb")),
        "irrelevant": irrelevant_of(("q1", "x1"), ("q1", "neg"), ("q9", "x2")),
    }
    result = _mine(MineConfig(range_max=3, num_negatives=2, max_score=0.75), **tables)
    found = result["candidates"].sort("rank").select("doc_id", "retriever", "rank")
    assert found.rows() == [("x1", "people", 1), ("x2", "dense", 2), ("x3", "dense", 3), ("neg", "people", 4)]
    assert result["candidates"].filter(doc_id="neg")["score"].to_list() == [float(np.float32(COSINES["neg"]))]
    assert result["negatives"]["doc_id"].to_list() == ["x1", "x3"]
    assert result["reserve"]["doc_id"].to_list() == ["neg"]
    harder = _mine(MineConfig(range_max=3, num_negatives=2, min_score=0.0), **tables)
    assert "neg" not in {*harder["negatives"]["doc_id"], *harder["reserve"]["doc_id"]}


def test_no_more_than_the_pool_holds_is_added_of_what_people_called_irrelevant() -> None:
    names = [f"k{n}" for n in range(6)]
    result = _mine(
        MineConfig(range_max=2, num_negatives=2),
        hits=hits_of(*hits_named("q1", "x1", "x2", "x3")),
        queries=queries_of("q1"),
        positives=positives_of(("q1", "pa", "pa")),
        irrelevant=irrelevant_of(*[("q1", name) for name in names]),
        passage_embeddings=embeddings_of(COSINES | {name: 0.3 - n / 10 for n, name in enumerate(names)}),
    )
    assert result["candidates"].sort("rank")["doc_id"].to_list() == ["x1", "x2", "k0", "k1"]


def test_a_positive_that_people_also_called_irrelevant_stays_a_positive() -> None:
    said = irrelevant_of(("q1", "copy")).with_columns(guard_hash=pl.lit("pa"))
    result = _mine(
        hits=hits_of(*hits_named("q1", "x1")),
        queries=queries_of("q1"),
        positives=positives_of(("q1", "pa", "pa")),
        irrelevant=said,
        passage_embeddings=embeddings_of(COSINES | {"copy": 0.4}),
    )
    assert result["candidates"]["doc_id"].to_list() == ["x1"]
    assert ("mine", "d/q1/copy", "same_text_as_positive", "normalised text copy") in result["rejects"].rows()


def test_given_negatives_are_masked_too_and_a_row_that_is_left_without_any_is_mined() -> None:
    given = given_of(("q1", "a", 1, None), ("q1", "b", 2, None), ("q2", "c", 1, None)).with_columns(
        guard_hash=pl.Series(["pa", "t-b", hash_guard("", "text")])
    )
    queries = queries_of("q1", "q2")
    positives = positives_of(("q1", "pa", "pa"), ("q2", "pa", "pa"))
    adopted = adopt(
        AdoptConfig(), given=given, queries=queries, positives=positives, irrelevant=schemas.IRRELEVANT.empty()
    )
    assert adopted["candidates"].select("query_id", "doc_id", "rank").rows() == [("q1", "b", 1)]
    assert adopted["rejects"].rows() == [
        ("adopt", "d/q1/a", "same_text_as_positive", "normalised text t-a"),
        ("adopt", "d/q2/c", "same_text_as_query", "normalised text t-c"),
    ]
    assert without_given(queries=queries, given=given, positives=positives)["query_id"].to_list() == ["q2"]
    hits = hits_of(*hits_named("q1", "x1"), *hits_named("q2", "x1"))
    mined = _mine(hits=hits, queries=queries, positives=positives, given=given)
    assert mined["candidates"]["query_id"].to_list() == ["q2"]


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(MineConfig) == {
        "": "finite", "depth": (100, ">=1"), "range_min": (0, ">=0"), "range_max": (25, ">=1"),
        "relative_margin": None, "absolute_margin": None, "margin_reference": "min", "max_score": None,
        "min_score": None, "num_negatives": (7, ">=1"), "sampling_strategy": "top", "seed": 0, "mask_same_id": "auto",
        "retrievers": (("dense",), "len>=1"), "fusion": "rrf", "rrf_k": (60, ">=0"),
    }  # fmt: skip


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
