"""What was left out: losses, choices and remarks, counted and said."""

import re
from pathlib import Path

import polars as pl
import pytest

from tasks import schemas
from tasks.rejects import (
    REASONS,
    LeftOut,
    add_up_rejects,
    count_left_out,
    explain_losses,
    reason_of,
    sum_up,
    with_counts,
)

SOURCE = Path(__file__).parents[2] / "tasks"


def rejects(*rows: tuple[str, str, str], stage: str = "ingest") -> pl.DataFrame:
    return pl.DataFrame([(stage, *row) for row in rows], schema=schemas.REJECTS.columns, orient="row")


LOST = rejects(
    ("a.jsonl:2", "broken_json", "comma at column 5"),
    ("a.jsonl:3", "id_conflict", "id 0 has another text"),
    ("a.jsonl:3", "id_conflict", "id 1 has another text"),
    ("a.jsonl:3", "no_positive", "none is left"),
    ("a.jsonl:9", "near_test_query", "like q7"),
    ("d/q1", "query_cut", "30000 characters"),
)


def test_losses_choices_and_remarks_are_counted_apart_and_a_row_once() -> None:
    found = count_left_out(pl.concat([LOST, rejects(("d/q", "few_negatives", "1 of 7"), stage="mine")]), 10)
    assert found == LeftOut(
        rows_read=10,
        lost=2,
        by_reason={"id_conflict": 2, "broken_json": 1, "no_positive": 1},
        by_choice={"near_test_query": 1},
        notes={"query_cut": 1},
    )
    assert found.share == 0.2
    assert found.line() == (
        "ingest left out 2 of 10 rows: id_conflict 2, broken_json 1, no_positive 1; by its settings: near_test_query 1"
    )
    assert "near" not in found.line(losses_only=True)
    assert LeftOut.from_dict(found.as_dict()) == found
    assert found.as_dict()["rows_kept"] == 8


def test_what_ingest_counted_is_believed() -> None:
    assert count_left_out(LOST, 10, 7).lost == 3


def test_rejects_that_are_only_counted_count_as_many() -> None:
    more = rejects(("a:1", "no_id", "x"), ("more", "no_id", "41 more are not listed (ingest.limits.rejects is 1)"))
    found = count_left_out(more, 100)
    assert (found.lost, found.by_reason) == (42, {"no_id": 42})
    assert explain_losses(more).splitlines() == ["  no_id 42: The row has no id.", "    a:1: x"]


def test_a_reject_of_a_dataset_counts_its_queries() -> None:
    drawn = rejects(
        ("nq", "not_in_subset", "85 of 92 training queries are not drawn (ingest.subset)"),
        ("nq", "not_in_subset", "7 of 8 held-out queries are not drawn (ingest.subset)"),
    )
    assert count_left_out(drawn, 100).by_choice == {"not_in_subset": 92}
    assert with_counts(rejects(("d/q", "few_negatives", "5 of 7"), stage="mine"))["count"].to_list() == [1]


@pytest.mark.parametrize(
    ("left", "line", "share"),
    [
        (LeftOut(5), "", 0.0),
        (LeftOut(5, notes={"query_cut": 3}), "", 0.0),
        (LeftOut(5, 0, {"not_read": 2}), "ingest left out parts of rows or files: not_read 2", 0.0),
        (LeftOut(None, 2, {"no_id": 2}), "ingest left out 2 rows: no_id 2", 1.0),
        (LeftOut(5_000, 1_000, {"no_id": 1_000}), "ingest left out 1,000 of 5,000 rows: no_id 1,000", 0.2),
        (LeftOut(97, 0, {"broken_gzip": 1}), "ingest left out parts of rows or files: broken_gzip 1", 1.0),
        (LeftOut(9, 0, by_choice={"not_in_subset": 4}), "ingest left out by its settings: not_in_subset 4", 0.0),
    ],
)
def test_one_line_says_what_was_left_out_or_nothing(left: LeftOut, line: str, share: float) -> None:
    assert (left.line(), left.share) == (line, share)


def test_each_loss_is_explained_with_its_first_examples() -> None:
    assert explain_losses(LOST).splitlines() == [
        "  id_conflict 2: The id of the passage has another text elsewhere; that one is kept.",
        "    a.jsonl:3: id 0 has another text",
        "    a.jsonl:3: id 1 has another text",
        "  broken_json 1: The line is not JSON.",
        "    a.jsonl:2: comma at column 5",
        "  no_positive 1: The query has no usable positive.",
        "    a.jsonl:3: none is left",
    ]
    assert sum_up(LOST).startswith("2 id_conflict (first a.jsonl:3: id 0 has another text); 1 broken_json")


def test_a_reason_that_nobody_described_is_a_loss() -> None:
    assert count_left_out(rejects(("a:1", "odd", "x"))).by_reason == {"odd": 1}
    assert reason_of("odd").kind == "loss"


def test_every_reason_in_the_code_has_a_sentence() -> None:
    """A reason is the first text in snake case in a call that makes a reject."""
    made_by = r"(?:Problem|UnusableError|_?reject(?:_pairs)?|_report_cut|_distinct)"
    call = made_by + r'''\((?:[^()"]|\([^()]*\)|f"[^"]*")*?"([a-z]+_[a-z_]+)"'''
    constant = r"^(?:NO|FEW|SAME|UNKNOWN|AMBIGUOUS|HAS|KEPT|UNPARSED|NEGATIVE)[A-Z_]* = \"([a-z_]+)\"$"
    named: set[str] = set()
    for path in (*SOURCE.glob("*.py"), *SOURCE.glob("data/**/*.py"), *SOURCE.glob("mining/*.py")):
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(call, text)) | set(re.findall(constant, text, re.MULTILINE))
    assert len(named) > 25
    assert named - set(REASONS) == set()


def test_every_sentence_is_one() -> None:
    for name, reason in REASONS.items():
        assert re.fullmatch(r"[A-Z].*\.", reason.says), name


def test_rejects_are_added_up_by_stage_and_reason_and_those_of_ingest_stay_one_by_one() -> None:
    mined = rejects(("d/q2", "few_negatives", "2 of 7"), ("d/q1", "few_negatives", "1 of 7"), stage="mine")
    drawn = rejects(("nq", "not_in_subset", "85 of 92 training queries are not drawn (ingest.subset)"), stage="mine")
    whole = pl.concat([LOST, mined, drawn])
    for given in (whole, whole.iter_slices(1), [LOST, mined, drawn]):
        made = add_up_rejects(given)
        assert made.filter(pl.col("stage") == "mine").sort("reason").select("key", "detail", "count").rows() == [
            ("d/q1", "1 of 7", 2), ("nq", "85 of 92 training queries are not drawn (ingest.subset)", 85),
        ]  # fmt: skip
        assert made.filter(pl.col("stage") == "ingest").select(LOST.columns).equals(LOST)
        assert count_left_out(made, 10) == count_left_out(whole, 10)
        assert with_counts(made)["count"].sum() == with_counts(whole)["count"].sum()
    assert add_up_rejects([]).is_empty()
