"""The summary of a curation as Markdown: what the Prefect UI shows at the end of a flow run."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.results.computed_by import mixed_markdown
from tasks.formatting import percent
from tasks.rejects import reason_of
from tasks.report.data_figures import closing_line

_STATES = {
    "relevant": "false negatives",
    "not_relevant": "not relevant",
    "unsure": "unsure",
    "unparsed": "not readable",
}


def summary_markdown(result: Mapping[str, Any]) -> str:
    """Write the page of a result, from `Result.as_json()`, which contains `summary.json`.

    Two more keys are optional: `usage` (by stage, from `RemoteMeter.totals`) and `currency`. Missing facts are left
    out; a score that was not measured is shown as a dash.
    """
    sections = (
        _head(result),
        _conclusions(result.get("conclusions", ())),
        _left_out(result),
        _verdicts(result),
        _tiers(result.get("tiers", ())),
        _scores(result.get("ndcg10", {})),
        _cost(result),
        mixed_markdown(result.get("computed_by", {})),
        _foot(result),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(result: Mapping[str, Any]) -> str:
    return (
        f"# {result.get('curation', 'curation')}\n\n**{result.get('found', 0):,}** false negatives relabelled, "
        f"of {result.get('candidates', 0):,} candidates for {result.get('queries', 0):,} queries"
    )


def _conclusions(sentences: Any) -> str:  # noqa: ANN401 - whatever the summary holds
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _left_out(result: Mapping[str, Any]) -> str:
    """Say what ingest left out, with a table of the losses."""
    line = closing_line(result)
    losses = result.get("rejects", {}).get("by_reason", {})
    rows = [(name, f"{count:,}", reason_of(name).says) for name, count in losses.items()]
    return "\n\n".join(part for part in (line, _table(("lost", "number", "because"), rows)) if part)


def _verdicts(result: Mapping[str, Any]) -> str:
    verdicts, total = result.get("verdicts", {}), result.get("candidates", 0)
    rows = [(_STATES.get(s, s), f"{n:,}", percent(n / total) if total else "–") for s, n in verdicts.items()]
    return _table(("verdict", "candidates", "share"), rows)


def _tiers(tiers: Any) -> str:  # noqa: ANN401 - whatever the summary holds
    """Show how many of the known false negatives each tier found, if any are known."""
    rows = [
        (t["tier"], f"{t['known']:,}", f"{t['known_found']:,}", _share(t.get("recall")), _share(t.get("precision")))
        for t in tiers
        if t.get("known")
    ]
    return _table(("tier", "known false negatives", "of them found", "recall", "precision"), rows)


def _scores(scores: Mapping[str, float | None]) -> str:
    measured = [(name, f"{score:.4f}" if score is not None else "–") for name, score in scores.items()]
    return _table(("trained on", "nDCG@10"), measured if any(s is not None for s in scores.values()) else [])


def _cost(result: Mapping[str, Any]) -> str:
    usage, currency = result.get("usage", {}), result.get("currency", "")
    rows = [
        (
            stage,
            f"{used['calls']:,.0f}",
            f"{used['prompt_tokens']:,.0f}",
            f"{used['output_tokens']:,.0f}",
            f"{used['seconds']:,.0f}",
            f"{used['money']:,.2f} {currency}".strip() if used.get("priced") else "no price",
        )
        for stage, used in usage.items()
    ]
    if not rows:
        return f"{result['llm_calls']:,} calls to the language model" if "llm_calls" in result else ""
    return _table(("this run asked", "calls", "tokens read", "tokens written", "engine seconds", "cost"), rows)


def _foot(result: Mapping[str, Any]) -> str:
    parts, lines = result.get("parts"), []
    if parts:
        lines.append(f"{parts['computed']:,} parts computed, {parts['reused']:,} reused, {result['seconds']:,.0f} s")
    if report := result.get("report"):
        linked = f"[{report}]({report})" if "://" in str(report) else f"`{report}`"
        lines.append(f"Report: {linked}")
    return "  \n".join(lines)


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, tuple("---" if number == 0 else "---:" for number in range(len(head))), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Escape a name so that it cannot break the table."""
    return text.replace("|", "\\|").replace("\n", " ")
