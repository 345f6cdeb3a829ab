"""The report's part on the given labels: what is in doubt, and that nothing is edited."""

from pathlib import Path

from tasks import schemas
from tasks.report import checks as checks_module
from tasks.report.checks import sum_up_checks
from tasks.report.report import ReportConfig, report
from tests.tasks.records import mutable_records
from tests.tasks.report.tables import empty_tables, rows, summed

DECISIONS = rows(
    schemas.VERDICTS,
    *[("d", f"q{n}", f"p{n}", "cascade", "j", state, score, None, None, "c", 1)
      for n, (state, score) in enumerate((("relevant", 0.9), ("unsure", 0.4), ("unsure", 0.1), ("unparsed", None)))],
)  # fmt: skip
QUERIES = rows(schemas.QUERY_CHECKS, ("d", "q1", "unsure", "no positive found relevant", 1, 0, 4, 1))


def test_positives_and_queries_in_doubt_are_counted_and_the_least_likely_come_first() -> None:
    found = sum_up_checks(DECISIONS, QUERIES)
    assert (found.positives, found.doubted, found.unparsed) == (4, 2, 1)
    assert [row["doc_id"] for row in found.examples] == ["p2", "p1"]
    assert found.as_json()["unclear_queries"] == {"no positive found relevant": 1}
    assert found.sentences == [
        "Of 4 positives that were put to a judge, 2 are in doubt (`unsure`) and 1 have no readable answer. They stay "
        "positives until people say otherwise.",
        "1 queries have no clear answer: no positive found relevant.",
    ]
    assert sum_up_checks(DECISIONS.iter_slices(1), QUERIES.iter_slices(1)) == found
    nothing = sum_up_checks(schemas.VERDICTS.empty(), schemas.QUERY_CHECKS.empty())
    assert nothing.sentences == []


def test_the_page_shows_them_only_where_the_labels_are_checked(tmp_path: Path) -> None:
    report(ReportConfig(), out=tmp_path, **summed(empty_tables()), positive_checks=DECISIONS, query_checks=QUERIES)
    page = (tmp_path / "report.html").read_text()
    assert "Positives in doubt" in page
    assert "Queries without a clear answer" in page
    assert '"doubted": 2' in (tmp_path / "summary.json").read_text()
    report(ReportConfig(), out=tmp_path, **summed(empty_tables()))
    assert "The labels that came with the data" not in (tmp_path / "report.html").read_text()


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(checks_module) == set()
