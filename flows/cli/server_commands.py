"""Commands for servers and deployments: `deploy`, `serve`, `ui`, `doctor`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.console import ERR, OUT, Json, print_json
from infra.settings import read_settings

if TYPE_CHECKING:  # it takes seconds to import: commands import it when they run
    from flows.operations.doctor import Finding

app = typer.Typer()


@app.command()
def deploy(
    configs: Annotated[list[Path], typer.Argument(help="YAML configurations; each may contain a `nightly` schedule.")],
    pool: Annotated[
        str, typer.Option(help="The Prefect work pool (type process); created if it does not exist.")
    ] = "reneg",
    as_json: Json = False,
) -> None:
    """Register these configurations' deployments on the Prefect server; run it again after a change."""
    from flows.config.load import load_config
    from flows.operations.deploy import deploy as register

    done = register(read_settings(), [load_config(path) for path in configs], pool)
    for one in done:
        night = f": {one.schedule}, overlapping nights are {one.overlap}" if one.schedule else ""
        OUT.print(f"{one.name}{night}", soft_wrap=True)
    OUT.print("They run on machines with `reneg serve`.")
    if as_json:
        print_json([one.__dict__ for one in done])


@app.command()
def serve(
    pool: Annotated[str, typer.Option(help="The Prefect work pool whose flow runs this command starts.")] = "reneg",
    limit: Annotated[int, typer.Option(min=1, help="Flow runs at a time.")] = 4,
) -> None:
    """Run deployments when they are due, until stopped. It keeps one Prefect worker running.

    Without PREFECT_API_URL it also runs the embedded server.
    """
    from flows.operations.supervisor import Supervisor

    Supervisor(read_settings(), lambda text: ERR.print(text, soft_wrap=True), pool=pool, limit=limit).run()


@app.command()
def ui(
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server that an earlier `reneg ui` started.")] = False,
) -> None:
    """Start the embedded Prefect server, leave it running, and print its address."""
    from infra.prefect_api.server import PrefectServer

    settings = read_settings()
    server = PrefectServer(settings.home)
    if stop:
        OUT.print("stopped" if server.stop(ui=True) else "not stopped: no server runs, or a run still uses it")
        return
    address = settings.prefect_api_url or server.start(keep=True)
    OUT.print(f"Prefect UI: {address.removesuffix('/api')}", soft_wrap=True)
    OUT.print("It runs until `reneg ui --stop`.")


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="A configuration whose needs are checked too.")] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Also check the cluster, from every node.")] = False,
    as_json: Json = False,
) -> None:
    """Check what is installed, reachable and missing, with remedies; exit code 1 if something is missing."""
    from flows.operations.doctor import examine

    settings = read_settings()
    findings = examine(settings)
    if cluster:
        from flows.config.load import load_config
        from flows.operations.cluster_doctor import examine_cluster

        findings += examine_cluster(settings, load_config(config) if config else None)
    show_findings(findings, OUT)
    if as_json:
        print_json([finding.__dict__ for finding in findings])
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def show_findings(findings: Sequence["Finding"], out: Console) -> None:
    """Print the findings as a table."""
    from rich.table import Table

    table = Table("what", "state", "found", "remedy", title="doctor", title_justify="left")
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        table.add_row(finding.what, state, finding.found, finding.remedy)
    out.print(table)
