"""`reneg …` in this process, beside an installation whose parts are computed in this process too."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.__main__ import app
from tests.flows.nightly import Nights, sources


@dataclass
class Shell:
    """One user's shell."""

    nights: Nights

    def run(self, *arguments: object, code: int = 0) -> str:
        """Run a command; returns all that it printed."""
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output

    def json(self, *arguments: object, code: int = 0) -> Any:
        """Run a command with --json; returns what a script reads: the last line of standard output."""
        done = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def open_shell(monkeypatch: pytest.MonkeyPatch) -> Callable[[Nights], Shell]:
    """Set the environment to an installation's; parts are computed with fake engines in this process."""

    def use(nights: Nights) -> Shell:
        settings = nights.settings
        for name in ("home", "store", "cache"):
            monkeypatch.setenv(f"RENEG_{name.upper()}", str(getattr(settings, name)))
        for name in ("PREFECT_API_URL", "RAY_ADDRESS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("flows.runs.servers.in_own_flow_run", nights.compute)
        return Shell(nights)

    return use


@pytest.fixture
def shell(tmp_path: Path, open_shell: Callable[[Nights], Shell]) -> Shell:
    """A shell beside an empty installation."""
    return open_shell(Nights(tmp_path))


@pytest.fixture(scope="package")
def finished_nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """An installation in which animals-000001 is finished and promoted."""
    nights = Nights(tmp_path_factory.mktemp("finished"))
    nights.curate(sources(nights.folder, 6)[0], promote={"require": "none", "max_relevant_share": 1.0})
    return nights


@pytest.fixture
def finished(finished_nights: Nights, tmp_path: Path, open_shell: Callable[[Nights], Shell]) -> Shell:
    """A shell beside a copy of that installation."""
    folder = tmp_path / "finished"
    shutil.copytree(finished_nights.folder, folder, symlinks=True)
    return open_shell(replace(finished_nights, folder=folder))
