"""Verdicts from a file: how rows are checked, found by their ids, and turned into states."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks import schemas
from tasks.quality.scores import (
    COLUMNS,
    FILE,
    ScoresConfig,
    SplitConfig,
    name_judge,
    read_scores,
    settle_scores,
    split_scores,
)
from tasks.summaries import SCORE_ROWS

NO_ROWS = SCORE_ROWS.empty()
CONFIG = ScoresConfig(tier="strong", judge="file:p:probability")


def rows(*values: tuple[str | None, str | None, Any]) -> pl.LazyFrame:
    kind = pl.String if any(isinstance(value, str) for *_, value in values) else pl.Float64
    schema = {"dataset": pl.String, "query_id": pl.String, "doc_id": pl.String, "value": kind}
    return pl.LazyFrame([("d", *row) for row in values], schema=schema, orient="row")


def pairs(*ids: tuple[str, str]) -> pl.DataFrame:
    full = [("d", *one, f"hash-{one[1]}", f"hash-{one[0]}", "p", "dense", 1, 0.5) for one in ids]
    return pl.DataFrame(full, schema=schemas.CANDIDATES.columns, orient="row")


def read(folder: Path, config: ScoresConfig, table: pl.DataFrame, *ids: tuple[str, str], **changes: Any) -> Any:
    """Cut the file into rows of parts, each query in a part of its own, and look the pairs of each part up."""
    table.write_parquet(folder / FILE)
    names = sorted({query for query, _ in ids})
    queries = pl.DataFrame(
        [("d", query, "text", "hash", "train", part) for part, query in enumerate(names)],
        schema={**schemas.QUERIES.columns, "part": pl.Int32},
        orient="row",
    )
    inputs = {"copies": schemas.COPIES.empty(), "queries": queries, **changes}
    split = split_scores(SplitConfig(), source=folder, **inputs)
    rows = dict(split["rows"])
    assert all(dict(found.schema) == SCORE_ROWS.columns for found in rows.values())
    made = [
        read_scores(config, escalated=pairs(*(one for one in ids if one[0] == query)), rows=rows.get(part, NO_ROWS))
        for part, query in enumerate(names)
    ] or [read_scores(config, escalated=pairs(), rows=NO_ROWS)]
    facts = {key: value for part in made for key, value in part["facts"].items() if not isinstance(value, int)}
    facts |= {key: sum(part["facts"][key] for part in made) for key in ("pairs", "unparsed", "under_other_ids")}
    return {"verdicts": pl.concat(part["verdicts"] for part in made), "facts": facts | split["facts"]}


def table(*values: tuple[str, str, float]) -> pl.DataFrame:
    return settle_scores(rows(*values), "logit", 3)[0]


def test_a_pair_that_the_file_lacks_is_unparsed_and_never_not_relevant(tmp_path: Path) -> None:
    made = read(tmp_path, CONFIG, table(("q1", "a", 0.9), ("q1", "b", 0.2)), ("q1", "a"), ("q1", "b"), ("q1", "c"))
    assert made["verdicts"].select("doc_id", "state", "score").rows() == [
        ("a", "relevant", 0.9),
        ("b", "not_relevant", 0.2),
        ("c", "unparsed", None),
    ]
    assert made["verdicts"].columns == list(schemas.VERDICTS.columns)
    assert set(made["verdicts"]["judge"]) == {"file:p:probability"}
    assert made["verdicts"]["call_id"].null_count() == 3
    facts = made["facts"]
    assert (facts["pairs"], facts["unparsed"], facts["failures"]) == (3, 1, {"not_in_file": 1})
    assert facts["not_in_file"] == "dataset d, query q1, document c"


def test_the_thresholds_of_the_judge_give_the_states(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"relevant_from": 0.9, "not_relevant_below": 0.2})
    held = table(("q", "a", 0.9), ("q", "b", 0.2), ("q", "c", 0.19))
    made = read(tmp_path, config, held, ("q", "a"), ("q", "b"), ("q", "c"))["verdicts"]
    assert made["state"].to_list() == ["relevant", "unsure", "not_relevant"]


def test_a_logit_becomes_a_probability(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"scale": "logit"})
    held = table(("q", "a", 0.0), ("q", "b", -800.0), ("q", "c", 800.0))
    made = read(tmp_path, config, held, ("q", "a"), ("q", "b"), ("q", "c"))["verdicts"]
    assert made["score"].to_list() == [0.5, 0.0, 1.0]


@pytest.mark.parametrize(("least", "most"), [(1, 1), (1, 3), (2, 3), (3, 3), (3, 4), (2, 10)])
def test_a_grade_gives_a_rising_score_that_is_a_half_or_more_exactly_from_the_relevant_grade_on(
    tmp_path: Path, least: int, most: int
) -> None:
    config = CONFIG.model_copy(update={"scale": "grade", "relevant_grade": least, "max_grade": most})
    grades = [n / 4 for n in range(4 * most + 1)]
    held = table(*(("q", f"{n:03}", grade) for n, grade in enumerate(grades)))
    made = read(tmp_path, config, held, *(("q", f"{n:03}") for n in range(len(grades))))["verdicts"]
    assert made["grade"].to_list() == grades
    scores = made["score"].to_list()
    assert all(0 < before < after < 1 for before, after in pairwise(scores))
    assert [score >= 0.5 for score in scores] == [grade >= least for grade in grades]
    assert [state == "relevant" for state in made["state"]] == [grade >= least for grade in grades]


def test_a_pair_is_found_under_the_ids_of_copies_and_its_own_id_comes_first(tmp_path: Path) -> None:
    copies = pl.DataFrame(
        [
            ("d", "query", "q9", "q1"),
            ("d", "passage", "b2", "b"),
            ("d", "passage", "b1", "b"),
            ("e", "passage", "x", "c"),
        ],
        schema=schemas.COPIES.columns,
        orient="row",
    )
    held = table(
        ("q9", "a", 0.7), ("q1", "b", 0.1), ("q1", "b1", 0.9), ("q2", "b2", 0.8), ("q2", "b1", 0.6), ("q1", "x", 1)
    )
    ids = (("q1", "a"), ("q1", "b"), ("q1", "c"), ("q2", "b"))
    made = read(tmp_path, CONFIG, held, *ids, copies=copies)
    assert made["verdicts"].select("query_id", "doc_id", "score").rows() == [
        ("q1", "a", 0.7),
        ("q1", "b", 0.1),
        ("q1", "c", None),
        ("q2", "b", 0.6),
    ]
    assert (made["facts"]["under_other_ids"], made["facts"]["unknown_queries"]) == (2, 0)


def test_rows_of_queries_that_the_data_does_not_hold_are_counted_and_one_is_named(tmp_path: Path) -> None:
    made = read(tmp_path, CONFIG, table(("q1", "a", 0.7), ("Q1", "a", 0.1)), ("q1", "a"))
    assert (made["facts"]["rows"], made["facts"]["unknown_queries"]) == (2, 1)
    assert made["facts"]["unknown_query"] == "dataset d, query Q1, document a"


def test_no_pair_at_all_gives_empty_verdicts(tmp_path: Path) -> None:
    made = read(tmp_path, CONFIG, table(("q1", "a", 0.7)))
    assert made["verdicts"].is_empty()
    assert made["verdicts"].schema == schemas.VERDICTS.empty().schema


def test_rows_that_cannot_be_used_are_counted_with_the_first_of_each_reason() -> None:
    given = rows(
        ("q", "a", "0.5"), ("q", "a", " 0.50"), ("q", "b", "0.1"), ("q", "b", "0.2"), ("q", "c", "1.5"),
        ("q", "d", "n/a"), ("q", "e", ""), ("q", None, "0.3"), ("", "f", "0.3"), ("q", "g", "nan"), ("q", "h", "-0.1"),
    )  # fmt: skip
    made, left_out = settle_scores(given, "probability", 3)
    assert made.rows() == [("d", "q", "a", 0.5)]
    assert made.schema == pl.Schema(COLUMNS)
    assert left_out == {
        "no_id": (2, "dataset d, query q, document None: '0.3'"),
        "no_score": (1, "dataset d, query q, document e: ''"),
        "not_a_number": (2, "dataset d, query q, document d: 'n/a'"),
        "out_of_range": (2, "dataset d, query q, document c: '1.5'"),
        "repeated": (1, "dataset d, query q, document a"),
        "several_scores": (2, "dataset d, query q, document b"),
    }


def test_a_grade_is_checked_against_the_highest_one_and_a_logit_may_be_any_number() -> None:
    given = rows(("q", "a", 4.0), ("q", "b", 3.0), ("q", "c", -7.5), ("q", "d", None), ("q", "e", float("inf")))
    assert settle_scores(given, "grade", 3)[0]["doc_id"].to_list() == ["b"]
    assert settle_scores(given, "grade", 4)[0]["doc_id"].to_list() == ["a", "b"]
    logits, left_out = settle_scores(given, "logit", 3)
    assert logits["doc_id"].to_list() == ["a", "b", "c"]
    assert {reason: count for reason, (count, _) in left_out.items()} == {"no_score": 1, "not_a_number": 1}


def test_the_judge_is_named_by_what_the_file_holds() -> None:
    assert name_judge("p", "logit", max_grade=3, relevant_grade=2) == "file:p:logit"
    assert name_judge("p", "grade", max_grade=3, relevant_grade=1) != name_judge(
        "p", "grade", max_grade=3, relevant_grade=2
    )


def test_the_rows_of_new_queries_are_cut_apart_and_only_what_no_generation_holds_is_unknown(tmp_path: Path) -> None:
    held = table(*((f"q{n}", "a", 0.5) for n in range(4)), ("copy", "a", 0.25), ("away", "a", 0.75))
    held.write_parquet(tmp_path / FILE)
    schema = {"dataset": pl.String, "query_id": pl.String, "part": pl.Int32}
    old, new = (
        pl.DataFrame([("d", f"q{n}", part) for n, part in rows], schema=schema, orient="row")
        for rows in ([(0, 0), (1, 1), (2, 0)], [(3, 2)])
    )
    copies = pl.DataFrame([("query", "d", "copy", "q1")], schema=["kind", "dataset", "id", "kept"], orient="row")

    def cut(**tables: pl.DataFrame) -> tuple[dict[int, list[Any]], dict[str, Any]]:
        made = split_scores(SplitConfig(), source=tmp_path, copies=copies, **tables)
        return {part: rows.rows() for part, rows in made["rows"]}, made["facts"]

    whole, facts = cut(queries=pl.concat([old, new]))
    first, _ = cut(queries=old)
    later, said = cut(queries=new, earlier=old)
    assert [sorted(rows) for rows in (first, later)] == [[0, 1], [2]]
    assert first | later == whole
    assert [row[5] for row in whole[1]] == [0.25, 0.5]
    assert said == facts == {"rows": 6, "unknown_queries": 1, "unknown_query": "dataset d, query away, document a"}
