"""What the commands print: progress while a curation runs, tables afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flows.config import ConfigError, CurationConfig
from flows.curation import Curator, Hooks
from flows.job import Job
from flows.plan import Plan, plan_tiers, show_amount
from flows.releases import show_release
from flows.rerun import rerun_job
from flows.results import Result
from infra.settings import Settings
from infra.stages.compute_part import load_function
from infra.stages.runner import StageRun
from infra.storage.numbered_records import read_newest
from tasks.data.export import FORMATS


def execute(settings: Settings, config: CurationConfig, out: Console, err: Console) -> dict[str, Any]:
    """Run a curation with progress on the terminal; returns the JSON record of its result."""
    with _progress(err) as hooks:
        curator = Curator.open(settings, hooks)
        curation = curator.open_curation(config)
        err.print(f"curation [bold]{curation.id}[/bold] in {settings.store}", soft_wrap=True)
        result = curator.execute(curation)
    show_result(result, out)
    return result.as_json()


def resume(settings: Settings, curation_id: str, out: Console, err: Console) -> dict[str, Any]:
    """Go on with a recorded curation, with the labels that came in since; returns the JSON record of its result."""
    with _progress(err) as hooks:
        curator = Curator.open(settings, hooks)
        result = curator.execute(curator.load(curation_id))
    show_result(result, out)
    return result.as_json()


def rerun_part(
    settings: Settings, curation_id: str, target: tuple[str, int], out: Console, err: Console, *, downstream: bool
) -> dict[str, Any]:
    """Compute one part again, alone or with what follows from it."""
    with _progress(err) as hooks:
        curator = Curator.open(settings, hooks)
        curation = curator.load(curation_id)
        job = rerun_job(curator, curation, target, downstream=downstream)
        if downstream:
            result = curator.execute(curation, job)
        else:
            _, runs = curator.run(curation, job)
    if downstream:
        show_result(result, out)
        return result.as_json()
    out.print(_stage_table([_stage_row(runs[-1])], curation_id))
    _line(out, "What lies downstream was not computed; the curation itself, or --downstream, does that.")
    return {"curation": curation_id, "stage": target[0], "part": target[1], "parts": {"computed": runs[-1].computed}}


def further(settings: Settings, curation_id: str, job: Job, out: Console, err: Console) -> dict[str, Any]:
    """Do further work on a finished curation, and print the page it leaves."""
    with _progress(err) as hooks:
        curator = Curator.open(settings, hooks)
        done = curator.further(curator.load(curation_id), job)
    out.print(_stage_table([_stage_row(run) for run in done.runs], f"{curation_id}: {job.name}"))
    for page in sorted(done.folder.glob("*.md")):
        out.print(page.read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    out.print(f"pages: {done.folder}", soft_wrap=True)
    parts = {"computed": done.computed, "reused": done.reused}
    return {"curation": curation_id, "job": job.name, "parts": parts, "pages": str(done.folder)}


def show_plan(settings: Settings, config: CurationConfig, out: Console) -> dict[str, Any]:
    """Walk a curation without computing: what is finished, where work begins, and what each judge will cost."""
    curator = Curator.open(settings)
    draft = curator.draft(config)
    outcome, runs = curator.look(draft)
    rows = [_stage_row(run) for run in runs]
    out.print(_stage_table(rows, "plan"))
    if outcome is None and not runs[-1].unfinished:
        out.print("Enough of the sample must be labelled before the treatments; everything before is finished.")
    elif outcome is None:
        out.print(f"Work begins at [bold]{runs[-1].name}[/bold]; the stages after it depend on its result.")
    else:
        out.print("Nothing to compute: every part is finished.")
    plan = plan_tiers(curator, draft, runs)
    if plan.tiers:
        show_tier_plans(plan, out)
    return {"stages": rows, **plan.as_json()}


def show_tier_plans(plan: Plan, out: Console) -> None:
    """Print what the judges would be asked, and what is not certain about it."""
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
            _line(out, f"{tier.tier}: {note}")
    for line in plan.budget:
        _line(out, line)


def show_list(settings: Settings, out: Console) -> list[dict[str, Any]]:
    """List all curations with how their last execution ended."""
    curator = Curator.open(settings, write=False)
    rows = []
    table = Table("curation", "executions", "found", "parts computed", "reused", "report", title="curations")
    for name in curator.names():
        results = curator.results(name)
        last = results[-1] if results else {}
        parts = last.get("parts", {})
        rows.append({"curation": name, "executions": len(results), "last": last or None})
        cells = (last.get("found", "unfinished"), parts.get("computed", ""), parts.get("reused", ""))
        table.add_row(name, str(len(results)), *map(str, cells), str(last.get("report", "")))
    out.print(table if rows else f"no curation in {settings.store} yet; start one with `reneg curate CONFIG.yaml`")
    return rows


def show_status(settings: Settings, curation_id: str, out: Console) -> list[dict[str, Any]]:
    """Show every stage that can be told, with failures not repaired since."""
    curator = Curator.open(settings, write=False)
    curation = curator.load(curation_id)
    outcome, runs = curator.look(curation)
    if outcome is not None:
        rows = [_stage_row(run) for run in runs]
        out.print(_stage_table(rows, curation_id))
        out.print("finished")
        return rows
    # A failure is current while its part has no manifest; beyond the first unfinished stage nothing is known.
    open_parts = {run.name: run.unfinished for run in runs}
    failures = {
        (stage, number): reason
        for (stage, number), reason in curator.failures(curation_id).items()
        if number in open_parts.get(stage, {number})
    }
    rows = [_stage_row(run) | {"failed": sum(s == run.name for s, _ in failures)} for run in runs]
    out.print(_stage_table(rows, curation_id))
    last = runs[-1]
    if last.unfinished:
        out.print(f"unfinished: {last.name}, {len(last.unfinished)} of {last.parts} parts to compute")
    elif (waiting := read_newest(curator.store, f"curations/{curation_id}/waiting")) is not None:
        _line(out, waiting["message"])
    for (stage, number), reason in failures.items():
        out.print(f"  {stage} part {number}: {reason}", markup=False, soft_wrap=True)
        out.print(f"    reneg rerun {curation_id} --stage {stage} --part {number} --downstream", soft_wrap=True)
    return rows


def export_to(settings: Settings, curation_id: str, format_: str, treatment: str, folder: Path, out: Console) -> None:
    """Write one treatment of a finished curation in one format to a folder."""
    if format_ not in FORMATS:
        raise ConfigError(f"unknown format {format_!r}; known: {', '.join(FORMATS)}")
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise ConfigError(f"{folder} holds files already; give another folder with --out")
    curator = Curator.open(settings, write=False)
    curation = curator.load(curation_id)
    tables = curator.training_set(curation, treatment)
    folder.mkdir(parents=True, exist_ok=True)
    config = curation.config.export.model_copy(update={"formats": (format_,)})
    load_function("tasks.data.export:export")(config, **tables, out=folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        out.print(str(path), soft_wrap=True)


def show_result(result: Result, out: Console) -> None:
    """Print the report in short."""
    out.print(_stage_table([_stage_row(run) for run in result.runs], result.curation))
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


def _stage_row(run: StageRun) -> dict[str, Any]:
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


def _stage_table(rows: list[dict[str, Any]], title: str) -> Table:
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


@contextmanager
def _progress(err: Console) -> Iterator[Hooks]:
    """Show one bar per stage with work; on a pipe, one line per stage instead."""
    if not err.is_terminal:
        used: dict[str, str] = {}

        def on_usage_line(totals: Mapping[str, Mapping[str, float]], currency: str) -> None:
            text = usage_line(totals, currency)
            if text and used.get("last") != text:
                used["last"] = text
                _line(err, text)

        yield Hooks(
            on_message=lambda text: _line(err, text),
            on_stage=lambda run: _line(err, run.line()),
            on_usage=on_usage_line,
        )
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bars:
        known: dict[str, Any] = {}

        def on_part(stage: str, done: int, total: int) -> None:
            if stage not in known:
                known[stage] = bars.add_task(stage, total=total)
            bars.update(known[stage], completed=done)

        def on_usage(totals: Mapping[str, Mapping[str, float]], currency: str) -> None:
            text = usage_line(totals, currency)
            if text and "" not in known:
                known[""] = bars.add_task(text, total=None)
            if text:
                bars.update(known[""], description=text)

        yield Hooks(on_message=bars.console.print, on_part=on_part, on_usage=on_usage)


def usage_line(totals: Mapping[str, Mapping[str, float]], currency: str) -> str:
    """Say what the judges have used so far; empty while they have used nothing.

    >>> usage_line({"judge-llm": {"calls": 2, "prompt_tokens": 900, "cached_tokens": 0, "output_tokens": 100,
    ...     "seconds": 4.0, "money": 0.5, "priced": 1.0}}, "USD")
    'used: 2 calls, 1,000 tokens (250/s of engine time), 0.5 USD'
    """
    judges = [total for stage, total in totals.items() if total["calls"]]
    calls, seconds, money = (sum(total[name] for total in judges) for name in ("calls", "seconds", "money"))
    if not calls:
        return ""
    tokens = sum(total["prompt_tokens"] + total["output_tokens"] for total in judges)
    rate = f" ({tokens / seconds:,.0f}/s of engine time)" if seconds else ""
    unpriced = " and what has no price" if not all(total["priced"] for total in judges) else ""
    cost = f", {money:,.4g} {currency}{unpriced}" if money else ""
    return f"used: {calls:,.0f} calls, {tokens:,.0f} tokens{rate}{cost}"


def _line(err: Console, text: str) -> None:
    err.print(text, markup=False, soft_wrap=True)
