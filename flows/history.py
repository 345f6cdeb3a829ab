"""`reneg history`: the nights as a table, and as a section of the report that is laid out for people."""

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from flows.nights import Record, read_history, record_night
from infra.storage.store import Store
from tasks.formatting import percent
from tasks.quality.drift import CASCADE

if TYPE_CHECKING:
    from flows.curation import Curation, Curator
    from flows.results import Result

_SHOWN = 14  # nights in the report
_PLACE = "<main>\n"
_COLUMNS = (
    "night", "curation", "candidates", "new", "false negatives (95%)", "calls", "tokens", "money", "gold, right",
    "κ gold", "κ people", "nDCG@10 default → relabel", "alarms",
)  # fmt: skip
_LEFT = ("night", "curation", "alarms")


def show_history(store: Store, name: str | None, out: Console) -> list[Record]:
    """Print the finished nights, the oldest first; returns their records."""
    records = read_history(store, name)
    if not records:
        out.print(f"no finished night {'of ' + name if name else ''} in {store.url} yet", soft_wrap=True)
        return []
    table = Table(title="nights", title_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in _LEFT else "right")
    for record in records:
        table.add_row(*_cells(record))
    out.print(table)
    for record in records:
        for alarm in record["alarms"]:
            out.print(f"{record['night']} {record['curation']}: {alarm['message']}", markup=False, soft_wrap=True)
    return records


def finish_night(curator: "Curator", curation: "Curation", result: "Result") -> "Result":
    """Record a finished execution, and show the last nights in its report; returns the result with its alarms."""
    result = record_night(curator, curation, result)
    records = read_history(curator.store, curation.config.name)
    add_to_report(result.folder / "report.html", records)
    return result


def add_to_report(report: Path, records: Sequence[Record]) -> None:
    """Put the last nights, and the alarms of the last one, at the head of a report that is laid out.

    The page in the store stays what its tables make it: it is not made anew each night for the sake of this section.
    """
    page = report.read_text(encoding="utf-8")
    if _PLACE not in page or not records:
        return
    temporary = report.with_name(f".{report.name}.{os.getpid()}.tmp")
    temporary.write_text(page.replace(_PLACE, _PLACE + _section(records), 1), encoding="utf-8")
    temporary.replace(report)


def _section(records: Sequence[Record]) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(record)) + "</tr>\n"
        for record in records[-_SHOWN:]
    )
    heads = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in _COLUMNS)
    alarms = "".join(
        f"<li><span><b>{html.escape(alarm['message'])}.</b> {html.escape(alarm['advice'])}</span></li>\n"
        for alarm in records[-1]["alarms"]
    )
    return (
        '<section id="nights" aria-labelledby="h-nights">\n<h2 id="h-nights">The nights</h2>\n'
        + (f'<ol class="takeaways" id="alarms">\n{alarms}</ol>\n' if alarms else "<p>No drift was found tonight.</p>\n")
        + '<div class="scroll" tabindex="0" role="region" aria-label="The last nights">\n<table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n</section>\n\n"
    )


def _cells(record: Record) -> list[str]:
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
        _number(gold.get("kappa")),
        _number(people.get("kappa")),
        f"{_number(scores.get('default'), 3)} → {_number(scores.get('relabel'), 3)}" if any(scores.values()) else "–",
        ", ".join(f"{alarm['kind']} {alarm['tier']}" for alarm in record["alarms"]) or "–",
    ]


def _number(value: Any, digits: int = 2) -> str:  # noqa: ANN401 - a figure of a record, or None
    return "–" if value is None else f"{value:.{digits}f}"
