"""Commands that show something and compute nothing: `plan`, `list`, `status`, `explain`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.console import OUT, CurationArgument, Json, print_json, print_line
from infra.settings import Settings, read_settings

if TYPE_CHECKING:  # these take seconds to import: commands import them when they run
    from flows.config.curation import CurationConfig
    from flows.curation.explain import Explanation

app = typer.Typer()


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="The YAML configuration of the curation.")], as_json: Json = False
) -> None:
    """Show what a curation would compute and reuse, and what judging would cost. Nothing is computed."""
    from flows.config.load import load_config

    record = show_plan(read_settings(), load_config(config), OUT)
    if as_json:
        print_json(record)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the curations of the store and their last results."""
    rows = show_list(read_settings(), OUT)
    if as_json:
        print_json(rows)


@app.command()
def status(curation: CurationArgument, as_json: Json = False) -> None:
    """Show each stage of a curation: parts finished, failed and waiting, with the reasons of failures."""
    rows = show_status(read_settings(), curation, OUT)
    if as_json:
        print_json(rows)


@app.command()
def explain(
    curation: CurationArgument,
    stage: Annotated[str, typer.Argument(help="The stage, as `reneg status` names it.")],
    part: Annotated[int, typer.Argument(min=0, help="The part's number.")],
    as_json: Json = False,
) -> None:
    """Show why a part was, or will be, computed and not reused: what differs from the nearest earlier part."""
    from flows.curation.explain import explain as find_reasons
    from flows.curation.workspace import Workspace

    record = show_explanation(find_reasons(Workspace.open(read_settings(), write=False), curation, stage, part), OUT)
    if as_json:
        print_json(record)


def show_plan(settings: Settings, config: "CurationConfig", out: Console) -> dict[str, Any]:
    """Print what of a curation is finished, where work begins, and what judging will cost; returns the JSON record."""
    from flows.cli.tables import show_tier_plans, stage_row, stage_table
    from flows.curation.lookup import look
    from flows.curation.prepare import prepare
    from flows.curation.records import draft_curation
    from flows.curation.workspace import Workspace
    from flows.planning.plan import plan_tiers

    workspace = Workspace.open(settings)
    setup = prepare(workspace, draft_curation(workspace, config))
    outcome, runs = look(workspace.store, setup)
    rows = [stage_row(run) for run in runs]
    out.print(stage_table(rows, "plan"))
    if outcome is None and not runs[-1].unfinished:
        out.print("Everything before the treatments is finished. Next, people must label enough of the sample.")
    elif outcome is None:
        out.print(f"Work begins at [bold]{runs[-1].name}[/bold]; the stages after it depend on its result.")
    else:
        out.print("Nothing to compute: every part is finished.")
    plan = plan_tiers(workspace, setup, runs)
    if plan.tiers:
        show_tier_plans(plan, out)
    return {"stages": rows, **plan.as_json()}


def show_list(settings: Settings, out: Console) -> list[dict[str, Any]]:
    """Print all curations with their last result; returns the rows."""
    from rich.table import Table

    from flows.curation.records import curation_names, results_of
    from infra.storage.store import Store

    store = Store.open(settings.store, write=False)
    rows = []
    table = Table("curation", "executions", "found", "parts computed", "reused", "report", title="curations")
    for name in curation_names(store):
        results = results_of(store, name)
        last = results[-1] if results else {}
        parts = last.get("parts", {})
        rows.append({"curation": name, "executions": len(results), "last": last or None})
        cells = (last.get("found", "unfinished"), parts.get("computed", ""), parts.get("reused", ""))
        table.add_row(name, str(len(results)), *map(str, cells), str(last.get("report", "")))
    out.print(table if rows else f"no curation in {settings.store} yet; start one with `reneg curate CONFIG.yaml`")
    return rows


def show_status(settings: Settings, curation_id: str, out: Console) -> list[dict[str, Any]]:
    """Print the stages of a curation up to the first unfinished one, with open failures; returns the rows."""
    from flows.cli.tables import stage_row, stage_table
    from flows.curation.lookup import look_at
    from flows.curation.records import failures_of, load_curation
    from flows.curation.workspace import Workspace
    from infra.storage.numbered_records import read_newest

    workspace = Workspace.open(settings, write=False)
    store = workspace.store
    outcome, runs = look_at(workspace, load_curation(store, curation_id))
    if outcome is not None:
        rows = [stage_row(run) for run in runs]
        out.print(stage_table(rows, curation_id))
        out.print("finished")
        return rows
    # A failure is open while its part has no manifest. Stages after the first unfinished one are not known.
    open_parts = {run.name: run.unfinished for run in runs}
    failures = {
        (stage, number): reason
        for (stage, number), reason in failures_of(store, curation_id).items()
        if number in open_parts.get(stage, {number})
    }
    rows = [stage_row(run) | {"failed": sum(s == run.name for s, _ in failures)} for run in runs]
    out.print(stage_table(rows, curation_id))
    last = runs[-1]
    if last.unfinished:
        out.print(f"unfinished: {last.name}, {len(last.unfinished)} of {last.parts} parts to compute")
    elif (waiting := read_newest(store, f"curations/{curation_id}/waiting")) is not None:
        print_line(out, waiting["message"])
    for (stage, number), reason in failures.items():
        out.print(f"  {stage} part {number}: {reason}", markup=False, soft_wrap=True)
        out.print(f"    reneg rerun {curation_id} --stage {stage} --part {number} --downstream", soft_wrap=True)
    return rows


def show_explanation(explanation: "Explanation", out: Console) -> dict[str, Any]:
    """Print an explanation; returns its JSON record."""
    out.print(explanation.headline, markup=False, soft_wrap=True)
    for reason in explanation.reasons:
        out.print(f"  {reason}", markup=False, soft_wrap=True)
    return asdict(explanation)
