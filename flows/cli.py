"""The command line: one command each for what a curation needs, from `reneg demo` to `reneg purge`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.console import ERR, OUT, CurationArgument, Json, print_json
from flows.operations import operations
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
app.add_typer(operations)


def main() -> None:
    """Run the command line; expected errors are one message and exit code 1 or 2, never a traceback."""
    silence_telemetry()
    from flows.config import ConfigError
    from flows.method import CurationFailed, WaitingForLabels
    from flows.notifications import NotifyError
    from infra.cluster.ray_cluster import ClusterError
    from infra.models.resolve import ModelError
    from infra.prefect_api.server import ServerError
    from infra.stages.runner import PartUnready
    from infra.storage.store import StoreError

    try:
        app()
    except (ConfigError, NotifyError) as error:
        _fail(str(error), 2)
    except WaitingForLabels as waiting:
        ERR.print(str(waiting), style="yellow", markup=False, soft_wrap=True)
    except (CurationFailed, PartUnready, StoreError, ModelError, ServerError, ClusterError) as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(f"{type(error).__name__}: {error}", 1)


def _fail(message: str, code: int) -> None:
    ERR.print(message, style="red", markup=False, soft_wrap=True)
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
    result = execute(read_settings(), load_config(path), OUT, ERR)
    print_json(result)


@app.command()
def curate(
    config: Annotated[Path, typer.Argument(help="The YAML configuration of the curation.")],
    as_json: Json = False,
) -> None:
    """Run a whole curation: from the source to the report. Finished parts are reused."""
    from flows.config import load_config
    from flows.terminal import execute

    result = execute(read_settings(), load_config(config), OUT, ERR)
    if as_json:
        print_json(result)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="The YAML configuration of the curation.")], as_json: Json = False
) -> None:
    """Say what a curation would compute and reuse, and what judging would cost, without computing anything."""
    from flows.config import load_config
    from flows.terminal import show_plan

    record = show_plan(read_settings(), load_config(config), OUT)
    if as_json:
        print_json(record)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the curations of the store and how they ended."""
    from flows.terminal import show_list

    rows = show_list(read_settings(), OUT)
    if as_json:
        print_json(rows)


@app.command()
def status(curation: CurationArgument, as_json: Json = False) -> None:
    """Show each stage of a curation: parts finished, failed and waiting, with the reasons of failures."""
    from flows.terminal import show_status

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
    """Say why a part was, or will be, computed rather than reused: what changed since the nearest earlier one."""
    from flows.curation import Curator
    from flows.explain import explain as findOUT
    from flows.explain import show

    curator = Curator.open(read_settings(), write=False)
    record = show(findOUT(curator, curation, stage, part), OUT)
    if as_json:
        print_json(record)


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

    export_to(read_settings(), curation, format_, treatment, out, OUT)


@app.command()
def ui(
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server that an earlier `reneg ui` kept.")] = False,
) -> None:
    """Start the embedded Prefect server, leave it up, and print its address."""
    from infra.prefect_api.server import PrefectServer

    settings: Settings = read_settings()
    server = PrefectServer(settings.home)
    if stop:
        OUT.print("stopped" if server.stop(ui=True) else "nothing to stop, or another run still uses it")
        return
    address = settings.prefect_api_url or server.start(keep=True)
    OUT.print(f"Prefect UI: {address.removesuffix('/api')}", soft_wrap=True)
    OUT.print("It stays up until `reneg ui --stop`.")


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
    show(findings, OUT)
    if as_json:
        print_json([finding.__dict__ for finding in findings])
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

    done = remove(read_settings(), Wanted(text_file, hash_, doc, query), yes=yes, out=OUT)
    if as_json:
        print_json(done)


@app.command()
def ledger(
    compact: Annotated[bool, typer.Option("--compact", help="Merge small segments first; safe at any time.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is remembered of each judge's answers, so that none is paid for twice."""
    from flows.purge import show_ledger

    rows = show_ledger(read_settings(), compact=compact, out=OUT)
    if as_json:
        print_json(rows)


if __name__ == "__main__":
    main()
