"""The direction of imports: flows → tasks, flows → infra; tasks and infra never meet, nothing imports flows."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "tasks": {"infra", "flows", "prefect", "ray", "s3fs", "fsspec", "vllm"},
    "infra": {"tasks", "flows"},
}


def imported(path: Path) -> set[str]:
    """Return the top-level names a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("layer", sorted(FORBIDDEN))
def test_a_layer_imports_nothing_that_is_not_below_it(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    broken = {str(f.relative_to(ROOT)): sorted(imported(f) & FORBIDDEN[layer]) for f in files}
    assert {name: found for name, found in broken.items() if found} == {}


def test_the_method_reads_no_environment() -> None:
    readers = [f.name for f in sorted((ROOT / "tasks").rglob("*.py")) if "os.environ" in f.read_text()]
    assert readers == []


def test_prefect_and_ray_meet_in_one_place() -> None:
    files = sorted((ROOT / "infra").rglob("*.py"))
    prefect = {f.name for f in files if "prefect" in imported(f)}
    assert prefect == {"executor.py", "prefect_ui.py", "dead_runs.py", "events.py"}
    assert not {f.name for f in files if "ray" in imported(f)} & {"prefect_ui.py", "dead_runs.py", "events.py"}
