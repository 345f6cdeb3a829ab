"""Commands that show something and compute nothing: `plan`, `judges`, `list`, `status`, `explain`."""

from collections.abc import Sequence
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
    from infra.stages.runner import StageRun
    from infra.storage.store import Store

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


@app.command()
def judges(as_json: Json = False) -> None:
    """List the judges that are ready to use, with licence, memory and expected speed: `tiers: [{preset: NAME}]`."""
    from flows.config.presets import load_preset, preset_names

    presets = {name: load_preset(name) for name in preset_names()}
    for name, preset in presets.items():
        about = preset.about
        print_line(OUT, f"{name}: {about.what}")
        for label, text in (("licence", about.licence), ("memory", about.memory), ("pairs/s", about.pairs_per_second)):
            print_line(OUT, f"  {label}: {text}")
        print_line(OUT, f"  quality: {about.quality}")
    if as_json:
        print_json({name: preset.model_dump(mode="json") for name, preset in presets.items()})


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
def stats(curation: CurationArgument, as_json: Json = False) -> None:
    """Show what the data looks like: queries, passages, positives, negatives, and what was merged, cut and left out.

    It works as soon as the negatives are mined, also while the curation is unfinished.
    """
    record = show_stats(read_settings(), curation, OUT)
    if as_json:
        print_json(record)


@app.command()
def explain(  # noqa: PLR0913, PLR0917 - arguments of a command
    curation: CurationArgument,
    stage: Annotated[str, typer.Argument(help="The stage, as `reneg status` names it.")] = "",
    part: Annotated[int, typer.Argument(min=0, help="The part's number.")] = 0,
    query: Annotated[str, typer.Option(help="With --doc: explain the decision on a pair instead.")] = "",
    doc: Annotated[str, typer.Option(help="The passage's id.")] = "",
    dataset: Annotated[str, typer.Option(help="Only needed where several datasets have these ids.")] = "",
    as_json: Json = False,
) -> None:
    """Show why a part was, or will be, computed and not reused: what differs from the nearest earlier part.

    With --query and --doc: what is known of a pair, what each judge said, P(relevant), and what was decided.
    """
    from flows.config.section import ConfigError
    from flows.curation.explain import explain as find_reasons
    from flows.curation.workspace import Workspace
    from flows.results.explain_pair import explain_pair

    if bool(stage) == bool(query and doc):
        raise ConfigError("explain: a stage and a part, or --query and --doc expected")
    workspace = Workspace.open(read_settings(), write=False)
    if query:
        pair = explain_pair(workspace, curation, query, doc, dataset)
        for line in pair.lines():
            print_line(OUT, line)
        record = asdict(pair)
    else:
        record = show_explanation(find_reasons(workspace, curation, stage, part), OUT)
    if as_json:
        print_json(record)


def show_plan(settings: Settings, config: "CurationConfig", out: Console) -> dict[str, Any]:
    """Print what of a curation is finished, where work begins, and what judging will cost; returns the JSON record."""
    from flows.cli.tables import show_tier_plans, stage_row, stage_table
    from flows.curation.lookup import look
    from flows.curation.prepare import prepare
    from flows.curation.records import draft_curation
    from flows.curation.workspace import Workspace
    from flows.method.losses import too_much_lost
    from flows.planning.plan import plan_tiers

    workspace = Workspace.open(settings)
    setup = prepare(workspace, draft_curation(workspace, config, own_file=True))
    outcome, runs = look(workspace.store, setup)
    rows = [stage_row(run) for run in runs]
    out.print(stage_table(rows, "plan"))
    if refused := too_much_lost(workspace.store, runs, config.ingest.max_rejected):
        print_line(out, f"A run stops after ingest. {refused}")
    elif outcome is None and not runs[-1].unfinished:
        out.print("Everything before the treatments is finished. Next, people must label enough of the sample.")
    elif outcome is None:
        out.print(f"Work begins at [bold]{runs[-1].name}[/bold]; the stages after it depend on its result.")
    else:
        out.print("Nothing to compute: every part is finished.")
    plan = plan_tiers(workspace, setup, runs)
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
    from flows.curation.records import failures_of, load_curation, results_of, say_unfinished
    from flows.curation.workspace import Workspace
    from flows.method.losses import too_much_lost
    from flows.runs.failures import after_a_change
    from infra.storage.numbered_records import read_newest

    workspace = Workspace.open(settings, write=False)
    store = workspace.store
    curation = load_curation(store, curation_id)
    outcome, runs = look_at(workspace, curation)
    if outcome is not None:
        rows = [stage_row(run) for run in runs]
        out.print(stage_table(rows, curation_id))
        out.print("finished")
        _show_left_out(workspace.store, runs, out)
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
    last, most = runs[-1], curation.config.ingest.max_rejected
    if stopped := too_much_lost(store, runs, most):
        print_line(out, stopped)
        return rows
    _show_left_out(store, runs, out)
    if last.unfinished:
        out.print(f"unfinished: {last.name}, {len(last.unfinished)} of {last.parts} parts to compute")
        if results_of(store, curation_id) and not failures:
            print_line(out, say_unfinished(store, curation_id))
    elif (waiting := read_newest(store, f"curations/{curation_id}/waiting")) is not None:
        print_line(out, waiting["message"])
    for (stage, number), reason in failures.items():
        out.print(f"  {stage} part {number}: {reason}", markup=False, soft_wrap=True)
        if change := after_a_change(reason):
            print_line(out, f"    {change}")
        out.print(f"    reneg rerun {curation_id} --stage {stage} --part {number} --downstream", soft_wrap=True)
    return rows


def _show_left_out(store: "Store", runs: "Sequence[StageRun]", out: Console) -> None:
    from flows.method.losses import left_out_of

    left = left_out_of(store, runs)
    if left is not None and (line := left.line()):
        print_line(out, line)


def show_stats(settings: Settings, curation_id: str, out: Console) -> dict[str, Any]:
    """Print what the data of a curation looks like; returns the JSON record."""
    from flows.cli.tables import show_data
    from flows.config.section import ConfigError
    from flows.curation.lookup import look_at
    from flows.curation.records import load_curation, results_of, say_unfinished
    from flows.curation.workspace import Workspace
    from flows.results.data_stats import data_of
    from flows.stages import REPORT
    from tasks.report.data_figures import account

    workspace = Workspace.open(settings, write=False)
    _, runs = look_at(workspace, load_curation(workspace.store, curation_id))
    record = data_of(workspace.store, runs)
    if record["rejects"] is None:
        if results_of(workspace.store, curation_id):
            raise ConfigError(say_unfinished(workspace.store, curation_id))
        raise ConfigError(f"{curation_id} has not read its source yet; see `reneg status {curation_id}`")
    show_data(record["data"], out)
    if not record["data"]["datasets"]:
        print_line(out, f"the data is counted once the negatives are mined; see `reneg status {curation_id}`")
    for line in record.get("checks", {}).get("sentences", []):
        print_line(out, line)
    if line := account(record, "report.html" if runs[-1].name == REPORT.name else ""):
        print_line(out, line)
    return {"curation": curation_id, **record}


def show_explanation(explanation: "Explanation", out: Console) -> dict[str, Any]:
    """Print an explanation; returns its JSON record."""
    out.print(explanation.headline, markup=False, soft_wrap=True)
    for reason in explanation.reasons:
        out.print(f"  {reason}", markup=False, soft_wrap=True)
    if explanation.failed is not None:
        out.print(f"  its last attempt failed: {explanation.failed}", markup=False, soft_wrap=True)
    for line in (*explanation.guarantee, *explanation.computed_by):
        out.print(f"  {line}", markup=False, soft_wrap=True)
    return asdict(explanation)
