"""The command line `reneg`: the commands, and the exit code and message of an error."""

import sys

import typer

from flows.cli import (
    inspect_commands,
    label_commands,
    release_commands,
    run_commands,
    server_commands,
    start_commands,
    store_commands,
)
from flows.cli.console import ERR
from infra.redact import guard_logs, no_secrets_in_errors
from infra.settings import SettingsError, bypass_proxies, silence_telemetry

app = typer.Typer(
    name="reneg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Curate the training data of retrieval models: mine hard negatives, find false negatives, relabel, retrain, "
        "evaluate.\n\nEvery finished part is kept in the store and never computed twice: run a command again and it "
        "continues where it stopped.\n\nEnvironment: RENEG_STORE (a path or s3://bucket/prefix), RENEG_HOME (.reneg), "
        "RENEG_CACHE (~/.cache/reneg), PREFECT_API_URL and RAY_ADDRESS to use servers that run already."
    ),
)
for commands in (start_commands, run_commands, inspect_commands, release_commands, store_commands, server_commands):
    app.add_typer(commands.app)
app.add_typer(label_commands.app, name="labels", invoke_without_command=True)


def main() -> None:
    """Run the command line; an expected error ends in one message and exit code 1 or 2, without a traceback."""
    silence_telemetry()
    bypass_proxies()
    from flows.config.section import ConfigError
    from flows.method.setup import CurationFailed, WaitingForLabels
    from flows.operations.notifications import NotifyError
    from infra.cluster.ray_cluster import ClusterError
    from infra.models.resolve import ModelError
    from infra.prefect_api.health import ServerError
    from infra.stages.runner import PartUnready
    from infra.storage.store import StoreError

    guard_logs()
    try:
        with no_secrets_in_errors():
            app()
    except (ConfigError, NotifyError, SettingsError) as error:
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


if __name__ == "__main__":
    main()
