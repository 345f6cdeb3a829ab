"""Settings of the search, and the order of hits."""

import polars as pl

from tasks.mining.search import SearchConfig, rank_by_score
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
