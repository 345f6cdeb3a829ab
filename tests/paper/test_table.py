"""docs/paper_defects.md against the code, so that the table cannot rot."""

import ast
import re
from functools import cache

from tests.conftest import ROOT

TABLE = (ROOT / "docs" / "paper_defects.md").read_text(encoding="utf-8")
ROWS = {cells[0]: cells for line in TABLE.splitlines() if (cells := line.strip("| ").split(" | "))[0].startswith("7.")}
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TABLE)
PLACES = re.findall(r"`((?:tasks|infra|flows)/[\w/]+\.py):(\w+)`", TABLE)


@cache
def names_in(path: str) -> frozenset[str]:
    """Functions and classes at the top of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, kinds))


def test_every_point_has_a_row_with_a_place_and_a_test_named_after_it() -> None:
    assert list(ROWS) == [f"7.{number}" for number in range(1, 17)]
    for point, (_, _, place, tests) in ROWS.items():
        assert re.search(r"`(tasks|infra|flows)/[\w/]+\.py:\w+`", place), point
        assert re.search(rf"`tests/paper/\w+\.py::test_paper_{point.replace('.', '_')}_\w+`", tests), point


def test_every_test_and_function_in_the_table_exists() -> None:
    assert [place for place in TESTS + PLACES if place[1] not in names_in(place[0])] == []


def test_every_test_named_after_a_point_is_in_the_table_once_under_that_point() -> None:
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))
    named = {(path, name) for path in files for name in names_in(path) if name.startswith("test_paper_7_")}
    assert sorted(named - set(TESTS)) == []
    assert len(TESTS) == len(set(TESTS))
    for point, cells in ROWS.items():
        others = [n for n in re.findall(r"::test_paper_(7_\d+)_", cells[3]) if n != point.replace(".", "_")]
        assert others == [], point
