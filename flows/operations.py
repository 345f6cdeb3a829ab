"""The commands of operations: what is deployed and served, run again, told to people, released, kept and removed."""

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flows.console import ERR, OUT, CurationArgument, Json, Treatment, print_json
from infra.settings import read_settings

operations = typer.Typer()


@operations.command()
def deploy(
    configs: Annotated[list[Path], typer.Argument(help="YAML configurations; each may hold a `nightly` schedule.")],
    pool: Annotated[str, typer.Option(help="The Prefect work pool (type process); made if it is not there.")] = "reneg",
    as_json: Json = False,
) -> None:
    """Register the deployments of these configurations on the Prefect server; run it again after a change."""
    from flows.config import load_config
    from flows.deploy import deploy as register

    done = register(read_settings(), [load_config(path) for path in configs], pool)
    for one in done:
        night = f": {one.schedule}, overlapping nights are {one.overlap}" if one.schedule else ""
        OUT.print(f"{one.name}{night}", soft_wrap=True)
    OUT.print("They run where `reneg serve` runs.")
    if as_json:
        print_json([one.__dict__ for one in done])


@operations.command()
def serve(
    pool: Annotated[str, typer.Option(help="The Prefect work pool whose runs are taken.")] = "reneg",
    limit: Annotated[int, typer.Option(min=1, help="Flow runs at a time.")] = 4,
) -> None:
    """Run what is deployed, as it is due, until stopped; without PREFECT_API_URL it keeps the embedded server up."""
    from flows.serve import Supervisor

    Supervisor(read_settings(), lambda text: ERR.print(text, soft_wrap=True), pool=pool, limit=limit).run()


@operations.command()
def rerun(
    curation: CurationArgument,
    stage: Annotated[str, typer.Option(help="The stage, as `reneg status` names it.")],
    part: Annotated[int, typer.Option(min=0, help="The part's number.")],
    downstream: Annotated[bool, typer.Option("--downstream", help="Then also what lies downstream of it.")] = False,
    as_json: Json = False,
) -> None:
    """Compute one part again: it alone, or with `--downstream` also what follows from it; the rest is reused."""
    from flows.terminal import rerun_part

    result = rerun_part(read_settings(), curation, (stage, part), OUT, ERR, downstream=downstream)
    if as_json:
        print_json(result)


@operations.command()
def retrain(
    curation: CurationArgument,
    treatment: Annotated[
        list[Treatment] | None, typer.Option(help="Which, the baseline first; may be repeated. Without it: `train_on`.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per treatment.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, instead of the configured ones.")] = None,
    as_json: Json = False,
) -> None:
    """Train a finished curation's treatments again over several seeds, and compare them by a paired test."""
    from flows.further import RetrainConfig, retrain_method

    wanted = RetrainConfig(
        treatments=tuple(t.value for t in treatment) if treatment else None, seeds=seeds, steps=steps
    )
    _further(curation, "retrain", partial(retrain_method, wanted=wanted), as_json=as_json)


@operations.command()
def prune(
    curation: CurationArgument,
    treatment: Annotated[Treatment, typer.Option(help="Whose instances are the training mix.")] = Treatment.relabel,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Which is left out in turn; may be repeated. Without it: each.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per mix of datasets.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, instead of the configured ones.")] = None,
    as_json: Json = False,
) -> None:
    """Leave each source dataset out of the training mix in turn, and say which of them hurt."""
    from flows.further import PruneConfig, prune_method

    wanted = PruneConfig(
        treatment=treatment.value, datasets=tuple(dataset) if dataset else None, seeds=seeds, steps=steps
    )
    _further(curation, "prune", partial(prune_method, wanted=wanted), as_json=as_json)


@operations.command()
def validate(curation: CurationArgument, as_json: Json = False) -> None:
    """Say how far people and judges agree, by the labels of a curation's sample."""
    from flows.further import ValidateConfig, validate_method

    _further(curation, "validate", partial(validate_method, wanted=ValidateConfig()), as_json=as_json)


def _further(curation: str, name: str, method: Callable[..., object], *, as_json: bool) -> None:
    from flows.job import Job
    from flows.terminal import further

    again = shlex.join(["reneg", *sys.argv[1:]])
    done = further(read_settings(), curation, Job(name, method, again=again), OUT, ERR)
    if as_json:
        print_json(done)


@operations.command()
def promote(
    curation: CurationArgument,
    treatment: Annotated[Treatment | None, typer.Option(help="Instead of `promote.treatment`.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Whatever the checks say.")] = False,
    as_json: Json = False,
) -> None:
    """Make a finished curation what trainers read, if its checks pass; the reasons are printed and kept."""
    from flows.releases import promote_by_hand

    done = promote_by_hand(read_settings(), curation, treatment and treatment.value, OUT, force=force)
    if as_json:
        print_json(done)


@operations.command()
def releases(
    name: Annotated[str | None, typer.Argument(help="A configuration's name; without it, all.")] = None,
    as_json: Json = False,
) -> None:
    """List the releases, oldest first; the last one of a name is what trainers read."""
    from flows.releases import show_releases

    rows = show_releases(read_settings(), name, OUT)
    if as_json:
        print_json(rows)


@operations.command()
def rollback(
    name: Annotated[str, typer.Argument(help="A configuration's name, as `reneg releases` shows it.")],
    to: Annotated[int | None, typer.Option(help="The release to go back to; by default the one before.")] = None,
    as_json: Json = False,
) -> None:
    """Give trainers an earlier release again, under a new number; it holds until a new curation is promoted."""
    from flows.releases import rollback as go_back
    from flows.releases import show_release
    from infra.storage.store import Store

    done = show_release(go_back(Store.open(read_settings().store), name, to), OUT)
    if as_json:
        print_json(done)


labels_app = typer.Typer(help="People's labels: import a filled-in sheet, or count what there is.")
operations.add_typer(labels_app, name="labels", invoke_without_command=True)


@labels_app.callback()
def labels(context: typer.Context, as_json: Json = False) -> None:
    """Count people's labels, by annotator and by the curation whose sheet they came on."""
    if context.invoked_subcommand is not None:
        return
    from flows.labels import show_labels
    from infra.storage.store import Store

    rows = show_labels(Store.open(read_settings().store, write=False), OUT)
    if as_json:
        print_json(rows)


@labels_app.command("import")
def import_labels(
    curation: CurationArgument,
    sheet: Annotated[Path, typer.Argument(help="The filled-in sheet.csv, or JSON lines.")],
    annotator: Annotated[str, typer.Option(help="Who filled it in, where its rows do not say.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Then go on with the curation.")] = False,
    as_json: Json = False,
) -> None:
    """Take in people's labels. They hold wherever the same texts stand, in every later curation too."""
    from flows.curation import Curator
    from flows.labels import import_labels as take_in
    from flows.labels import show_import
    from flows.terminal import resume as go_on

    curator = Curator.open(read_settings())
    record = show_import(take_in(curator, curator.load(curation), sheet, annotator), OUT)
    result = {"result": go_on(read_settings(), curation, OUT, ERR)} if resume else {}
    if as_json:
        print_json(record | result)


@operations.command()
def history(
    name: Annotated[str | None, typer.Argument(help="A configuration's name; without it, all of them.")] = None,
    as_json: Json = False,
) -> None:
    """Show the finished nights: cost, false negatives, agreement with the gold set and with people, alarms."""
    from flows.history import show_history
    from infra.storage.store import Store

    rows = show_history(Store.open(read_settings().store, write=False), name, OUT)
    if as_json:
        print_json(rows)


@operations.command()
def gc(  # noqa: PLR0913, PLR0917 - each option is an argument
    keep_curations: Annotated[int | None, typer.Option(min=1, help="The newest so many of each name stay; 30.")] = None,
    keep_releases: Annotated[int | None, typer.Option(min=1, help="The newest so many of each name stay; 5.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="Curations at work within so many days stay; 30.")] = None,
    grace: Annotated[float, typer.Option(min=0, help="Hours; 0 only where nothing else uses the store.")] = 24.0,
    drop: Annotated[list[str] | None, typer.Option(help="A curation that goes in any case; may be repeated.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what no kept curation or release reaches: first to the store's trash, a grace later for good."""
    from flows.gc import Wanted, collect

    wanted = Wanted(keep_curations, keep_releases, days, grace, frozenset(drop or ()))
    done = collect(read_settings(), wanted, yes=yes, out=OUT)
    if as_json:
        print_json(done)
