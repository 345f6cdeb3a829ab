"""Tallies: what is counted in a query part, and under which names."""

import polars as pl

from tasks import schemas
from tasks.report.parts.tallies import (
    count_decisions,
    count_edits,
    count_verdicts,
    count_windows,
    tallies,
    tally,
    together,
)
from tasks.summaries import TALLIES
from tests.tasks.report.tables import rows, toy_tables, verdicts


def test_rows_are_counted_by_columns_or_by_what_is_computed_of_them() -> None:
    frame = pl.DataFrame({"a": ["x", "x", "y"], "b": ["1", "2", "2"]})
    made = together([tallies("s", frame, "a", "b"), tallies("t", frame, "a", pl.lit("all")), tally("u", 7, "of")])
    assert dict(made.schema) == TALLIES.columns
    assert made.rows() == [
        ("s", "x", "1", 1), ("s", "x", "2", 1), ("s", "y", "2", 1), ("t", "x", "all", 2), ("t", "y", "all", 1),
        ("u", "of", "", 7),
    ]  # fmt: skip
    assert together([]).equals(TALLIES.empty())


def test_verdicts_are_counted_by_judge_and_by_what_was_passed_on() -> None:
    asked = verdicts("llm", ("q1", "d2", "relevant", 0.95), ("q2", "d3", "unparsed", None))
    strong = verdicts("strong", ("q1", "d2", "relevant", 0.9))
    imported = verdicts("imported", ("q1", "d3", "relevant", 1.0))
    said = pl.concat([imported, asked, strong])
    tables = toy_tables()
    judges = [("similarity", tables["similarity"]), ("imported", imported), ("llm", asked), ("strong", strong)]
    assert together(count_verdicts(tables["candidates"], judges, said)).rows() == [
        ("asked", "", "", 2),
        ("candidates", "", "", 4),
        ("imported", "", "", 1),
        ("judges", "imported", "judge", 1), ("judges", "llm", "judge", 2), ("judges", "strong", "judge", 1),
        ("passed", "imported", "llm", 0), ("passed", "llm", "strong", 1), ("passed", "similarity", "imported", 1),
    ]  # fmt: skip


def test_decisions_are_counted_by_dataset_and_state_and_those_of_the_source_apart() -> None:
    decisions = toy_tables()["decisions"]
    by_source = decisions.with_columns(
        judge=pl.when(pl.col("doc_id") == "d3").then(pl.lit("human:source")).otherwise("judge")
    )
    found = together(count_decisions(by_source))
    assert found.filter(pl.col("subject") == "labelled")["count"].to_list() == [2]
    assert found.filter(pl.col("subject") == "decided").select("of", "kind", "count").rows() == [
        ("toy", state, 1) for state in ("not_relevant", "relevant", "unparsed", "unsure")
    ]


def test_edits_are_counted_by_what_became_of_the_pair_and_dropped_queries_once() -> None:
    edits = rows(
        schemas.EDITS,
        *[("a", "q1", doc, "pool", "dropped", "judge", "relevant", 0.9) for doc in ("d1", "d2")],
        ("b", "q1", "d1", "pool", "positive", "judge", "relevant", 0.9),
    )
    assert together(count_edits(edits)).rows() == [
        ("dropped", "", "", 1), ("edited", "a", "dropped", 2), ("edited", "b", "positive", 1),
    ]  # fmt: skip
    assert together(count_edits(schemas.EDITS.empty()))["count"].to_list() == [0]


def test_a_verdict_on_no_window_and_a_window_of_no_verdict_are_not_counted() -> None:
    windows = rows(schemas.WINDOWS, ("toy", "q1", "d2", "llm", 3, 800, 1700, 2500, 200, 425),
                   ("toy", "q1", "gone", "llm", 1, 0, 9, 9, 0, 3))  # fmt: skip
    said = verdicts("llm", ("q1", "d2", "relevant", 0.95), ("q2", "d3", "unparsed", None))
    found = {kind: count for _, _, kind, count in together(count_windows(windows, said, 300)).iter_rows()}
    assert found == {"verdicts": 1, "long": 1, "further": 1, "relevant": 1, "partly": 1}
    unknown = together(count_windows(windows, said, None))
    assert set(unknown["kind"]) == {"verdicts", "long", "further", "relevant"}
