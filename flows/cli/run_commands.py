"""Commands that compute: `demo`, `curate`, `rerun`; `retrain`, `prune`, `validate`, `calibrate` on a finished one."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.console import ERR, OUT, CurationArgument, Json, Strict, Treatment, print_json, print_line, strictly
from infra.settings import Settings, read_settings

if TYPE_CHECKING:  # these take seconds to import: commands import them when they run
    from flows.config.curation import CurationConfig
    from flows.curation.lookup import Job

app = typer.Typer()
AskAgain = Annotated[
    bool,
    typer.Option(
        "--ask-again",
        help="Ask the judges anew instead of recalling what they answered. An interrupted run goes on with it.",
    ),
]


@app.command()
def demo(
    config: Annotated[Path | None, typer.Option(help="A configuration to use instead of the built-in one.")] = None,
) -> None:
    """Curate the documentation of installed libraries, where false negatives are known, and count those found.

    It takes minutes on two cores. The last line of standard output is one JSON object.
    """
    from flows.config.load import load_config

    path = config or Path(__file__).parents[1] / "config" / "demo.yaml"
    result = run_curation(read_settings(), load_config(path), OUT, ERR)
    print_json(result)


@app.command()
def curate(
    config: Annotated[Path, typer.Argument(help="The YAML configuration of the curation.")],
    strict: Strict = False,
    ask_again: AskAgain = False,
    repartition: Annotated[
        bool,
        typer.Option(
            "--repartition",
            help="Cut the source into parts anew, as if it were read for the first time. All parts are computed again; "
            "answers are recalled.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a whole curation, from the source to the report. Finished parts are reused."""
    from flows.config.load import load_config

    asked = strictly(load_config(config), strict=strict)
    result = run_curation(read_settings(), asked, OUT, ERR, ask_again=ask_again, repartition=repartition)
    if as_json:
        print_json(result)


@app.command()
def rerun(
    curation: CurationArgument,
    stage: Annotated[str | None, typer.Option(help="The stage, as `reneg status` names it.")] = None,
    part: Annotated[int | None, typer.Option(min=0, help="The part's number.")] = None,
    downstream: Annotated[
        bool, typer.Option("--downstream", help="Also compute the parts that read its result.")
    ] = False,
    ask_again: AskAgain = False,
    as_json: Json = False,
) -> None:
    """Compute one part again. Without `--downstream`, the parts that depend on it are not computed again.

    With `--ask-again` and no part, all judges of the curation are asked again, and what depends on them is computed.
    """
    if stage is None or part is None:
        if not ask_again or stage is not None or part is not None or downstream:
            raise typer.BadParameter("give --stage and --part, or --ask-again alone")
        result = resume_curation(read_settings(), curation, OUT, ERR, ask_again=True)
    else:
        target = (stage, part)
        result = rerun_part(read_settings(), curation, target, OUT, ERR, downstream=downstream, ask_again=ask_again)
    if as_json:
        print_json(result)


@app.command()
def treat(
    curation: CurationArgument,
    treatment: Annotated[
        list[Treatment] | None, typer.Option(help="Treatment to make; may be repeated. Default: those it made.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of `treat` or `export`: treat.max_false_negatives=3. May be repeated."),
    ] = None,
    relevant_from: Annotated[
        float | None, typer.Option(min=0, max=1, help="The same as --set treat.relevant_from=…")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write. Default: `treat` in the curation's folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the treatments and exports of a finished curation again from its verdicts. Nothing is judged or encoded."""
    changes = [*(change or []), *([] if relevant_from is None else [f"treat.relevant_from={relevant_from}"])]
    record = make_again(read_settings(), curation, [t.value for t in treatment or []], changes, out, OUT)
    if as_json:
        print_json(record)


@app.command()
def retrain(
    curation: CurationArgument,
    treatment: Annotated[
        list[Treatment] | None,
        typer.Option(help="Treatment to train; give the baseline first. May be repeated. Default: `train_on`."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each treatment, each with another seed.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps. Default: as configured.")] = None,
    as_json: Json = False,
) -> None:
    """Train again with several seeds on each treatment of a finished curation, and compare the treatments."""
    from flows.method.afterwards.retrain import RetrainConfig, retrain_method

    wanted = RetrainConfig(
        treatments=tuple(t.value for t in treatment) if treatment else None, seeds=seeds, steps=steps
    )
    _further(curation, "retrain", partial(retrain_method, wanted=wanted), as_json=as_json)


@app.command()
def prune(  # noqa: PLR0913, PLR0917 - each option is an argument
    curation: CurationArgument,
    treatment: Annotated[Treatment, typer.Option(help="Treatment whose training set is used.")] = Treatment.relabel,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Dataset to leave out; may be repeated. Default: each in turn.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each mix of datasets, each with another seed.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps. Default: as configured.")] = None,
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy",
            help="Drop the worst dataset by the development queries, then the next, as long as they get better. "
            "Default: drop what is shown to hurt.",
        ),
    ] = False,
    idle: Annotated[bool, typer.Option("--idle", help="Also drop what is shown to teach nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train without each source dataset in turn, report which make the model worse, and train without these."""
    from flows.method.afterwards.prune import PruneConfig, prune_method

    wanted = PruneConfig(
        treatment=treatment.value,
        datasets=tuple(dataset) if dataset else None,
        seeds=seeds,
        steps=steps,
        greedy=greedy,
        idle=idle,
    )
    _further(curation, "prune", partial(prune_method, wanted=wanted), as_json=as_json)


@app.command()
def validate(curation: CurationArgument, as_json: Json = False) -> None:
    """Measure how far people and judges agree on the sample."""
    from flows.method.afterwards.validate import ValidateConfig, validate_method

    _further(curation, "validate", partial(validate_method, wanted=ValidateConfig()), as_json=as_json)


@app.command()
def calibrate(
    curation: CurationArgument,
    labels_from: Annotated[
        str,
        typer.Option(
            "--from",
            help="people, known (false negatives known in advance), a tier whose verdicts count as labels, or data "
            "(queries with several positives). Default: the first of these with enough labels.",
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Also write the calibration to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Fit what turns the judges' scores into P(relevant), and measure it on queries that the fit did not see."""
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace
    from flows.method.afterwards.calibrate import Wanted
    from flows.runs.calibrate_curation import calibrate_curation

    workspace = Workspace.open(read_settings())
    command = shlex.join(["reneg", "calibrate", curation, *(["--from", labels_from] if labels_from else [])])
    made = calibrate_curation(workspace, load_curation(workspace.store, curation), Wanted(labels_from, command), out)
    OUT.print(made.page, markup=False, soft_wrap=True)
    print_line(OUT, f"kept as {made.record}: use it with `calibration: latest`; page: {made.folder}")
    if out is not None:
        print_line(OUT, f"written: {out}; use it with `calibration: {out}`")
    if as_json:
        print_json(made.as_json())


def _further(curation: str, name: str, method: Callable[..., object], *, as_json: bool) -> None:
    from flows.curation.lookup import Job

    again = shlex.join(["reneg", *sys.argv[1:]])
    done = work_on(read_settings(), curation, Job(name, method, again=again), OUT, ERR)
    if as_json:
        print_json(done)


def run_curation(
    settings: Settings,
    config: "CurationConfig",
    out: Console,
    err: Console,
    *,
    ask_again: bool = False,
    repartition: bool = False,
) -> dict[str, Any]:
    """Run a curation with progress on the terminal; returns the JSON record of its result."""
    from flows.cli.progress import progress
    from flows.cli.tables import show_result
    from flows.curation.prepare import keep_partition
    from flows.curation.records import open_curation
    from flows.curation.workspace import Workspace
    from flows.runs.execute import execute, execute_again
    from flows.runs.servers import in_own_flow_run, keep_servers

    with progress(err) as hooks, keep_servers():
        workspace = Workspace.open(settings, hooks)
        curation = open_curation(workspace, config, own_file=True)
        err.print(f"curation [bold]{curation.id}[/bold] in {settings.store}", soft_wrap=True)
        if repartition:
            keep_partition(workspace, curation, anew=True)
        run = execute_again if ask_again else execute
        result = run(workspace, curation, in_own_flow_run)
    show_result(result, out)
    return result.as_json()


def resume_curation(
    settings: Settings, curation: str, out: Console, err: Console, *, ask_again: bool = False
) -> dict[str, Any]:
    """Continue a recorded curation with the labels imported since; returns the JSON record of its result."""
    from flows.cli.progress import progress
    from flows.cli.tables import show_result
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace
    from flows.runs.execute import execute, execute_again
    from flows.runs.servers import in_own_flow_run, keep_servers

    with progress(err) as hooks, keep_servers():
        workspace = Workspace.open(settings, hooks)
        run = execute_again if ask_again else execute
        result = run(workspace, load_curation(workspace.store, curation), in_own_flow_run)
    show_result(result, out)
    return result.as_json()


def rerun_part(  # noqa: PLR0913 - each option is an argument
    settings: Settings,
    curation_id: str,
    target: tuple[str, int],
    out: Console,
    err: Console,
    *,
    downstream: bool,
    ask_again: bool = False,
) -> dict[str, Any]:
    """Compute one part again, alone or with the parts downstream; returns a JSON record."""
    from flows.cli.progress import progress
    from flows.cli.tables import show_result, stage_row, stage_table
    from flows.curation.prepare import prepare
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace
    from flows.runs.ask_again import close_order, open_order
    from flows.runs.execute import do_job, execute, rerun_job
    from flows.runs.servers import in_own_flow_run, keep_servers

    with progress(err) as hooks, keep_servers():
        workspace = Workspace.open(settings, hooks)
        curation = load_curation(workspace.store, curation_id)
        job = rerun_job(workspace, curation, target, downstream=downstream)
        if ask_again:
            job = replace(job, since=open_order(workspace, curation_id, target))
        if downstream:
            result = execute(workspace, curation, in_own_flow_run, job)
        else:
            _, runs = do_job(workspace, prepare(workspace, curation), job, in_own_flow_run)
        if ask_again:
            close_order(workspace.store, curation_id, job.since, target)
    if downstream:
        show_result(result, out)
        return result.as_json()
    out.print(stage_table([stage_row(runs[-1])], curation_id))
    print_line(out, "Parts downstream were not computed. Run the curation, or give --downstream, to compute them.")
    return {"curation": curation_id, "stage": target[0], "part": target[1], "parts": {"computed": runs[-1].computed}}


def make_again(
    settings: Settings,
    curation_id: str,
    treatments: Sequence[str],
    changes: Sequence[str],
    folder: Path | None,
    out: Console,
) -> dict[str, Any]:
    """Make treatments of a finished curation again and print what differs from before; returns a JSON record."""
    from flows.cli.tables import made_again_table
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace
    from flows.runs.treat_curation import treat_curation

    workspace = Workspace.open(settings)
    curation = load_curation(workspace.store, curation_id)
    laid = treat_curation(workspace, curation, treatments=treatments, changes=changes, out=folder)
    record = {"curation": curation_id, **laid.as_json()}
    out.print(made_again_table(record["treatments"], curation_id))
    print_line(out, f"written: {laid.folder}; no judge and no encoder was asked")
    return record


def work_on(settings: Settings, curation: str, job: "Job", out: Console, err: Console) -> dict[str, Any]:
    """Do further work on a finished curation, and print its page; returns a JSON record."""
    from flows.cli.progress import progress
    from flows.cli.tables import stage_row, stage_table
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace
    from flows.runs.execute import work_further
    from flows.runs.servers import in_own_flow_run

    with progress(err) as hooks:
        workspace = Workspace.open(settings, hooks)
        done = work_further(workspace, load_curation(workspace.store, curation), in_own_flow_run, job)
    out.print(stage_table([stage_row(run) for run in done.runs], f"{curation}: {job.name}"))
    for page in sorted(done.folder.glob("*.md")):
        out.print(page.read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    out.print(f"pages: {done.folder}", soft_wrap=True)
    parts = {"computed": done.computed, "reused": done.reused}
    return {"curation": curation, "job": job.name, "parts": parts, "pages": str(done.folder)}
