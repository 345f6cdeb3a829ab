"""What the page says of a tier with a guarantee."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from tasks import schemas
from tasks.report.guarantee import sum_up_guarantee
from tests.tasks.report.tables import empty_tables, rows, sums_of, toy_tables
from tests.tasks.report.test_report import Page, render

ROW: dict[str, Any] = {
    "tier": "llm", "questions": 1000, "audited": 100, "accept": 0.8, "reject": 0.1, "accepted": 50, "rejected": 750,
    "found_rejected": 1, "found_wrong": 2, "asked": 200, "found": 60, "recall": 0.9, "precision": 0.8,
    "confidence": 0.95, "recall_bound": 0.905, "precision_bound": 0.822,
}  # fmt: skip


def guarantee(**changes: Any) -> pl.DataFrame:
    return pl.DataFrame([ROW | changes], schema=schemas.GUARANTEE.columns)


def test_what_was_saved_is_counted_in_questions_and_in_the_tokens_that_they_would_have_cost() -> None:
    verdicts = rows(schemas.VERDICTS, ("toy", "q1", "d1", "llm", "a-judge", "relevant", 0.9, None, None, "call", 1))
    calls = rows(schemas.CALLS, ("call", "a-judge", None, "Yes", "stop", 19_000, 1000, None))
    asked = sums_of(empty_tables() | {"llm_verdicts": verdicts, "calls": calls})
    found = sum_up_guarantee(guarantee(), asked, schemas.PEOPLE.empty())
    assert found is not None
    assert (found["saved"], found["asked_share"], found["tokens_saved"], found["met"]) == (800, 0.2, 80_000, True)
    assert found["people"] is None
    assert found["said"] == (
        "Target: recall 0.9 and precision 0.8 against what llm would say of all pairs. It was asked 200 of 1,000 "
        "questions (20%), 100 of them as an audit sample. Reached: a recall of at least 0.905 and a precision of at "
        "least 0.822, both with 95% confidence."
    )


def test_a_target_that_could_not_be_met_is_said_to_pass_everything_on() -> None:
    nothing = {"accept": None, "reject": None, "accepted": 0, "rejected": 0, "asked": 1000, "precision": None}
    found = sum_up_guarantee(guarantee(**nothing), sums_of(empty_tables()), schemas.PEOPLE.empty())
    assert found is not None
    assert (found["met"], found["saved"], found["tokens_saved"]) == (False, 0, None)
    assert found["said"] == (
        "The target (recall 0.9) could not be met with fewer questions: everything was passed on to llm, whose "
        "verdicts decide."
    )


def test_the_page_and_the_summary_show_it_and_the_estimate_against_people_beside_it(tmp_path: Path) -> None:
    figures = (0.5, 0.2, 0.7, 0.8, 0.6, 0.9, 0.71, 0.55, 0.83)
    people = rows(schemas.PEOPLE, ("cascade", 30, 4, 2, 28, *figures))
    page = Page(render(tmp_path, toy_tables() | {"guarantee": guarantee(), "people": people}))
    text = " ".join(page.text.split())
    assert "What the guarantee says" in text
    assert "rejected without asking" in text
    assert "below 0.100" in text
    assert "the recall of all decisions is estimated at 0.71 (0.55 to 0.83)" in text
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["guarantee"]["recall_bound"] == 0.905


def test_without_a_guarantee_nothing_is_said(tmp_path: Path) -> None:
    assert "What the guarantee says" not in Page(render(tmp_path, toy_tables())).text
    assert sum_up_guarantee(schemas.GUARANTEE.empty(), sums_of(empty_tables()), schemas.PEOPLE.empty()) is None
