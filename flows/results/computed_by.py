"""What computed a curation, in its folder: a section of the report and a field of `summary.json`.

The page and the summary in the store have none of it: their bytes, and so their keys, must not depend on the machine.
"""

import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.curation.origins import ComputedBy, mixtures
from infra.provenance import UNRECORDED

FIELD = "computed_by"
_PLACE = "</main>\n"


def add_to_folder(folder: Path, computed: ComputedBy) -> dict[str, Any]:
    """Add what computed a curation to the report and the summary in its folder; returns the summary."""
    report, summary = folder / "report.html", folder / "summary.json"
    page = report.read_text(encoding="utf-8")
    replace_text(report, page.replace(_PLACE, _section(computed) + _PLACE, 1))
    facts = {**json.loads(summary.read_text(encoding="utf-8")), FIELD: computed}
    replace_text(summary, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return facts


def replace_text(path: Path, text: str) -> None:
    """Write a text file in place of the old one, which a reader sees until the new one is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _section(computed: ComputedBy) -> str:
    mixed = {stage: made for stage, made in computed.items() if len(made["by"]) > 1}
    body = _table(mixed) if mixed else f"<p>{html.escape(_one_line(computed))}</p>\n"
    return (
        '<section id="computed-by" aria-labelledby="h-computed-by">\n<h2 id="h-computed-by">What computed it</h2>\n'
        f"{body}</section>\n"
    )


def _one_line(computed: ComputedBy) -> str:
    """Say it where each stage has one origin.

    >>> _one_line({"search": {"unit": "parts", "by": {"faiss 1; cpu: name A": 2}}})
    'No stage mixes results of different software or processors. faiss 1; cpu: name A (search).'
    """
    stages: dict[str, list[str]] = {}
    for stage, made in computed.items():
        for line in made["by"]:
            stages.setdefault(line, []).append(stage)
    unknown = stages.pop(UNRECORDED, [])
    first = "No stage mixes results of different software or processors."
    if unknown:
        first = f"It was not recorded what computed {', '.join(unknown)}: they may mix results of several."
    return " ".join([first, *(f"{line} ({', '.join(names)})." for line, names in stages.items())])


def _table(mixed: Mapping[str, Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html.escape(stage)}</th><td>{count:,} {made["unit"]}</td>'
        f'<td class="left wrap">{html.escape(line)}</td></tr>\n'
        for stage, made in mixed.items()
        for line, count in made["by"].items()
    )
    return (
        "<p>Some stages mix results of different software, processors or models of an endpoint. Scores may then differ "
        "a little between pairs for this reason alone.</p>\n"
        '<div class="scroll" tabindex="0" role="region" aria-label="What computed the mixed stages">\n<table>\n'
        '<thead><tr><th scope="col" class="left">Stage</th><th scope="col">Share</th>'
        f'<th scope="col" class="left">Computed by</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n'
    )


def mixed_markdown(computed: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown list of the stages that are mixed; empty if none is."""
    return "\n".join(f"- mixed: {sentence}" for sentence in mixtures(computed))
