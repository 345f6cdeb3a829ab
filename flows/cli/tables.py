"""The tables that commands print: stages, verdicts, tiers, estimated costs, releases."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.console import print_line
from flows.planning.plan import Plan, show_amount
from flows.results.output_folder import Result
from flows.results.promotion import Held, Release
from infra.stages.runner import StageRun
from tasks.report.data_figures import NAMES, account
from tasks.report.describe import NEGATIVES, POSITIVES

_OF_A_STAGE = ("stage", "parts", "reused", "computed", "failed", "blocked", "rows", "seconds")  # as JSON has more
_MOST_DATASETS = 20  # with a row of their own


def show_result(result: Result, out: Console) -> None:
    """Print a summary of a result."""
    out.print(stage_table([stage_row(run) for run in result.runs], result.curation))
    summary = result.summary
    if summary.get("data"):
        show_data(summary["data"], out)
    out.print(_verdict_table(summary))
    if any(tier["known"] for tier in summary.get("tiers", [])):
        out.print(_tier_table(summary["tiers"]))
    for line in summary.get("conclusions", []):
        out.print(line, markup=False, soft_wrap=True)
    for warning in summary.get("warnings", []):
        out.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    for alarm in summary.get("alarms", []):
        out.print(f"drift: {alarm}", style="red", markup=False, soft_wrap=True)
    if result.promotion is not None:
        show_release(result.promotion, out)
    out.print(f"report: {result.folder / 'report.html'}", soft_wrap=True)
    if line := account(summary):
        out.print(line, style="yellow" if summary["rejects"]["by_reason"] else None, markup=False, soft_wrap=True)


def show_data(data: Mapping[str, Any], out: Console) -> None:
    """Print what the data looks like, each dataset in a row, and what was merged, cut and left out."""
    datasets = data["datasets"]
    if datasets:
        out.print(_spread_table(datasets[0]))
    if len(datasets) > 1:
        out.print(_dataset_table(datasets[1 : _MOST_DATASETS + 1]))
    if (more := len(datasets) - 1 - _MOST_DATASETS) > 0:
        print_line(out, f"{more} more datasets are in summary.json")
    counted = {name: data[name] for name in ("merged", "cut") if data[name]} | data["left_out"]
    for name, counts in counted.items():
        print_line(out, f"{name}: {', '.join(f'{reason} {count:,}' for reason, count in counts.items())}")


def _spread_table(row: Mapping[str, Any]) -> Table:
    queries = ", ".join(f"{count:,} {split}" for split, count in row["queries"].items()) or "no"
    title = f"data: {row['dataset']} ({queries} queries, {row['passages']:,} passages)"
    table = Table(title=Text(title), title_justify="left")
    for name in ("what", "counted", "smallest", "median", "largest"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for subject, name in NAMES.items():
        if spread := row.get(subject):
            table.add_row(name, *(f"{spread[key]:,}" for key in ("count", "min", "median", "max")))
    return table


def _dataset_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="by dataset: numbers, and the median of positives and negatives", title_justify="left")
    for name in ("dataset", "train", "dev", "test", "passages", "positives", "negatives"):
        table.add_column(name, justify="left" if name == "dataset" else "right")
    for row in rows:
        splits = (f"{row['queries'].get(split, 0):,}" for split in ("train", "dev", "test"))
        medians = (row[subject]["median"] if row[subject] else "–" for subject in (POSITIVES, NEGATIVES))
        table.add_row(Text(row["dataset"]), *splits, f"{row['passages']:,}", *map(str, medians))
    return table


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
    """Print how much each encoder and judge would be asked and its cost, with notes on what is uncertain."""
    if plan.encoders:
        _show_encoder_plans(plan, out)
    if not plan.tiers:
        print_line(out, "similarity judges alone (the configuration has no tiers), so judging costs no calls")
        _show_budget(plan, out)
        return
    table = Table("tier", "pairs are", title="what judging will cost", title_justify="left")
    for name in ("pairs", "calls", "of them known", "prompt tokens", "output tokens", "engine-hours", plan.currency):
        table.add_column(name, justify="right")
    for tier in plan.tiers:
        whole = (tier.pairs, tier.calls, tier.known, tier.prompt_tokens, tier.output_tokens)
        amounts = ("?" if value is None else show_amount(value) for value in (tier.hours, tier.money))
        table.add_row(tier.tier, tier.basis, *("?" if value is None else f"{value:,}" for value in whole), *amounts)
    out.print(table)
    for tier in plan.tiers:
        for note in (*(["no pair was left open for it"] if tier.pairs == 0 else []), *tier.notes):
            print_line(out, f"{tier.tier}: {note}")
    _show_budget(plan, out)


def _show_encoder_plans(plan: Plan, out: Console) -> None:
    table = Table("encoder", title="what encoding by endpoints will cost", title_justify="left")
    for name in ("texts", "of them known", "requests", "tokens", "engine-hours", plan.currency):
        table.add_column(name, justify="right")
    for one in plan.encoders:
        whole = (one.texts, one.known, one.requests, one.prompt_tokens)
        amounts = ("?" if value is None else show_amount(value) for value in (one.hours, one.money))
        table.add_row(one.encoder, *("?" if value is None else f"{value:,}" for value in whole), *amounts)
    out.print(table)
    for one in plan.encoders:
        for note in one.notes:
            print_line(out, f"{one.encoder}: {note}")


def _show_budget(plan: Plan, out: Console) -> None:
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
        "read_bytes": run.read_bytes,
        "peak_gib": run.peak_gib,
    }


def stage_table(rows: list[dict[str, Any]], title: str) -> Table:
    """Return a table of stages, with their sums."""
    table = Table(title=title, title_justify="left")
    for name in _OF_A_STAGE:
        table.add_column(name, justify="left" if name == "stage" else "right")
    for row in rows:
        table.add_row(*(f"{row[name]}" for name in _OF_A_STAGE))
    table.add_section()
    table.add_row("all", *(f"{sum(row[n] for row in rows):.0f}" for n in _OF_A_STAGE[1:] if rows))
    return table


def made_again_table(treatments: Mapping[str, Any], title: str) -> Table:
    """Return a table of what each treatment made, beside what it made before where that differs."""
    table = Table("treatment", title=f"{title}: treatments made again", title_justify="left")
    for name in next(iter(treatments.values()))["now"]:
        table.add_column(name.replace("_", " "), justify="right")
    for treatment, counts in treatments.items():
        now, before = counts["now"], counts["before"] or counts["now"]
        cells = (f"{before[n]:,} → {now[n]:,}" if before[n] != now[n] else f"{now[n]:,}" for n in now)
        table.add_row(treatment if counts["before"] else f"{treatment} (new)", *cells)
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
    columns = [name for name in tiers[0] if not name.endswith(("_low", "_high"))]
    for name in columns:
        table.add_column(name.replace("_", " "), justify="left" if name == "tier" else "right")
    for tier in tiers:
        table.add_row(*(_tier_cell(tier, name) for name in columns))
    return table


def _tier_cell(tier: Mapping[str, Any], name: str) -> str:
    """Write a figure of a tier, with its 95% interval where it has one."""
    value, low, high = tier[name], tier.get(f"{name}_low"), tier.get(f"{name}_high")
    if not isinstance(value, float):
        return "–" if value is None else str(value)
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.2f} to {high:.2f})"
