"""Commands that compute: `demo`, `curate`, `rerun`; `retrain`, `prune`, `validate` on a finished curation."""

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.console import ERR, OUT, CurationArgument, Json, Treatment, print_json, print_line
from infra.settings import Settings, read_settings

if TYPE_CHECKING:  # these take seconds to import: commands import them when they run
    from flows.config.curation import CurationConfig
    from flows.curation.lookup import Job

app = typer.Typer()


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
    as_json: Json = False,
) -> None:
    """Run a whole curation, from the source to the report. Finished parts are reused."""
    from flows.config.load import load_config

    result = run_curation(read_settings(), load_config(config), OUT, ERR)
    if as_json:
        print_json(result)


@app.command()
def rerun(
    curation: CurationArgument,
    stage: Annotated[str, typer.Option(help="The stage, as `reneg status` names it.")],
    part: Annotated[int, typer.Option(min=0, help="The part's number.")],
    downstream: Annotated[
        bool, typer.Option("--downstream", help="Also compute the parts that read its result.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute one part again. Without `--downstream`, the parts that depend on it are not computed again."""
    result = rerun_part(read_settings(), curation, (stage, part), OUT, ERR, downstream=downstream)
    if as_json:
        print_json(result)


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
    from flows.method.retrain import RetrainConfig, retrain_method

    wanted = RetrainConfig(
        treatments=tuple(t.value for t in treatment) if treatment else None, seeds=seeds, steps=steps
    )
    _further(curation, "retrain", partial(retrain_method, wanted=wanted), as_json=as_json)


@app.command()
def prune(
    curation: CurationArgument,
    treatment: Annotated[Treatment, typer.Option(help="Treatment whose training set is used.")] = Treatment.relabel,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Dataset to leave out; may be repeated. Default: each in turn.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each mix of datasets, each with another seed.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps. Default: as configured.")] = None,
    as_json: Json = False,
) -> None:
    """Train without each source dataset in turn, and report which datasets make the model worse."""
    from flows.method.retrain import PruneConfig, prune_method

    wanted = PruneConfig(
        treatment=treatment.value, datasets=tuple(dataset) if dataset else None, seeds=seeds, steps=steps
    )
    _further(curation, "prune", partial(prune_method, wanted=wanted), as_json=as_json)


@app.command()
def validate(curation: CurationArgument, as_json: Json = False) -> None:
    """Measure how far people and judges agree on the sample."""
    from flows.method.validate import ValidateConfig, validate_method

    _further(curation, "validate", partial(validate_method, wanted=ValidateConfig()), as_json=as_json)


def _further(curation: str, name: str, method: Callable[..., object], *, as_json: bool) -> None:
    from flows.curation.lookup import Job

    again = shlex.join(["reneg", *sys.argv[1:]])
    done = work_on(read_settings(), curation, Job(name, method, again=again), OUT, ERR)
    if as_json:
        print_json(done)


def run_curation(settings: Settings, config: "CurationConfig", out: Console, err: Console) -> dict[str, Any]:
    """Run a curation with progress on the terminal; returns the JSON record of its result."""
    from flows.cli.progress import progress
    from flows.cli.tables import show_result
    from flows.curation.records import open_curation
    from flows.curation.workspace import Workspace
    from flows.runs.execute import execute
    from flows.runs.servers import in_own_flow_run

    with progress(err) as hooks:
        workspace = Workspace.open(settings, hooks)
        curation = open_curation(workspace, config)
        err.print(f"curation [bold]{curation.id}[/bold] in {settings.store}", soft_wrap=True)
        result = execute(workspace, curation, in_own_flow_run)
    show_result(result, out)
    return result.as_json()


def resume_curation(settings: Settings, curation: str, out: Console, err: Console) -> dict[str, Any]:
    """Continue a recorded curation with the labels imported since; returns the JSON record of its result."""
    from flows.cli.progress import progress
    from flows.cli.tables import show_result
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace
    from flows.runs.execute import execute
    from flows.runs.servers import in_own_flow_run

    with progress(err) as hooks:
        workspace = Workspace.open(settings, hooks)
        result = execute(workspace, load_curation(workspace.store, curation), in_own_flow_run)
    show_result(result, out)
    return result.as_json()


def rerun_part(
    settings: Settings, curation_id: str, target: tuple[str, int], out: Console, err: Console, *, downstream: bool
) -> dict[str, Any]:
    """Compute one part again, alone or with the parts downstream; returns a JSON record."""
    from flows.cli.progress import progress
    from flows.cli.tables import show_result, stage_row, stage_table
    from flows.curation.prepare import prepare
    from flows.curation.records import load_curation
    from flows.curation.workspace import Workspace
    from flows.runs.execute import do_job, execute, rerun_job
    from flows.runs.servers import in_own_flow_run

    with progress(err) as hooks:
        workspace = Workspace.open(settings, hooks)
        curation = load_curation(workspace.store, curation_id)
        job = rerun_job(workspace, curation, target, downstream=downstream)
        if downstream:
            result = execute(workspace, curation, in_own_flow_run, job)
        else:
            _, runs = do_job(workspace, prepare(workspace, curation), job, in_own_flow_run)
    if downstream:
        show_result(result, out)
        return result.as_json()
    out.print(stage_table([stage_row(runs[-1])], curation_id))
    print_line(out, "Parts downstream were not computed. Run the curation, or give --downstream, to compute them.")
    return {"curation": curation_id, "stage": target[0], "part": target[1], "parts": {"computed": runs[-1].computed}}


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
