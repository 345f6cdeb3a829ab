"""Change one operator or constant at a time, run the module's own fast tests, and list the changes no test notices.

    python -m tests.mutants --count 200 --seed 0 tasks infra
    python -m tests.mutants --count 20 tasks/mining/mine.py

A mutant dies when a test of `tests/<folder>/test_<module>.py` fails or does not end in time. Tests marked slow or data
are not run. The tree itself is never changed: each mutant is written into a copy.
"""

import argparse
import ast
import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "infra", "tasks")
_PRELOADED = ("polars", "pydantic", "numpy", "scipy.stats", "sklearn.metrics", "yaml", "pytest", "hypothesis", "httpx")
_SECONDS = 120  # a mutant whose tests take longer is stopped, and counts as dead
_SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: `number` counts the places of a file that can be changed, in the order of the walk."""

    path: str
    number: int
    line: int
    change: str


class _Mutator(ast.NodeTransformer):
    """Walks a module and changes the place of one number; without a number it only lists the places."""

    def __init__(self, number: int = -1) -> None:
        self.number, self.places = number, list[tuple[int, str]]()

    def _here(self, node: ast.AST, change: str) -> bool:
        self.places.append((getattr(node, "lineno", 0), change))
        return len(self.places) - 1 == self.number

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        for i, operator in enumerate(node.ops):
            swapped = _SWAPS[type(operator)]
            if self._here(node, f"{type(operator).__name__} → {swapped.__name__} in `{ast.unparse(node)}`"):
                node.ops[i] = swapped()
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        swapped = _SWAPS[type(node.op)]
        if self._here(node, f"{type(node.op).__name__} → {swapped.__name__} in `{ast.unparse(node)}`"):
            node.op = swapped()
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        swapped = _SWAPS.get(type(node.op))
        typed = isinstance(node.op, ast.BitOr) and _is_type(node)
        if swapped and not typed:
            if self._here(node, f"{type(node.op).__name__} → {swapped.__name__} in `{ast.unparse(node)}`"):
                node.op = swapped()
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and self._here(node, f"without `not` in `{ast.unparse(node)}`"):
            return node.operand
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = node.value
        if isinstance(value, bool):
            changed: object = not value
        elif isinstance(value, int | float):
            changed = value + 1
        else:
            return node
        return ast.Constant(changed) if self._here(node, f"{value} → {changed}") else node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return node  # annotations are types, no behaviour

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.args.defaults = [self.visit(d) for d in node.args.defaults]
        node.args.kw_defaults = [d and self.visit(d) for d in node.args.kw_defaults]
        node.body = [self.visit(statement) for statement in node.body]
        return node


def _is_type(node: ast.BinOp) -> bool:
    """Tell a union of types, `int | None`, from an operation."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    nothing = any(isinstance(n, ast.Constant) and n.value is None for n in ast.walk(node))
    return nothing or any(name[0].isupper() or name in ("int", "str", "float", "bool", "bytes") for name in names)


def mutants_of(path: str) -> list[Mutant]:
    """List every change that can be made to a file."""
    mutator = _Mutator()
    mutator.visit(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    return [Mutant(path, i, line, change) for i, (line, change) in enumerate(mutator.places)]


def tests_of(path: str) -> Path:
    """Name the test file of a module."""
    module = Path(path)
    return Path("tests") / module.parent / f"test_{module.stem}.py"


def modules_below(places: list[str]) -> list[str]:
    """List the modules in folders, or the files named; those without code of their own are left out."""
    files = [f for place in places for f in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))]
    names = {str(f.relative_to(ROOT)) for f in files if f.name != "__init__.py" and "requirements" not in f.parts}
    return sorted(names)


@contextlib.contextmanager
def _copy() -> Iterator[Path]:
    """Copy what tests need into a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="reneg-mutants-") as name:
        folder = Path(name)
        for entry in (*PACKAGES, "tests", "benchmarks", "docs", "docker"):
            shutil.copytree(ROOT / entry, folder / entry, ignore=shutil.ignore_patterns("__pycache__"))
        for entry in ("pyproject.toml", "README.md", "Makefile", "CHANGELOG.md"):
            shutil.copy(ROOT / entry, folder / entry)
        yield folder


def _dies(folder: Path, mutant: Mutant | None, path: str) -> bool:
    """Run a module's tests in a process of its own, which has the heavy libraries loaded already."""
    original = (ROOT / path).read_text(encoding="utf-8")
    if mutant is not None:
        tree = _Mutator(mutant.number).visit(ast.parse(original))
        (folder / path).write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
    child = os.fork()
    if child == 0:
        _run_tests(folder, tests_of(path))
    deadline, status = time.monotonic() + _SECONDS, 0
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.02)
    else:
        status = done[1]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    (folder / path).write_text(original, encoding="utf-8")
    return status != 0


def _run_tests(folder: Path, tests: Path) -> None:
    """In the child: run the tests and end with pytest's exit code."""
    os.setpgid(0, 0)
    os.chdir(folder)
    sys.path[0] = str(folder)
    os.environ["PYTHONPATH"] = str(folder)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    for name in [n for n in sys.modules if n.split(".")[0] in (*PACKAGES, "tests", "benchmarks")]:
        del sys.modules[name]
    import pytest

    options = [
        "-x",
        "-q",
        "-m",
        "not slow and not data",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--doctest-modules",
    ]
    code = pytest.main(
        [*options, "--timeout", "100", str(tests), str(tests).replace("tests/", "", 1).replace("test_", "")]
    )
    os._exit(int(code))


def main() -> int:
    """Draw mutants, run them, print the survivors and the share that died."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", default=["tasks", "infra"], help="folders or files")
    parser.add_argument("--count", type=int, default=200, help="how many mutants; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in _PRELOADED:
        importlib.import_module(name)
    modules = [path for path in modules_below(arguments.places) if (ROOT / tests_of(path)).exists()]
    without = [path for path in modules_below(arguments.places) if path not in modules]
    drawn = [mutant for path in modules for mutant in mutants_of(path)]
    if arguments.count:
        drawn = random.Random(arguments.seed).sample(drawn, min(arguments.count, len(drawn)))
    drawn.sort(key=lambda mutant: (mutant.path, mutant.number))
    lived, checked = [], set[str]()
    with _copy() as folder:
        for mutant in drawn:
            if mutant.path not in checked and _dies(folder, None, mutant.path):
                print(f"{tests_of(mutant.path)} fails without any change", flush=True)
                return 1
            checked.add(mutant.path)
            if not _dies(folder, mutant, mutant.path):
                lived.append(mutant)
                print(f"lived: {mutant.path}:{mutant.line}: {mutant.change}", flush=True)
    for path in without:
        print(f"no test file: {path}")
    died = len(drawn) - len(lived)
    print(f"{died} of {len(drawn)} died ({died / max(len(drawn), 1):.0%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
