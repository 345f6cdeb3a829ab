"""The result of a promotion as a section of the report: what got worse stands beside what got better."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.formatting import percent, signed

_HEADS = (
    "compared with",
    "queries of",
    "queries",
    "difference",
    "interval",
    "effect",
    "better on",
    "worse on",
    "check",
)
_WITH = {"score": "the baseline", "released": "the current release"}


def promotion_section(said: Mapping[str, Any]) -> str:
    """Return the section. said: the JSON of a promotion, or of a curation that was held."""
    checks: Sequence[Mapping[str, Any]] = said["checks"]
    compared = [check for check in checks if check.get("queries") is not None]
    others = [check for check in checks if check.get("queries") is None]
    title = "Promoted" if said["promoted"] else "Not promoted"
    lists = "".join(_side(compared, side) for side in ("worse", "better"))
    items = "".join(f"<li>{_mark(check)}: {html.escape(str(check['said']))}</li>\n" for check in others)
    return (
        f'<section id="promotion" aria-labelledby="h-promotion">\n<h2 id="h-promotion">{title}</h2>\n'
        f"<p>{html.escape(str(said['why']))}.</p>\n"
        + (f"{lists}{_table(compared)}" if compared else "")
        + (f"<ul>\n{items}</ul>\n" if items else "")
        + "</section>\n\n"
    )


def _side(compared: Sequence[Mapping[str, Any]], side: str) -> str:
    """List what got worse, or better, by the measured difference; it says of each whether the interval excludes 0."""
    found = [check for check in compared if (check["figure"] < 0 if side == "worse" else check["figure"] > 0)]
    lines = "".join(
        f"<li>{html.escape(_place(check))}: {signed(check['figure'])}{_shown(check, side)}</li>\n"
        for check in sorted(found, key=lambda check: -abs(check["figure"]))
    )
    return f"<h3>What got {side}</h3>\n" + (f"<ul>\n{lines}</ul>\n" if lines else "<p>Nothing.</p>\n")


def _shown(check: Mapping[str, Any], side: str) -> str:
    """Say whether chance explains it: for a dataset by its corrected p-value, for all of them by the interval."""
    is_shown = check.get("shown") == side
    if " of " not in check["name"] and check["low"] is not None:
        is_shown = check["high"] < 0 if side == "worse" else check["low"] > 0
    return "" if is_shown else " (not shown: it may be chance)"


def _table(compared: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(check)) + "</tr>\n" for check in compared
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="The comparisons of the promotion">\n<table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )


def _cells(check: Mapping[str, Any]) -> list[str]:
    interval = "–" if check["low"] is None else f"{signed(check['low'])} to {signed(check['high'])}"
    effect = "–" if check["effect"] is None else f"{check['effect']:.2f}".replace("-", "−")
    name, _, dataset = str(check["name"]).partition(" of ")
    return [
        _WITH.get(name, name),
        dataset or "all datasets",
        f"{check['queries']:,}",
        signed(check["figure"]),
        interval,
        effect,
        percent(check["better"] / check["queries"]),
        percent(check["worse"] / check["queries"]),
        _mark(check),
    ]


def _place(check: Mapping[str, Any]) -> str:
    name, _, dataset = str(check["name"]).partition(" of ")
    return f"{dataset or 'all datasets'}, against {_WITH.get(name, name)}"


def _mark(check: Mapping[str, Any]) -> str:
    return {True: "passed", False: "failed", None: "reported"}[check["passed"]]
