"""The nights as people read them: a table, and a section at the head of the laid out report."""

import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.cli.release_commands import show_history
from flows.results.nights_page import add_to_report
from infra.storage.numbered_records import keep_next
from infra.storage.store import Store

ALARM = {"kind": "gold", "tier": "llm", "message": "gold set, <llm>: 40% right", "advice": "Pin a dated model."}


def record(night: int, **changes: Any) -> dict[str, Any]:
    states = {"cascade": {"states": {"relevant": 3, "not_relevant": 97}, "effect": 1.5}}
    return {
        "name": "nq",
        "curation": f"nq-{night:06d}",
        "night": f"2026-03-{night:02d}",
        "at": f"2026-03-{night:02d}T02:30:00+00:00",
        "candidates": 1000 * night,
        "false_negatives": {"share": 0.031, "low": 0.02, "high": 0.05},
        "cost": {"calls": 12, "prompt_tokens": 900, "output_tokens": 100, "money": 0.5, "currency": "USD"},
        "gold": {"items": "x", "tiers": {"cascade": {"accuracy": 0.91, "kappa": 0.82}}},
        "people": [{"tier": "cascade", "kappa": 0.5}],
        "mix": {"every": {}, "new": states},
        "ndcg10": {"default": 0.4, "relabel": 0.45},
        "alarms": [],
        **changes,
    }


def test_a_row_holds_what_a_person_asks_of_a_night(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    unknown = record(2, gold=None, people=[], ndcg10={}, alarms=[ALARM], mix={"every": {}, "new": None})
    unknown["cost"]["money"] = None
    other = record(3, ndcg10={"default": 0.4, "relabel": None, "remove_hn": 0.47})
    for row in (record(1), unknown, other):
        keep_next(store, f"history/nq/{row['curation']}", row)
    out = Console(file=io.StringIO(), width=250)
    assert [row["night"] for row in show_history(store, None, out)] == [f"2026-03-0{n}" for n in (1, 2, 3)]
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    first = next(line for line in printed.splitlines() if "2026-03-01" in line)
    for cell in ("1,000", "100", "3.1% (2.0% to 5.0%)", "12", "0.5 USD", "0.91", "0.82", "0.50", "0.400 → 0.450"):
        assert cell in first
    second = next(line for line in printed.splitlines() if "2026-03-02" in line)
    assert second.count("?") == 2
    assert "0.400 → 0.470 (remove_hn)" in printed
    assert "gold llm" in second
    assert "2026-03-02 nq-000002: gold set, <llm>: 40% right" in printed


def test_the_section_of_the_report_is_escaped_well_formed_and_put_in_once(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<html><body><main>\n<p>page</p></main></body></html>")
    add_to_report(report, [record(1), record(2, alarms=[ALARM])])
    page = report.read_text()
    assert "&lt;llm&gt;" in page
    assert page.index('id="nights"') < page.index("<p>page</p>")
    assert page.count("<tr>") == 3
    open_tags: list[str] = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Nesting().feed(page)
    assert open_tags == []
    other = tmp_path / "other.html"
    other.write_text("no such place")
    add_to_report(other, [record(1)])
    add_to_report(report, [])
    assert (other.read_text(), report.read_text()) == ("no such place", page)


def test_a_change_of_what_computed_the_night_stands_beside_the_alarms(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<main>\n</main>")
    change = "Since the night before, judge-llm was computed by [vllm 1, <A>]; now by [vllm 2]"
    add_to_report(report, [record(1, origin_changes=["earlier"]), record(2, alarms=[ALARM], origin_changes=[change])])
    page = report.read_text()
    assert "<p>Since the night before, judge-llm was computed by [vllm 1, &lt;A&gt;]; now by [vllm 2].</p>" in page
    assert "earlier" not in page
