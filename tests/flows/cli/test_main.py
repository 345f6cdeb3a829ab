"""`reneg` as a program: its commands, its exit codes, and one message instead of a traceback."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import __main__ as program
from flows.cli.__main__ import app, main
from flows.config.section import ConfigError
from flows.method.setup import CurationFailed, WaitingForLabels
from flows.operations.notifications import NotifyError
from infra.cluster.ray_cluster import ClusterError
from infra.models.resolve import ModelError
from infra.prefect_api.health import ServerError
from infra.stages.runner import PartUnready
from infra.storage.store import StoreError

COMMANDS = {
    "demo", "curate", "rerun", "retrain", "prune", "validate", "plan", "list", "status", "explain", "labels", "export",
    "promote", "releases", "rollback", "history", "gc", "purge", "ledger", "deploy", "serve", "ui", "doctor",
}  # fmt: skip


def test_help_lists_every_command() -> None:
    out = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert {word for line in out.splitlines() for word in line.strip("│ ").split()[:1]} >= COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_says_what_it_does(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert f"Usage: root {command}" in done.output or f"{command} [OPTIONS]" in done.output


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """Let the command that was typed end so."""

    def use(error: Exception | None) -> None:
        def run() -> None:
            if error is not None:
                raise error

        monkeypatch.setattr(program, "app", run)

    return use


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("my.yaml: unknown key 'mime'"), 2),
        (NotifyError("no block"), 2),
        (CurationFailed("judge-llm part 3: engine died"), 1),
        (PartUnready("no part 3"), 1),
        (StoreError("the disk is full"), 1),
        (ModelError("no such model"), 1),
        (ServerError("no answer"), 1),
        (ClusterError("no such cluster"), 1),
    ],
)
def test_an_expected_error_is_one_message_and_an_exit_code(
    ends: Callable[[Exception], None], capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    ends(error)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err == f"{error}\n"


def test_a_trouble_of_the_machine_names_its_kind(
    ends: Callable[[Exception], None], capsys: pytest.CaptureFixture[str]
) -> None:
    ends(PermissionError(13, "Permission denied", "/store"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "PermissionError: [Errno 13] Permission denied: '/store'\n"


def test_waiting_for_people_is_no_error(
    ends: Callable[[Exception | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    ends(WaitingForLabels("2 of 12 pairs are labelled"))
    main()
    assert capsys.readouterr().err == "2 of 12 pairs are labelled\n"
    ends(None)
    main()
    assert capsys.readouterr().err == ""


def test_an_error_nobody_expects_is_shown_whole(ends: Callable[[Exception], None]) -> None:
    ends(KeyError("a mistake of ours"))
    with pytest.raises(KeyError):
        main()


def test_help_is_there_without_the_heavy_libraries(tmp_path: Path) -> None:
    look = (
        "import sys; sys.argv = ['reneg', '--help']\n"
        "from flows.cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'prefect', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
