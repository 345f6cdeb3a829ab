"""The tables that commands print: stages, verdicts, tiers, estimated costs, releases."""

from typing import Any

from rich.console import Console
from rich.table import Table

from flows.cli.console import print_line
from flows.planning.plan import Plan, show_amount
from flows.results.output_folder import Result
from flows.results.promotion import Held, Release
from infra.stages.runner import StageRun


def show_result(result: Result, out: Console) -> None:
    """Print a summary of a result."""
    out.print(stage_table([stage_row(run) for run in result.runs], result.curation))
    summary = result.summary
    out.print(_verdict_table(summary))
    if summary.get("tiers"):
        out.print(_tier_table(summary["tiers"]))
    for line in summary.get("conclusions", []):
        out.print(line, markup=False, soft_wrap=True)
    for alarm in summary.get("alarms", []):
        out.print(f"drift: {alarm}", style="red", markup=False, soft_wrap=True)
    if result.promotion is not None:
        show_release(result.promotion, out)
    out.print(f"report: {result.folder / 'report.html'}", soft_wrap=True)


def show_release(done: Release | Held, out: Console) -> dict[str, Any]:
    """Print the outcome of a promotion in two lines; returns the entry `promotion` of the result's JSON."""
    if isinstance(done, Held):
        kept = f"release {done.current} stays" if done.current else "there is no release yet"
        print_line(out, f"not promoted: {done.curation}; {kept}")
        print_line(out, f"because: {done.because}")
    else:
        state = str(done.record["because"]) if done.new else "is current already"
        print_line(out, f"release {done.number} of {done.name} {state}: {done.record['curation']}, {done.prefix}")
        print_line(out, f"because: {done.record['why']}")
    return done.as_json()


def show_tier_plans(plan: Plan, out: Console) -> None:
    """Print how much each judge would be asked and its cost, with notes on what is uncertain."""
    table = Table("tier", "pairs are", title="what judging will cost", title_justify="left")
    for name in ("pairs", "calls", "of them known", "prompt tokens", "output tokens", "engine-hours", plan.currency):
        table.add_column(name, justify="right")
    for tier in plan.tiers:
        whole = (tier.pairs, tier.calls, tier.known, tier.prompt_tokens, tier.output_tokens)
        amounts = ("?" if value is None else show_amount(value) for value in (tier.hours, tier.money))
        table.add_row(tier.tier, tier.basis, *("?" if value is None else f"{value:,}" for value in whole), *amounts)
    out.print(table)
    for tier in plan.tiers:
        for note in tier.notes:
            print_line(out, f"{tier.tier}: {note}")
    for line in plan.budget:
        print_line(out, line)


def stage_row(run: StageRun) -> dict[str, Any]:
    """Return the row of one stage for tables and JSON."""
    return {
        "stage": run.name,
        "parts": run.parts,
        "reused": run.reused,
        "computed": run.computed,
        "failed": len(run.failed),
        "blocked": run.blocked,
        "rows": run.rows,
        "seconds": round(run.seconds, 1),
    }


def stage_table(rows: list[dict[str, Any]], title: str) -> Table:
    """Return a table of stages, with their sums."""
    table = Table(title=title, title_justify="left")
    for name in ("stage", "parts", "reused", "computed", "failed", "blocked", "rows", "seconds"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for row in rows:
        table.add_row(*(f"{value}" for value in row.values()))
    table.add_section()
    table.add_row("all", *(f"{sum(row[n] for row in rows):.0f}" for n in list(rows[0])[1:] if rows))
    return table


def _verdict_table(summary: Any) -> Table:  # noqa: ANN401 - the report's JSON
    table = Table(title="verdicts", title_justify="left")
    verdicts = summary["verdicts"]
    cells = {
        "queries": summary["queries"],
        "passages": summary["passages"],
        "candidates": summary["candidates"],
        **verdicts,
        "relabelled": summary["found"],
        "LLM calls": summary["llm_calls"],
    }
    for name in cells:
        table.add_column(name, justify="right")
    table.add_row(*map(str, cells.values()))
    return table


def _tier_table(tiers: list[dict[str, Any]]) -> Table:
    table = Table(title="how each tier finds the known false negatives", title_justify="left")
    for name in tiers[0]:
        table.add_column(name.replace("_", " "), justify="left" if name == "tier" else "right")
    for tier in tiers:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else "–" if v is None else str(v) for v in tier.values()))
    return table
