"""A wheel holds every folder, prompt, template and price file, and runs where only its dependencies are installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests import house
from tests.conftest import ROOT
from tests.flows.animals import write_source

pytestmark = pytest.mark.slow
DATA = {
    "tasks/prompts/yes_no.yaml", "tasks/prompts/definitions.yaml", "tasks/report/templates/report.html.jinja",
    "flows/config/demo.yaml", "flows/config/demo.calibration.json",
    "flows/config/rlhn.yaml", "flows/config/prices.yaml",
    *(path.relative_to(ROOT).as_posix() for path in (ROOT / "flows/config/judges").glob("*.yaml")),
}  # fmt: skip
CONFIG = """
name: animals
source: {path: source}
encoder: {model: "tiny:encoder"}
ingest: {query_parts: 1, passage_parts: 1}
tiers: []
treatments: [default]
train: null
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("wheel")
    for package in house.PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", "."]
    subprocess.run([*command, "."], cwd=folder, check=True, capture_output=True, text=True)
    (built,) = folder.glob("reneg-*.whl")
    return built


def test_it_holds_every_module_and_every_file_that_they_read(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {path.as_posix() for path in house.modules()} <= held
    assert held >= DATA
    assert not [name for name in held if name.startswith(("tests/", "infra/k8s", "infra/requirements"))]


def test_it_runs_a_curation_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True, with_pip=False)
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    # The dependencies of this environment, without its editable install of ours: `.pth` files there are not read.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", f"--target={site}", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    write_source(tmp_path / "source", 4)
    (tmp_path / "animals.yaml").write_text(CONFIG)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"RENEG_HOME": str(tmp_path / "home"), "RENEG_CACHE": os.environ["RENEG_TEST_CACHE"]}

    def run(*arguments: str) -> str:
        command = [str(tmp_path / "venv" / "bin" / "python"), "-m", "flows.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    where = "import flows, infra.storage.store, tasks.report.report as r; print(r.__file__)"
    found = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "python"), "-c", where], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip().startswith(str(tmp_path))
    assert "curate" in run("--help")
    assert '"parts": {"computed"' in run("curate", "animals.yaml", "--json").splitlines()[-1]
    assert (tmp_path / "home" / "curations" / "animals-000001" / "report.html").exists()
