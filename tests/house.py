"""What the layout must hold, measured from the code: `python -m tests.house` prints it, `make check` runs it.

python -m tests.house              # circles, order of folders, sizes, a test file for every module
python -m tests.house --coverage   # and how much of each module its own test file covers (minutes)
"""

import argparse
import ast
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "infra")
MOST_MODULES, MOST_LINES, MOST_FUNCTION_LINES, LEAST_COVERED = 12, 400, 60, 60
# Each folder may import what stands before it, in its own package; `flows` may import all of tasks and infra.
ORDER: Mapping[str, tuple[str, ...]] = {
    "infra": (
        "infra",  # settings, machine, redact, names: used by all
        "infra/models",
        "infra/storage",
        "infra/ledger",
        "infra/stages",
        "infra/engines",
        "infra/engines/embeddings",
        "infra/engines/rerankers",
        "infra/cluster",
        "infra/prefect_api",
        "infra/execution",
    ),
    "tasks": (
        "tasks",  # schemas, texts, protocols, statistics, formatting: used by all
        "tasks/prompts",
        "tasks/mining",
        "tasks/mining/dense",
        "tasks/mining/bm25",
        "tasks/judging",
        "tasks/rescoring",
        "tasks/verdicts/fitting",
        "tasks/verdicts",
        "tasks/verdicts/guarantee",
        "tasks/quality",
        "tasks/calibrating",
        "tasks/training/losses",
        "tasks/training/gate",
        "tasks/data/on_disk",
        "tasks/data/layouts",
        "tasks/data/containers",
        "tasks/data/reading",
        "tasks/data/pieces",
        "tasks/data/writing",
        "tasks/data/rendering",
        "tasks/data/ingesting",
        "tasks/data",
        "tasks/evaluation",
        "tasks/training/loop",
        "tasks/training",
        "tasks/training/rerankers",
        "tasks/fetching",
        "tasks/guards",
        "tasks/report/parts",
        "tasks/report",
    ),
    "flows": (
        "flows",  # the stage table
        "flows/config/yaml_files",
        "flows/config",
        "flows/config/judges",  # files alone
        "flows/config/recipes",  # files alone
        "flows/guards",
        "flows/method",
        "flows/method/afterwards",
        "flows/inputs",
        "flows/curation",
        "flows/planning",
        "flows/promotion",
        "flows/results",
        "flows/maintenance",
        "flows/runs",
        "flows/operations",
        "flows/cli",
    ),
}
FORBIDDEN = {"tasks": {"infra", "flows", "prefect", "ray", "s3fs", "fsspec", "vllm"}, "infra": {"tasks", "flows"}}
# Modules without code of their own to test.
WITHOUT_TESTS = frozenset({"tasks/protocols.py"})  # types only


def modules() -> list[Path]:
    """List our modules, relative to the project's folder; scripts that are not installed do not count."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found if (path.parent / "__init__.py").exists())


def code_modules() -> list[Path]:
    """List the modules that hold code: all but the folders' own `__init__.py`."""
    return [path for path in modules() if path.name != "__init__.py"]


def dotted(path: Path) -> str:
    """Name a module as imports do."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports() -> dict[str, set[str]]:
    """Name the modules of ours that each module imports, wherever in its code, also for types alone."""
    known = {dotted(path): path for path in modules()}

    def target(name: str) -> str:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name

    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        named: list[str] = []
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                named += [f"{node.module}.{alias.name}" for alias in node.names]
        found = {target(one) for one in named} - {"", name}
        graph[name] = {one for one in found if known[one].name != "__init__.py"}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """List groups of modules that import each other in a circle (strongly connected components)."""
    reached = {start: _reachable(graph, start) for start in graph}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen, open_ = set[str](), [start]
    while open_:
        new = graph[open_.pop()] - seen
        seen |= new
        open_ += new
    return seen


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """List imports of a folder that stands above, and those that a package must not make."""
    known = {dotted(path): path.parent.as_posix() for path in modules()}
    found = []
    for name, targets in sorted(graph.items()):
        package = name.partition(".")[0]
        for other in sorted(targets):
            if other.partition(".")[0] != package:
                continue
            if _floor(package, known[other]) > _floor(package, known[name]):
                found.append(f"{name} imports {other}: {known[other]} stands above {known[name]}")
    for path in modules():
        outside = _top_level_imports(path) & FORBIDDEN.get(path.parts[0], set())
        found += [f"{path} imports {name}" for name in sorted(outside)]
    return found


def _floor(package: str, folder: str) -> int:
    return ORDER[package].index(folder)


def _top_level_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def too_large() -> Iterator[str]:
    """List folders with too many modules, files and functions with too many lines (docstrings do not count)."""
    counts = Counter(path.parent.as_posix() for path in code_modules())
    yield from (f"{name}/: {n} modules, {MOST_MODULES} at most" for name, n in counts.items() if n > MOST_MODULES)
    for path in code_modules():
        text = (ROOT / path).read_text(encoding="utf-8")
        if (lines := text.count("\n")) > MOST_LINES:
            yield f"{path}: {lines} lines, {MOST_LINES} at most"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node, clean=False)
                length = (node.end_lineno or 0) - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
                if length > MOST_FUNCTION_LINES:
                    yield f"{path}: {node.name} has {length} lines, {MOST_FUNCTION_LINES} at most"


def named_twice() -> Iterator[str]:
    """List names that a module gives to two things at its top level: whoever imports one gets the later one."""
    for path in code_modules():
        given: Counter[str] = Counter()
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                given[node.name] += 1
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                parts = [part for target in targets for part in ast.walk(target)]
                given.update(p.id for p in parts if isinstance(p, ast.Name) and isinstance(p.ctx, ast.Store))
        yield from (f"{path}: {name} is given {count} times" for name, count in given.items() if count > 1)


def unplaced() -> list[str]:
    """List folders that have no place in the order of folders."""
    folders = {(path.parts[0], path.parent.as_posix()) for path in modules()}
    return sorted(f"{folder}/" for package, folder in folders if folder not in ORDER[package])


def tests_of(module: Path) -> Path:
    """Name the test file of a module."""
    return Path("tests") / module.parent / f"test_{module.stem.strip('_')}.py"


def untested() -> list[str]:
    """List modules that have no test file of their own."""
    named = [path for path in code_modules() if path.as_posix() not in WITHOUT_TESTS]
    return [f"{path}: {tests_of(path)} is missing" for path in named if not (ROOT / tests_of(path)).exists()]


def own_coverage(modules: Sequence[Path], jobs: int, *options: str) -> dict[Path, int]:
    """Measure the share of each module's lines, in percent, that its own test file runs.

    One run of pytest measures all, since a start costs more than most test files. What a test runs counts for the
    module of its file; what runs while modules are imported counts for all. Whether the tests pass is for the suite to
    say.

    Raises:
        RuntimeError: pytest measured nothing; the message has the end of what it printed.
    """
    files = sorted({tests_of(module).as_posix() for module in modules})
    with tempfile.TemporaryDirectory(prefix="reneg-coverage-") as folder:
        data = Path(folder) / "data"
        quiet = ["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-n", str(jobs), *options]
        measured = [*(f"--cov={package}" for package in PACKAGES), "--cov-context=test", "--cov-report="]
        command = [sys.executable, "-m", "pytest", *quiet, *measured, *files]
        environment = {**os.environ, "COVERAGE_FILE": str(data)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if not data.exists():
            raise RuntimeError(f"pytest measured no coverage\n{done.stdout[-2000:]}{done.stderr[-500:]}")
        with contextlib.chdir(ROOT):  # where the paths in the settings start
            read = Coverage(data_file=str(data))
            read.load()
            return {module: _covered_by(read, module, tests_of(module).as_posix()) for module in modules}


def _covered_by(read: Coverage, module: Path, file: str) -> int:
    """Return the share of a module's statements that a test file's tests ran, or that ran at import, in percent."""
    path = str(ROOT / module)
    _, statements, _, _, _ = read.analysis2(path)
    by_line = read.get_data().contexts_by_lineno(path)
    ran = {line for line, tests in by_line.items() if any(not test or test.startswith(f"{file}::") for test in tests)}
    return int(100 * len(ran.intersection(statements)) / len(statements)) if statements else 100


def digest_of(module: Path) -> str:
    """Hash a module with its test file: while both stay the same, what was measured holds."""
    return hashlib.sha256(b"".join((ROOT / p).read_bytes() for p in (module, tests_of(module)))).hexdigest()[:16]


def write_figures(record: Path, figures: Mapping[str, Mapping[str, str | int]]) -> None:
    """Write what was measured, by module."""
    record.write_text(json.dumps(dict(sorted(figures.items())), indent=1) + "\n", encoding="utf-8")


def little_covered(jobs: int) -> list[str]:
    """List modules of which their own test file covers too little.

    The figures are kept in tests/own_coverage.json, each with the digest of the module and its test file. Only where
    that has changed is a module measured again.
    """
    record = ROOT / "tests" / "own_coverage.json"
    known: dict[str, dict[str, str | int]] = json.loads(record.read_text()) if record.exists() else {}
    named = [p for p in code_modules() if p.as_posix() not in WITHOUT_TESTS and (ROOT / tests_of(p)).exists()]
    digests = {path.as_posix(): digest_of(path) for path in named}
    figures = {name: known[name] for name, digest in digests.items() if known.get(name, {}).get("digest") == digest}
    changed = [path for path in named if path.as_posix() not in figures]
    if changed:
        covered = own_coverage(changed, jobs, "-m", "not slow")
        few = [path for path, share in covered.items() if share < LEAST_COVERED]
        again = own_coverage(few, jobs) if few else {}  # with the slow tests too
        for path, share in covered.items():
            name = path.as_posix()
            figures[name] = {"digest": digests[name], "covered": max(share, again.get(path, 0))}
    if figures != known:
        write_figures(record, figures)
    return [
        f"{path}: {figure['covered']}% covered by {tests_of(Path(path))}, {LEAST_COVERED}% at least"
        for path, figure in figures.items()
        if int(figure["covered"]) < LEAST_COVERED
    ]


def main() -> int:
    """Print what is measured; exit with 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="do not measure what test files cover")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    graph = imports()
    checks: dict[str, list[str]] = {
        "import circles": [", ".join(circle) for circle in circles(graph)],
        "imports upward": upward(graph),
        "folders without a place in the order": unplaced(),
        "folders, files and functions that are too large": list(too_large()),
        "names that a module gives to two things": list(named_twice()),
        "modules without a test file of their own": untested(),
    }
    if not arguments.fast:
        checks["modules that their own test file covers too little"] = little_covered(arguments.jobs)
    for name, found in checks.items():
        print(f"{len(found)} {name}")
        for line in found:
            print(f"  {line}")
    print(f"{len(code_modules())} modules in {len({path.parent for path in code_modules()})} folders")
    return 1 if any(checks.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
