"""Picks: the first of each query, in candidate order, and the queries that have too few."""

import polars as pl

from tasks import schemas
from tasks.mining.picks import count_short, join_rejects, reject, split_at, with_positives
from tests.tasks.mining.tables import positives_of, queries_of


def _candidates(*rows: tuple[str, str, int]) -> pl.DataFrame:
    """Candidates from (query_id, doc_id, rank)."""
    full = [("d", query, doc, f"t-{doc}", f"h-{query}", "hp", "dense", rank, 0.5) for query, doc, rank in rows]
    return pl.DataFrame(full, schema=schemas.CANDIDATES.columns, orient="row")


def test_the_first_of_each_query_are_split_from_the_rest_and_both_are_ranked_from_one() -> None:
    ordered = _candidates(("q1", "b", 4), ("q2", "c", 1), ("q1", "a", 9), ("q1", "e", 6))
    first, rest = split_at(2, ordered)
    assert first.select("query_id", "doc_id", "rank").rows() == [("q1", "b", 1), ("q1", "a", 2), ("q2", "c", 1)]
    assert rest.select("query_id", "doc_id", "rank").rows() == [("q1", "e", 1)]


def test_queries_with_few_and_without_negatives_are_told_apart() -> None:
    candidates = _candidates(("q1", "a", 1), ("q1", "b", 2), ("q2", "a", 1))
    negatives = split_at(2, candidates.filter(query_id="q1"))[0]
    counted = count_short("mine", 3, queries_of("q1", "q2"), candidates, negatives)
    assert counted.rows() == [
        ("mine", "d/q1", "few_negatives", "2 of 3, from a pool of 2"),
        ("mine", "d/q2", "no_negatives", "0 of 3, from a pool of 1"),
    ]


def test_a_query_without_positive_is_set_apart() -> None:
    labelled, unlabelled = with_positives(queries_of("q1", "q2"), positives_of(("q1", "p", "pa")))
    assert labelled["query_id"].to_list() == ["q1"]
    told = reject("mine", unlabelled, "no_positives", pl.lit("why"))
    assert join_rejects(told).rows() == [("mine", "d/q2", "no_positives", "why")]
