"""The command line: one command each for what a curation needs, from `reneg demo` to `reneg purge`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.settings import Settings, read_settings, silence_telemetry

app = typer.Typer(
    name="reneg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Curate the training data of retrieval models: mine hard negatives, find the false ones, relabel, retrain, "
        "evaluate.\n\nEvery finished part is kept in the store and never computed twice: type a command again and it "
        "goes on where it stopped.\n\nEnvironment: RENEG_STORE (a path or s3://bucket/prefix), RENEG_HOME (.reneg), "
        "RENEG_CACHE (~/.cache/reneg), PREFECT_API_URL and RAY_ADDRESS to join servers instead of starting some."
    ),
)
_WIDTH = None if sys.stdout.isatty() else 140  # a pipe has no width; tables in it are not cut short
_out = Console(highlight=False, width=_WIDTH)
_err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line of standard output.")]
CurationArgument = Annotated[str, typer.Argument(help="A curation's id, as `reneg list` shows it.")]


def main() -> None:
    """Run the command line; expected errors are one message and exit code 1 or 2, never a traceback."""
    silence_telemetry()
    from flows.config import ConfigError
    from flows.method import CurationFailed, WaitingForLabels
    from flows.notifications import NotifyError
    from infra.models import ModelError
    from infra.prefect_server import ServerError
    from infra.ray_cluster import ClusterError
    from infra.runner import PartUnready
    from infra.store import StoreError

    try:
        app()
    except (ConfigError, NotifyError) as error:
        _fail(str(error), 2)
    except WaitingForLabels as waiting:
        _err.print(str(waiting), style="yellow", markup=False, soft_wrap=True)
    except (CurationFailed, PartUnready, StoreError, ModelError, ServerError, ClusterError) as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(f"{type(error).__name__}: {error}", 1)


def _fail(message: str, code: int) -> None:
    _err.print(message, style="red", markup=False, soft_wrap=True)
    sys.exit(code)


@app.command()
def demo(
    config: Annotated[Path | None, typer.Option(help="Another configuration than the built-in one.")] = None,
) -> None:
    """Curate the documentation of installed libraries, whose false negatives are known, and count what is found.

    Minutes on two cores. The last line of standard output is one JSON object.
    """
    from flows.config import load_config
    from flows.terminal import execute

    path = config or Path(__file__).parent / "configs" / "demo.yaml"
    result = execute(read_settings(), load_config(path), _out, _err)
    _print_json(result)


@app.command()
def curate(
    config: Annotated[Path, typer.Argument(help="The YAML configuration of the curation.")],
    as_json: Json = False,
) -> None:
    """Run a whole curation: from the source to the report. Finished parts are reused."""
    from flows.config import load_config
    from flows.terminal import execute

    result = execute(read_settings(), load_config(config), _out, _err)
    if as_json:
        _print_json(result)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="The YAML configuration of the curation.")], as_json: Json = False
) -> None:
    """Say what a curation would compute and reuse, and what judging would cost, without computing anything."""
    from flows.config import load_config
    from flows.terminal import show_plan

    record = show_plan(read_settings(), load_config(config), _out)
    if as_json:
        _print_json(record)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the curations of the store and how they ended."""
    from flows.terminal import show_list

    rows = show_list(read_settings(), _out)
    if as_json:
        _print_json(rows)


@app.command()
def status(curation: CurationArgument, as_json: Json = False) -> None:
    """Show each stage of a curation: parts finished, failed and waiting, with the reasons of failures."""
    from flows.terminal import show_status

    rows = show_status(read_settings(), curation, _out)
    if as_json:
        _print_json(rows)


@app.command()
def explain(
    curation: CurationArgument,
    stage: Annotated[str, typer.Argument(help="The stage, as `reneg status` names it.")],
    part: Annotated[int, typer.Argument(min=0, help="The part's number.")],
    as_json: Json = False,
) -> None:
    """Say why a part was, or will be, computed rather than reused: what changed since the nearest earlier one."""
    from flows.curation import Curator
    from flows.explain import explain as find_out
    from flows.explain import show

    curator = Curator.open(read_settings(), write=False)
    record = show(find_out(curator, curation, stage, part), _out)
    if as_json:
        _print_json(record)


@app.command()
def rerun(
    curation: CurationArgument,
    stage: Annotated[str, typer.Option(help="The stage, as `reneg status` names it.")],
    part: Annotated[int, typer.Option(min=0, help="The part's number.")],
    downstream: Annotated[bool, typer.Option("--downstream", help="Then also what lies downstream of it.")] = False,
    as_json: Json = False,
) -> None:
    """Compute one part again: it alone, or with `--downstream` also what follows from it; the rest is reused."""
    from flows.terminal import rerun_part

    result = rerun_part(read_settings(), curation, (stage, part), _out, _err, downstream=downstream)
    if as_json:
        _print_json(result)


@app.command()
def export(
    curation: CurationArgument,
    format_: Annotated[
        str, typer.Option("--format", help="tevatron, flagembedding, sentence-transformers, beir, trec.")
    ],
    treatment: Annotated[str, typer.Option(help="default, remove, remove_hn or relabel.")] = "relabel",
    out: Annotated[Path, typer.Option(help="The folder to write; it must not hold files yet.")] = Path("export"),
) -> None:
    """Write a curation's training set in a trainer's own format."""
    from flows.terminal import export_to

    export_to(read_settings(), curation, format_, treatment, out, _out)


@app.command()
def ui(
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server that an earlier `reneg ui` kept.")] = False,
) -> None:
    """Start the embedded Prefect server, leave it up, and print its address."""
    from infra.prefect_server import PrefectServer

    settings: Settings = read_settings()
    server = PrefectServer(settings.home)
    if stop:
        _out.print("stopped" if server.stop(ui=True) else "nothing to stop, or another run still uses it")
        return
    address = settings.prefect_api_url or server.start(keep=True)
    _out.print(f"Prefect UI: {address.removesuffix('/api')}", soft_wrap=True)
    _out.print("It stays up until `reneg ui --stop`.")


@app.command()
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
        _out.print(f"{one.name}{night}", soft_wrap=True)
    _out.print("They run where `reneg serve` runs.")
    if as_json:
        _print_json([one.__dict__ for one in done])


@app.command()
def serve(
    pool: Annotated[str, typer.Option(help="The Prefect work pool whose runs are taken.")] = "reneg",
    limit: Annotated[int, typer.Option(min=1, help="Flow runs at a time.")] = 4,
) -> None:
    """Run what is deployed, as it is due, until stopped; without PREFECT_API_URL it keeps the embedded server up."""
    from flows.serve import Supervisor

    Supervisor(read_settings(), lambda text: _err.print(text, soft_wrap=True), pool=pool, limit=limit).run()


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="A configuration: check what it needs of the nodes.")] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Check the cluster too, from every node.")] = False,
    as_json: Json = False,
) -> None:
    """Check what is installed, reachable and missing, each with its remedy; exit code 1 if something is missing."""
    from flows.doctor import examine, show

    settings = read_settings()
    findings = examine(settings)
    if cluster:
        from flows.cluster_doctor import examine_cluster
        from flows.config import load_config

        findings += examine_cluster(settings, load_config(config) if config else None)
    show(findings, _out)
    if as_json:
        _print_json([finding.__dict__ for finding in findings])
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


@app.command()
def purge(
    text_file: Annotated[Path | None, typer.Option(help="A file that holds the text, exactly.")] = None,
    hash_: Annotated[str | None, typer.Option("--hash", help="The text's hash, as in the column text_hash.")] = None,
    doc: Annotated[str | None, typer.Option(help="A passage, as DATASET/DOC_ID.")] = None,
    query: Annotated[str | None, typer.Option(help="A query, as DATASET/QUERY_ID.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a text from the store, with all that was said of it or made from it. Stop what runs there first."""
    from flows.purge import Wanted
    from flows.purge import purge as remove

    done = remove(read_settings(), Wanted(text_file, hash_, doc, query), yes=yes, out=_out)
    if as_json:
        _print_json(done)


@app.command()
def ledger(
    compact: Annotated[bool, typer.Option("--compact", help="Merge small segments first; safe at any time.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is remembered of each judge's answers, so that none is paid for twice."""
    from flows.purge import show_ledger

    rows = show_ledger(read_settings(), compact=compact, out=_out)
    if as_json:
        _print_json(rows)


@app.command()
def promote(
    curation: CurationArgument,
    treatment: Annotated[str | None, typer.Option(help="Instead of the configuration's `promote.treatment`.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Whatever the checks say.")] = False,
    as_json: Json = False,
) -> None:
    """Make a finished curation what trainers read, if its checks pass; the reasons are printed and kept."""
    from flows.releases import promote_by_hand

    done = promote_by_hand(read_settings(), curation, treatment, _out, force=force)
    if as_json:
        _print_json(done)


@app.command()
def releases(
    name: Annotated[str | None, typer.Argument(help="A configuration's name; without it, all.")] = None,
    as_json: Json = False,
) -> None:
    """List the releases, oldest first; the last one of a name is what trainers read."""
    from flows.releases import show_releases

    rows = show_releases(read_settings(), name, _out)
    if as_json:
        _print_json(rows)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="A configuration's name, as `reneg releases` shows it.")],
    to: Annotated[int | None, typer.Option(help="The release to go back to; by default the one before.")] = None,
    as_json: Json = False,
) -> None:
    """Give trainers an earlier release again, under a new number; it holds until a new curation is promoted."""
    from flows.releases import rollback as go_back
    from flows.releases import show_release
    from infra.store import Store

    done = show_release(go_back(Store.open(read_settings().store), name, to), _out)
    if as_json:
        _print_json(done)


labels_app = typer.Typer(help="People's labels: import a filled-in sheet, or count what there is.")
app.add_typer(labels_app, name="labels", invoke_without_command=True)


@labels_app.callback()
def labels(context: typer.Context, as_json: Json = False) -> None:
    """Count people's labels, by annotator and by the curation whose sheet they came on."""
    if context.invoked_subcommand is not None:
        return
    from flows.labels import show_labels
    from infra.store import Store

    rows = show_labels(Store.open(read_settings().store, write=False), _out)
    if as_json:
        _print_json(rows)


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
    record = show_import(take_in(curator, curator.load(curation), sheet, annotator), _out)
    result = {"result": go_on(read_settings(), curation, _out, _err)} if resume else {}
    if as_json:
        _print_json(record | result)


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="A configuration's name; without it, all of them.")] = None,
    as_json: Json = False,
) -> None:
    """Show the finished nights: cost, false negatives, agreement with the gold set and with people, alarms."""
    from flows.history import show_history
    from infra.store import Store

    rows = show_history(Store.open(read_settings().store, write=False), name, _out)
    if as_json:
        _print_json(rows)


@app.command()
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
    done = collect(read_settings(), wanted, yes=yes, out=_out)
    if as_json:
        _print_json(done)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
