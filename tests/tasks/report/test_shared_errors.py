"""The report's part on judges: by whom they are measured, and what it warns of."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from tasks import schemas, summaries
from tasks.report import shared_errors as shared_errors_module
from tasks.report.report import ReportConfig, report
from tasks.report.shared_errors import CommonErrors, find_common_errors, say_passed_on
from tests.tasks.records import mutable_records
from tests.tasks.report.tables import empty_tables, rows, summed, sums_of

PAIRS = 60


def verdicts(tier: str, states: Sequence[str], judge: str = "j") -> pl.DataFrame:
    return rows(
        schemas.VERDICTS,
        *[("d", f"q{n // 2}", f"p{n}", tier, judge, state, 0.5, None, None, None, 1) for n, state in enumerate(states)],
    )


CANDIDATES = rows(
    schemas.CANDIDATES, *[("d", f"q{n // 2}", f"p{n}", f"t{n}", "h", "p", "dense", n % 10, 0.5) for n in range(PAIRS)]
)
LENGTHS = rows(summaries.LENGTHS, *[("d", f"q{n // 2}", f"p{n}", 4) for n in range(PAIRS)])
TRUE = ["relevant", "not_relevant"] * (PAIRS // 2)
WRONG = ["not_relevant" if n < 12 and n % 2 == 0 else state for n, state in enumerate(TRUE)]  # misses 6 of 30


def find(decisions: pl.DataFrame, known: pl.DataFrame | None = None, **tiers: pl.DataFrame) -> CommonErrors:
    similarity = tiers.pop("similarity", schemas.VERDICTS.empty())
    tables = empty_tables() | {
        "candidates": CANDIDATES,
        "similarity": similarity,
        "llm_verdicts": pl.concat(tiers.values()),
        "decisions": decisions,
        "lengths": LENGTHS,
        "known": schemas.KNOWN.empty() if known is None else known,
    }
    return find_common_errors(("similarity", *tiers), sums_of(tables, tiers=tuple(tiers)))


def test_judges_are_measured_by_people_before_known_pairs_before_the_last_tier() -> None:
    weak, strong, last = verdicts("weak", WRONG), verdicts("strong", WRONG), verdicts("last", TRUE)
    known = CANDIDATES.filter(pl.Series(TRUE) == "relevant").select("dataset", "query_id", "doc_id")
    machine, people = verdicts("cascade", TRUE), verdicts("cascade", TRUE, judge="human:1")
    for decisions, given, by, pairs in (
        (people, known, "people", PAIRS), (machine, known, "known", 30), (machine, None, "last", PAIRS),
    ):  # fmt: skip
        common = find(decisions, given, weak=weak, strong=strong, last=last)
        (row,) = (r for r in common.rows if r["kind"] == "all" and (r["first"], r["second"]) == ("weak", "strong"))
        assert (common.measured_by, row["pairs"], row["both_wrong"]) == (by, pairs, 6 / pairs)
    assert find(machine, weak=weak, strong=strong).rows == ()  # the last one measures, and one is left
    source = verdicts("cascade", TRUE, judge="human:source")
    assert find(source, weak=weak, strong=strong, last=last).measured_by == "last"


def test_a_judge_that_decides_nothing_has_no_errors() -> None:
    people = verdicts("cascade", TRUE, judge="human:2")
    undecided = verdicts("similarity", ["unsure"] * PAIRS)
    common = find(people, similarity=undecided, weak=verdicts("weak", WRONG), strong=verdicts("strong", WRONG))
    assert {(row["first"], row["second"]) for row in common.rows} == {("weak", "strong")}


def test_judges_that_are_surely_wrong_together_are_named() -> None:
    people = verdicts("cascade", TRUE, judge="human:1")
    common = find(people, weak=verdicts("weak", WRONG), strong=verdicts("strong", WRONG))
    assert common.sentences == [
        "weak and strong are wrong together on 10% of 60 pairs, by chance it would be 2.0%: their agreement proves "
        "less than it seems."
    ]
    right = find(people, weak=verdicts("weak", WRONG), strong=verdicts("strong", TRUE))
    assert right.sentences == []


def test_a_tier_that_passes_on_too_much_is_warned_of() -> None:
    similarity = verdicts("similarity", TRUE)
    some, few = verdicts("llm", TRUE).head(40), verdicts("strong", TRUE).head(10)
    judges, tables = ("similarity", "llm", "strong"), {"similarity": similarity, "llm_verdicts": pl.concat([some, few])}
    sums = sums_of(empty_tables() | tables, tiers=judges[1:])
    (said,) = say_passed_on(judges, sums, {"llm": 0.5, "strong": 0.5})
    assert said.startswith("similarity passes 40 of 60 pairs (67%) on to llm, more than 50% (escalate.warn_share)")
    assert say_passed_on(judges, sums, {"llm": 0.7}) == []
    assert say_passed_on(judges, sums_of(empty_tables()), {"llm": 0.5}) == []


def test_the_page_shows_the_errors_in_common_and_the_warnings(tmp_path: Path) -> None:
    tables = empty_tables() | {
        "candidates": CANDIDATES,
        "lengths": LENGTHS,
        "similarity": verdicts("similarity", WRONG),
        "llm_verdicts": verdicts("llm", WRONG),
        "decisions": verdicts("cascade", TRUE, judge="human:1"),
    }
    config = ReportConfig(warn_shares={"llm": 0.5}, kinship=("one family",))
    report(config, out=tmp_path, **summed(tables))
    page = (tmp_path / "report.html").read_text()
    assert "Where two judges are wrong together" in page
    assert "By people’s labels." in page
    assert "Similarity, Language model" in page
    assert page.count("<b>Warning.</b>") == 3
    assert "escalate.warn_share" in (tmp_path / "summary.json").read_text()


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(shared_errors_module) == set()
