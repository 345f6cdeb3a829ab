"""Settings of the search, and the order of hits."""

import polars as pl
import pytest

from tasks import schemas
from tasks.mining.search import SearchConfig, merge_hits, rank_by_score
from tests.tasks.mining.tables import hits_of, positives_of
from tests.tasks.settings import settings_of


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(SearchConfig) == {
        "depth": (100, ">=1"),
        "threads": (None, ">=1", "operational"),
        "index": "flat",
        "nlist": (None, ">=1"),
        "nprobe": (16, ">=1"),
        "seed": (0, ">=0"),
    }


def test_hits_are_ranked_by_score_and_equal_ones_by_doc_id() -> None:
    pairs = pl.DataFrame(
        [("d", "q2", "a", 0.1), ("d", "q1", "c", 0.5), ("d", "q1", "b", 0.5), ("d", "q1", "a", 0.4)],
        schema=["dataset", "query_id", "doc_id", "score"],
        orient="row",
    )
    ranked = rank_by_score(pairs)
    assert ranked.select("query_id", "doc_id", "rank").rows() == [
        ("q1", "b", 1),
        ("q1", "c", 2),
        ("q1", "a", 3),
        ("q2", "a", 1),
    ]


def test_hits_of_all_corpus_parts_are_ranked_as_one() -> None:
    hits = hits_of(("q1", "p3", "a", 0.5), ("q1", "p1", "b", 0.9), ("q2", "p1", "b", 0.1), ("q1", "p2", "c", 0.7))
    merged = merge_hits(hits=hits, positives=schemas.POSITIVES.empty(), depth=100)
    assert merged.select("query_id", "doc_id", "rank").rows() == [
        ("q1", "p1", 1),
        ("q1", "p2", 2),
        ("q1", "p3", 3),
        ("q2", "p1", 1),
    ]


def test_merged_hits_end_where_a_search_of_the_whole_corpus_would() -> None:
    """Two parts of the corpus with two hits each; a positive, and a copy in the other part, do not count."""
    rows = (
        ("pa", "pa", 0.9, 1),
        ("x1", "x1", 0.8, 2),
        ("x2", "x2", 0.5, 3),
        ("y1", "x1", 0.7, 1),
        ("y2", "y2", 0.6, 2),
    )
    hits = hits_of(*[("q1", doc, text, score) for doc, text, score, _ in rows])
    hits = hits.with_columns(rank=pl.Series([rank for *_, rank in rows], dtype=pl.Int32))
    merged = merge_hits(hits=hits, positives=positives_of(("q1", "pa", "pa")), depth=2)
    assert merged.select("doc_id", "rank").rows() == [("pa", 1), ("x1", 2), ("y1", 3), ("y2", 4)]
    assert merged.columns == list(schemas.HITS.columns)


def test_ties_of_merged_hits_go_to_the_lowest_doc_id() -> None:
    hits = hits_of(("q1", "p3", "a", 0.5), ("q1", "p1", "b", 0.5), ("q1", "p2", "c", 0.5))
    assert merge_hits(hits=hits, positives=schemas.POSITIVES.empty(), depth=100)["doc_id"].to_list() == [
        "p1",
        "p2",
        "p3",
    ]


def test_hits_of_several_retrievers_are_refused() -> None:
    hits = hits_of(("q1", "p1", "a", 0.5), ("q1", "p2", "b", 9.0)).with_columns(retriever=pl.Series(["dense", "bm25"]))
    with pytest.raises(ValueError, match="one retriever"):
        merge_hits(hits=hits, positives=schemas.POSITIVES.empty(), depth=100)
