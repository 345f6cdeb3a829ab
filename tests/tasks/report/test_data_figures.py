"""The figures of the data: spreads from counts, and what was merged, cut and left out."""

import statistics

from hypothesis import given
from hypothesis import strategies as st

from tasks import schemas
from tasks.rejects import LeftOut
from tasks.report.data_figures import account, closing_line, sum_up_data, table_of_rejects
from tests.tasks.report.tables import rich_tables, rows

REJECTS = rows(
    schemas.REJECTS,
    ("ingest", "a:2", "duplicate_query", "again"),
    ("ingest", "a:3", "duplicate_text", "again"),
    ("ingest", "d/q", "passage_cut", "30000"),
    ("ingest", "a:4", "no_id", "none"),
    ("ingest", "a:5", "near_test_query", "like q1"),
    ("mine", "d/q", "few_negatives", "1 of 7"),
    ("mine", "d/r", "few_negatives", "2 of 7"),
)


def test_each_dataset_and_all_of_them_have_their_figures() -> None:
    found = sum_up_data(rich_tables()["counts"], schemas.REJECTS.empty())
    assert [row["dataset"] for row in found["datasets"]] == ["all", "set0", "set1", "set2"]
    every, first = found["datasets"][:2]
    assert every["queries"] == {"train": 9, "test": 12}
    assert every["passages"] == 120
    assert first["queries"] == {"train": 1, "test": 4}
    assert first["query_chars"] == {"count": 5, "total": 62, "min": 10, "median": 13, "max": 13}
    assert first["negatives_per_query"] == {"count": 6, "total": 6, "min": 0, "median": 1, "max": 2}
    assert first["negative_score"] == {"count": 6, "total": 2.625, "min": 0.438, "median": 0.438, "max": 0.438}
    assert first["negative_rank"] is None


def test_one_dataset_is_not_shown_twice() -> None:
    counts = rich_tables()["counts"].filter(dataset="set1")
    assert [row["dataset"] for row in sum_up_data(counts, schemas.REJECTS.empty())["datasets"]] == ["set1"]


def test_merged_cut_and_left_out_are_told_apart() -> None:
    found = sum_up_data(schemas.COUNTS.empty(), REJECTS)
    assert found == {
        "datasets": [],
        "merged": {"duplicate_query": 1, "duplicate_text": 1},
        "cut": {"passage_cut": 1},
        "left_out": {"ingest": {"near_test_query": 1, "no_id": 1}, "mine": {"few_negatives": 2}},
    }


def test_losses_come_first_in_the_table() -> None:
    found = table_of_rejects(REJECTS)
    assert [(row["kind"], row["reason"], row["rows"]) for row in found] == [
        ("loss", "no_id", 1),
        ("choice", "near_test_query", 1),
        ("note", "duplicate_query", 1),
        ("note", "duplicate_text", 1),
        ("note", "passage_cut", 1),
        ("note", "few_negatives", 2),
    ]
    assert found[0]["says"] == "The row has no id."
    assert (found[5]["key"], found[5]["detail"]) == ("d/q", "1 of 7")


def test_the_closing_line_names_the_page() -> None:
    assert closing_line({"rejects": LeftOut(3, 2, {"no_id": 2}).as_dict()}) == (
        "ingest left out 2 of 3 rows: no_id 2 (see report.html)"
    )
    assert closing_line({"rejects": LeftOut(3).as_dict()}) == ""
    assert closing_line({}) == ""
    lost = {"rejects": LeftOut(3, 2, {"no_id": 2}).as_dict()}
    assert closing_line(lost, where="") == "ingest left out 2 of 3 rows: no_id 2"


def test_the_rows_are_accounted_for_also_if_none_is_left_out() -> None:
    lost = {"rejects": LeftOut(3, 2, {"no_id": 2}).as_dict()}
    assert account(lost) == closing_line(lost)
    assert account({"rejects": LeftOut(1200).as_dict()}) == "ingest read 1,200 rows and left out none"
    assert (account({}), account({"rejects": LeftOut().as_dict()})) == ("", "")


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_spreads_are_those_of_the_values_however_they_are_cut_into_parts(values: list[int]) -> None:
    parts = [("positives_per_query", "d", "train", float(value), 1) for value in values]
    (row,) = sum_up_data(rows(schemas.COUNTS, *parts), schemas.REJECTS.empty())["datasets"]
    assert row["positives_per_query"] == {
        "count": len(values),
        "total": sum(values),
        "min": min(values),
        "median": statistics.median_low(values),
        "max": max(values),
    }
