"""What may stand in which file, beside the order of folders, which `tests/house.py` measures."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def imported(path: Path) -> set[str]:
    """Return the top-level names a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_the_method_reads_no_environment() -> None:
    readers = [f.name for f in sorted((ROOT / "tasks").rglob("*.py")) if "os.environ" in f.read_text()]
    assert readers == []


def test_prefect_and_ray_meet_in_one_place() -> None:
    files = sorted((ROOT / "infra").rglob("*.py"))
    prefect = {f.name for f in files if "prefect" in imported(f)}
    alone = {"prefect_ui.py", "dead_runs.py", "events.py", "client.py", "health.py", "automations.py"}
    assert prefect == {"executor.py", "server_process.py", *alone}
    assert not {f.name for f in files if "ray" in imported(f)} & alone
