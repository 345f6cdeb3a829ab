"""Commands for servers and deployments: `deploy`, `serve`, `ui`, `doctor`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.console import ERR, OUT, Json, print_json, print_line
from infra.redact import redact
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
    from flows.curation.stored_config import key_rules, refused_keys
    from flows.operations.deploy import deploy as register

    settings, wanted = read_settings(), [load_config(path) for path in configs]
    done = register(settings, wanted, pool)
    for one in done:
        night = f": {one.schedule}, overlapping nights are {one.overlap}" if one.schedule else ""
        OUT.print(f"{one.name}{night}", soft_wrap=True)
    OUT.print("They run on machines with `reneg serve`.")
    rules = key_rules(own_file=False)
    for refusal in (line for config in wanted for line in refused_keys(config, rules)):
        note = f"note: this deployment would fail where the environment is as here: {refusal}"
        ERR.print(note, style="yellow", markup=False, soft_wrap=True)
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

    Supervisor(read_settings(), lambda text: ERR.print(redact(text), soft_wrap=True), pool=pool, limit=limit).run()


@app.command()
def ui(
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server that an earlier `reneg ui` started.")] = False,
) -> None:
    """Start the embedded Prefect server, leave it running, and print its address and how to log in."""
    from infra.prefect_api.health import check_named
    from infra.prefect_api.server import PrefectServer

    settings = read_settings()
    server = PrefectServer(settings.home)
    if stop:
        OUT.print("stopped" if server.stop(ui=True) else "not stopped: no server runs, or a run still uses it")
        return
    if settings.prefect_api_url is not None:
        check_named(settings.prefect_api_url)
        OUT.print(f"Prefect UI: {settings.prefect_api_url.removesuffix('/api')}", soft_wrap=True)
        return
    address = server.start(keep=True)
    OUT.print(f"Prefect UI: {address.removesuffix('/api')}", soft_wrap=True)
    # A file or a pipe may be kept or sent on, so the password itself goes to a terminal only.
    password = server.auth_string() if OUT.is_terminal else f"the line in {server.auth_file}"
    print_line(OUT, f"Password: {password}")
    OUT.print("It runs until `reneg ui --stop`.")


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="A configuration whose needs are checked too.")] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Also check the cluster, from every node.")] = False,
    as_json: Json = False,
) -> None:
    """Check what is installed, reachable and missing, with remedies; exit code 1 if something is missing."""
    from flows.operations.doctor import examine

    settings, wanted = read_settings(), None
    findings = examine(settings)
    if config:
        from flows.config.load import load_config
        from flows.operations.engine_needs import ask_encoders, look_at_keys

        wanted = load_config(config)
        findings += [*look_at_keys(wanted, settings), *ask_encoders(wanted)]
    if cluster:
        from flows.operations.cluster_doctor import examine_cluster

        findings += examine_cluster(settings, wanted)
    findings = [replace(f, found=redact(f.found), remedy=redact(f.remedy)) for f in findings]
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
