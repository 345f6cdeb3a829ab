"""The layout of the real code, and that each check of it finds what is planted in a small tree."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import house

MODULE = '"""A module."""\n'


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree with a short order of folders, which the checks look at in place of the project's."""
    order = {"infra": ("infra", "infra/storage", "infra/stages"), "tasks": ("tasks",), "flows": ("flows",)}
    monkeypatch.setattr(house, "ROOT", tmp_path)
    monkeypatch.setattr(house, "ORDER", order)
    return tmp_path


def plant(tree: Path, files: Mapping[str, str]) -> None:
    """Write modules, and the `__init__.py` of every folder above them."""
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.relative_to(tree).parents[:-1]:
            (tree / folder / "__init__.py").touch()


# ---- the project ----


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = house.imports()
    assert len(graph) > 100
    assert house.circles(graph) == []


def test_no_module_imports_from_a_folder_that_stands_above_or_what_its_package_may_not() -> None:
    assert house.upward(house.imports()) == []


def test_no_folder_file_or_function_is_too_large() -> None:
    assert list(house.too_large()) == []


def test_every_folder_has_a_place_in_the_order() -> None:
    assert house.unplaced() == []


def test_no_module_gives_one_name_to_two_things() -> None:
    assert list(house.named_twice()) == []


# ---- the checks ----


def test_a_name_given_twice_at_the_top_level_is_found(tree: Path) -> None:
    plant(
        tree,
        {
            "tasks/summaries.py": "FOUND = 1\n(A, B) = (1, 2)\nFOUND: int = 2\ndef read(): ...\nclass read: ...\n",
            "tasks/once.py": "FOUND = 1\ndef read():\n    found = 1\n    found = 2\n",
        },
    )
    assert list(house.named_twice()) == [f"tasks/summaries.py: {name} is given 2 times" for name in ("FOUND", "read")]


def test_imports_count_wherever_they_stand_and_name_the_module_not_its_folder(tree: Path) -> None:
    plant(
        tree,
        {
            "infra/settings.py": "import json\n",
            "infra/storage/store.py": "from infra.settings import Settings\n",
            "infra/storage/gc.py": "def run():\n    from infra.storage import store\n    import infra.settings\n",
            "tasks/mine.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tasks.texts import Text\n",
            "tasks/texts.py": "import tasks\n",
        },
    )
    graph = house.imports()
    assert {name: targets for name, targets in graph.items() if targets} == {
        "infra.storage.store": {"infra.settings"},
        "infra.storage.gc": {"infra.storage.store", "infra.settings"},
        "tasks.mine": {"tasks.texts"},
    }
    assert {"infra", "infra.settings", "infra.storage", "tasks", "tasks.texts"} <= set(graph)


def test_every_circle_is_found_with_all_that_belong_to_it() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a", "f"}, "f": {"e"}, "g": {"g", "a"}}
    assert house.circles(graph) == [["a", "b", "c"], ["e", "f"]]
    assert house.circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_an_import_of_a_folder_that_stands_above_is_found(tree: Path) -> None:
    plant(
        tree,
        {
            "infra/settings.py": "from infra.storage import store\n",
            "infra/storage/store.py": MODULE,
            "infra/stages/stage.py": "from infra.storage import store\nfrom infra import settings\n",
        },
    )
    assert house.upward(house.imports()) == [
        "infra.settings imports infra.storage.store: infra/storage stands above infra"
    ]


def test_an_import_that_a_package_may_not_make_is_found(tree: Path) -> None:
    plant(
        tree,
        {
            "flows/run.py": "import ray\nfrom tasks import mine\n",
            "infra/settings.py": "def run():\n    from tasks.mine import x\n    import flows.run\n",
            "tasks/mine.py": "import polars\nimport ray.util\nfrom infra import settings\n",
        },
    )
    assert house.upward(house.imports()) == [
        "infra/settings.py imports flows",
        "infra/settings.py imports tasks",
        "tasks/mine.py imports infra",
        "tasks/mine.py imports ray",
    ]


def test_what_is_too_large_is_found_and_docstrings_do_not_count(tree: Path) -> None:
    docstring = '    """Does it.\n' + "\n" * 50 + '    """\n'
    body = "    x = 1\n"
    plant(
        tree,
        {
            "infra/long.py": "x = 1\n" * 401,
            "infra/full.py": "x = 1\n" * 400,
            "tasks/mine.py": f"def mine():\n{docstring}{body * 59}\nasync def search():\n{body * 60}",
            **{f"flows/part_{number}.py": MODULE for number in range(13)},
        },
    )
    assert list(house.too_large()) == [
        "flows/: 13 modules, 12 at most",
        "infra/long.py: 401 lines, 400 at most",
        "tasks/mine.py: search has 61 lines, 60 at most",
    ]


def test_a_folder_without_a_place_is_found(tree: Path) -> None:
    plant(tree, {"infra/storage/store.py": MODULE, "infra/new/thing.py": MODULE, "tasks/mine.py": MODULE})
    assert house.unplaced() == ["infra/new/"]


def test_scripts_in_folders_that_are_no_packages_do_not_count(tree: Path) -> None:
    plant(tree, {"infra/settings.py": MODULE})
    (tree / "infra" / "requirements").mkdir()
    (tree / "infra" / "requirements" / "audit.py").write_text("import flows\n")
    assert house.modules() == [Path("infra/__init__.py"), Path("infra/settings.py")]
    assert house.code_modules() == [Path("infra/settings.py")]


def test_a_module_without_a_test_file_of_its_own_is_found(tree: Path) -> None:
    plant(
        tree,
        {
            "infra/storage/store.py": MODULE,
            "flows/__main__.py": MODULE,
            "tasks/protocols.py": MODULE,
            "tasks/mine.py": MODULE,
            "tests/tasks/test_mine.py": MODULE,
        },
    )
    assert house.untested() == [
        "flows/__main__.py: tests/flows/test_main.py is missing",
        "infra/storage/store.py: tests/infra/storage/test_store.py is missing",
    ]


@pytest.mark.slow
def test_a_module_that_its_own_test_file_covers_too_little_is_found(tree: Path) -> None:
    half = (
        "def one():\n    a = 1\n    return a\n\n\ndef two():\n    b = 2\n    c = 3\n    d = 4\n    return b + c + d\n"
    )
    plant(
        tree,
        {
            "tasks/half.py": half,
            "tests/tasks/test_half.py": "from tasks.half import one\n\n\ndef test_one():\n    assert one() == 1\n",
            "tasks/whole.py": "def one():\n    return 1\n",
            "tests/tasks/test_whole.py": "from tasks.whole import one\n\n\ndef test_one():\n    assert one() == 1\n",
        },
    )
    assert house.little_covered(jobs=2) == ["tasks/half.py: 50% covered by tests/tasks/test_half.py, 60% at least"]


def test_what_is_found_is_printed_and_makes_the_command_fail(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["house", "--fast"])
    plant(tree, {"tasks/mine.py": "import ray\n", "tests/tasks/test_mine.py": MODULE})
    assert house.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "0 import circles",
        "1 imports upward",
        "  tasks/mine.py imports ray",
        "0 folders without a place in the order",
        "0 folders, files and functions that are too large",
        "0 names that a module gives to two things",
        "0 modules without a test file of their own",
        "1 modules in 1 folders",
    ]
    plant(tree, {"tasks/mine.py": MODULE})
    assert house.main() == 0
