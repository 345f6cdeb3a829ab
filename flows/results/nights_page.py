"""The nights as a table: the cells of a row, and the section in the report of the curation's folder."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.results.computed_by import replace_text
from flows.results.history import Record
from tasks.formatting import percent
from tasks.quality.drift import CASCADE

_SHOWN = 14  # nights in the report
_PLACE = "<main>\n"
COLUMNS = (
    "night", "curation", "candidates", "new", "false negatives (95%)", "calls", "tokens", "money", "gold, right",
    "gold, changed", "κ gold", "κ people", "nDCG@10 default → relabel", "alarms",
)  # fmt: skip
LEFT_ALIGNED = ("night", "curation", "alarms")


def add_to_report(report: Path, records: Sequence[Record]) -> None:
    """Insert the last nights, and the alarms of the last one, at the top of a report in the curation's folder.

    The page in the store does not change: it would have to be made again every night for this section.
    """
    if records:
        add_section(report, _section(records))


def add_section(report: Path, section: str) -> None:
    """Insert a section at the top of a report; a page without a place for it stays as it is."""
    page = report.read_text(encoding="utf-8")
    if _PLACE in page:
        replace_text(report, page.replace(_PLACE, _PLACE + section, 1))


def _section(records: Sequence[Record]) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in night_cells(record)) + "</tr>\n"
        for record in records[-_SHOWN:]
    )
    heads = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in COLUMNS)
    alarms = "".join(
        f"<li><span><b>{html.escape(alarm['message'])}.</b> {html.escape(alarm['advice'])}</span></li>\n"
        for alarm in records[-1]["alarms"]
    )
    changed = "".join(f"<p>{html.escape(change)}.</p>\n" for change in records[-1].get("origin_changes", ()))
    return (
        '<section id="nights" aria-labelledby="h-nights">\n<h2 id="h-nights">The nights</h2>\n'
        + (f'<ol class="takeaways" id="alarms">\n{alarms}</ol>\n' if alarms else "<p>No drift was found tonight.</p>\n")
        + changed
        + '<div class="scroll" tabindex="0" role="region" aria-label="The last nights">\n<table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n</section>\n\n"
    )


def night_cells(record: Record) -> list[str]:
    """Return the cells of a night's row, one per column."""
    cost, shared = record["cost"], record["false_negatives"]
    gold = ((record["gold"] or {}).get("tiers") or {}).get(CASCADE, {})
    people: dict[str, Any] = next((row for row in record["people"] if row["tier"] == CASCADE), {})
    new = (record["mix"]["new"] or {}).get(CASCADE, {}).get("states", {})
    money = cost["money"]
    scores = record["ndcg10"] or {}
    return [
        record["night"],
        record["curation"],
        f"{record['candidates']:,}",
        "?" if record["mix"]["new"] is None else f"{sum(new.values()):,}",
        "–"
        if shared["share"] is None
        else f"{percent(shared['share'])} ({percent(shared['low'])} to {percent(shared['high'])})",
        f"{cost['calls']:,}",
        f"{cost['prompt_tokens'] + cost['output_tokens']:,}",
        "?" if money is None else f"{money:,.4g} {cost['currency']}" if money else "0",
        _number(gold.get("accuracy")),
        _number(record.get("churn", {}).get(CASCADE)),
        _number(gold.get("kappa")),
        _number(people.get("kappa")),
        _trained(scores),
        ", ".join(f"{alarm['kind']} {alarm['tier']}" for alarm in record["alarms"]) or "–",
    ]


def _trained(scores: Mapping[str, float | None]) -> str:
    """Show the score of the default data, and that of the treatment that was trained on beside it."""
    if not any(scores.values()):
        return "–"
    others = [name for name in ("relabel", *scores) if name != "default" and scores.get(name) is not None]
    shown = others[0] if others else "relabel"
    named = "" if shown == "relabel" else f" ({shown})"
    return f"{_number(scores.get('default'), 3)} → {_number(scores.get(shown), 3)}{named}"


def _number(value: Any, digits: int = 2) -> str:  # noqa: ANN401 - a figure of a record, or None
    return "–" if value is None else f"{value:.{digits}f}"
