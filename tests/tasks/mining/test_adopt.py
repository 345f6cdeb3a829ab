"""Adopting: the given negatives of a row are its candidates, in their order."""

import polars as pl

from tasks import schemas
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.texts import combine_hashes
from tests.tasks.mining.tables import given_of, irrelevant_of, positives_of, queries_of
from tests.tasks.settings import settings_of


def _adopt(config: AdoptConfig, **tables: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return adopt(config, **{"irrelevant": schemas.IRRELEVANT.empty(), **tables})


def test_every_given_negative_becomes_a_candidate_in_its_order() -> None:
    result = _adopt(
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
    result = _adopt(
        AdoptConfig(num_negatives=2),
        given=given_of(("q1", "c", 3, None), ("q1", "b", 1, None), ("q1", "a", 2, None), ("q2", "c", 1, None)),
        queries=queries_of("q1", "q2"),
        positives=positives_of(("q1", "pa", "pa"), ("q2", "pb", "pb")),
    )
    assert result["candidates"].height == 4
    assert result["negatives"].select("doc_id", "rank").rows() == [("a", 2), ("b", 1), ("c", 1)]
    assert result["rejects"].rows() == [("adopt", "d/q2", "few_negatives", "1 of 2, from a pool of 1")]


def test_given_negatives_of_unknown_queries_and_of_queries_without_positive_are_rejected() -> None:
    result = _adopt(
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
    result = _adopt(
        AdoptConfig(), given=schemas.GIVEN.empty(), queries=queries_of("q1"), positives=positives_of(("q1", "pa", "pa"))
    )
    assert [result[name].height for name in ("candidates", "negatives", "rejects")] == [0, 0, 0]


def test_given_negatives_that_people_called_irrelevant_are_named_as_theirs_and_others_of_theirs_come_last() -> None:
    given = given_of(("q1", "a", 1, None), ("q1", "b", 2, 0.5))
    said = irrelevant_of(("q1", "z"), ("q1", "t-b")).with_columns(doc_id=pl.Series(["z", "b"]))
    adopted = _adopt(
        AdoptConfig(num_negatives=1),
        given=given,
        queries=queries_of("q1"),
        positives=positives_of(("q1", "pa", "pa")),
        irrelevant=said,
    )
    found = adopted["candidates"].sort("rank").select("doc_id", "retriever", "score")
    assert found.rows() == [("a", "given", None), ("b", "people", 0.5), ("z", "people", None)]
    assert adopted["negatives"]["doc_id"].to_list() == ["a"]
    assert adopted["reserve"].sort("rank")["doc_id"].to_list() == ["b", "z"]


def test_the_default_decides_stage_keys_and_stays_as_it_is() -> None:
    assert settings_of(AdoptConfig) == {"num_negatives": (None, ">=1")}
