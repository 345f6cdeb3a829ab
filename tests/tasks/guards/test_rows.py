"""Rows that must not share a batch: by equal texts, by near duplicates, and no more pairs than wanted."""

import polars as pl

from tasks import schemas
from tasks.guards.config import RowsConfig
from tasks.guards.rows import group_uses, name_texts, pair_rows
from tasks.guards.tables import DO_NOT_BATCH, GROUPS, USES
from tests.tasks.guards.tables import DATASET, candidates_of, positives_of

ONE = RowsConfig()


def instances_of(rows: dict[str, tuple[list[str], list[str]]], dataset: str = DATASET) -> pl.DataFrame:
    full = [(dataset, query_id, *sides, "default", "h") for query_id, sides in rows.items()]
    return pl.DataFrame(full, schema=schemas.INSTANCES.columns, orient="row")


def uses_of(rows: dict[str, tuple[list[str], list[str]]], config: RowsConfig = ONE) -> list[tuple[int, pl.DataFrame]]:
    """The texts of rows; a passage's text is its id."""
    positives = positives_of((query_id, doc_id, doc_id) for query_id, (docs, _) in rows.items() for doc_id in docs)
    candidates = candidates_of((query_id, doc_id, doc_id) for query_id, (_, docs) in rows.items() for doc_id in docs)
    return list(name_texts(config, instances=instances_of(rows), positives=positives, candidates=candidates)["uses"])


def pairs_of(made: dict[str, pl.DataFrame]) -> list[tuple[str, str, str]]:
    return made["do_not_batch"].select("query_id", "other_query_id", "reason").rows()


ROWS = {
    "q1": (["a"], ["x", "b"]),
    "q2": (["b"], ["y"]),
    "q3": (["a", "c"], ["y"]),
    "q4": (["d"], ["a", "y"]),
}
EXPECTED = {
    ("q1", "q2", "negative_is_positive"),
    ("q1", "q3", "same_positive"),
    ("q4", "q1", "negative_is_positive"),
    ("q4", "q3", "negative_is_positive"),
}


def test_rows_with_a_text_in_common_that_is_a_positive_of_one_are_paired() -> None:
    ((_, uses),) = uses_of(ROWS)
    made = pair_rows(ONE, uses=uses)
    assert set(pairs_of(made)) == EXPECTED
    assert len(pairs_of(made)) == len(EXPECTED)
    assert made["do_not_batch"].schema == DO_NOT_BATCH.empty().schema
    counts = dict(made["figures"].filter(pl.col("measure") != "example").select("measure", "value").iter_rows())
    assert counts == {"same_positive": 1, "negative_is_positive": 3, "left_out": 0}
    assert set(made["figures"]["guard"]) == {"rows-default"}


def test_shards_make_no_difference() -> None:
    config = RowsConfig(shards=5)
    found = [pair for _, uses in uses_of(ROWS, config) for pair in pairs_of(pair_rows(config, uses=uses))]
    assert set(found) == EXPECTED
    assert len(found) == len(EXPECTED)


def test_near_duplicates_count_as_one_text() -> None:
    ((_, uses),) = uses_of({"q1": (["a"], []), "q2": (["b"], []), "q3": (["c"], ["b"])})
    numbers = dict(uses.filter(pl.col("role") == "positive").select("query_id", "text").iter_rows())
    low, high = sorted((numbers["q1"], numbers["q2"]))
    groups = pl.DataFrame([(low, low), (high, low)], schema=GROUPS.columns, orient="row")
    ((_, grouped),) = group_uses(ONE, uses=uses, groups=groups)["uses"]
    assert set(pairs_of(pair_rows(ONE, uses=grouped))) == {
        ("q1", "q2", "same_positive"),
        ("q3", "q1", "negative_is_positive"),
        ("q3", "q2", "negative_is_positive"),
    }


def test_a_row_is_never_paired_with_itself() -> None:
    ((_, uses),) = uses_of({"q1": (["a"], ["b"])})
    same = uses.with_columns(text=pl.lit(1, dtype=pl.Int64))
    made = pair_rows(ONE, uses=same)
    assert pairs_of(made) == []
    assert made["figures"]["value"].to_list() == [0, 0, 0]


def test_rows_of_two_datasets_with_one_positive_are_paired() -> None:
    ((_, uses),) = uses_of({"q1": (["a"], [])})
    both = pl.concat([uses, uses.with_columns(dataset=pl.lit("other"))])
    found = pair_rows(ONE, uses=both)["do_not_batch"]
    assert found.select("dataset", "other_dataset").rows() == [("d", "other")]


def test_of_many_rows_with_one_text_the_first_are_paired_and_the_rest_is_counted() -> None:
    ((_, uses),) = uses_of({f"q{number:03}": (["a"], []) for number in range(50)})
    made = pair_rows(RowsConfig(most_rows=10), uses=uses)
    assert len(pairs_of(made)) == 45
    counts = dict(made["figures"].select("measure", "value").iter_rows())
    assert counts["left_out"] == 50 * 49 // 2 - 45


def test_empty_tables_give_empty_tables() -> None:
    empty = {"positives": schemas.POSITIVES.empty(), "candidates": schemas.CANDIDATES.empty()}
    assert list(name_texts(ONE, instances=schemas.INSTANCES.empty(), **empty)["uses"]) == []
    assert list(group_uses(ONE, uses=USES.empty(), groups=GROUPS.empty())["uses"]) == []
    assert pair_rows(ONE, uses=USES.empty())["do_not_batch"].equals(DO_NOT_BATCH.empty())
