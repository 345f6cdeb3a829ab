"""Documentation is found in an interpreter of its own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks.data.installed_docs import DocumentationError, find_documentation, walk


def test_functions_classes_and_their_own_members_are_found_and_values_are_not() -> None:
    names = {name for found in find_documentation(["fractions"]).values() for name in found}
    assert {"fractions.Fraction", "fractions.Fraction.limit_denominator"} <= names
    assert not {"fractions.Decimal", "fractions.math", "fractions.Fraction.conjugate"} & names


def test_what_this_process_patched_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.linalg.LinAlgError, "__doc__", "Patched by somebody else.")
    assert "Patched by somebody else." not in find_documentation(["numpy.linalg"])


def test_a_missing_submodule_is_passed_over() -> None:
    assert find_documentation(["fractions", "fractions.none"]) == find_documentation(["fractions"])


def test_a_missing_library_is_named() -> None:
    with pytest.raises(DocumentationError, match=r"no_such_library.*install what is missing"):
        find_documentation(["no_such_library"])


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A library of one module, and another one that it imports from."""
    (tmp_path / "toy_other.py").write_text('def borrowed():\n    """Other."""\n')
    (tmp_path / "toy_library.py").write_text(
        """
import math
from toy_other import borrowed

NUMBER = 5


class _Hidden:
    def inherited(self):
        '''From a class without a public name.'''


class Shown:
    '''A class.'''

    def inherited(self):
        '''From a public class.'''

    @property
    def size(self):
        '''A property.'''

    @classmethod
    def build(cls):
        '''A class method.'''

    def _private(self):
        '''Private.'''


class Child(_Hidden, Shown):
    '''A child.'''


def a_function():
    '''Shared words.'''


def function():
    '''Shared words.'''


def blank():
    '''   '''


def _private():
    '''Private.'''
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "toy_library"
    for name in ("toy_library", "toy_other"):
        sys.modules.pop(name, None)


def test_public_members_are_found_under_their_names_the_shortest_first(library: str) -> None:
    assert walk([library]) == {
        "A class.": ["toy_library.Shown"],
        "From a public class.": ["toy_library.Shown.inherited"],
        "A property.": ["toy_library.Shown.size"],
        "A class method.": ["toy_library.Shown.build"],
        "A child.": ["toy_library.Child"],
        "From a class without a public name.": ["toy_library.Child.inherited"],
        "Shared words.": ["toy_library.function", "toy_library.a_function"],
    }


def test_members_of_another_library_are_found_where_that_is_asked_for_too(library: str) -> None:
    assert walk([library, "toy_other"])["Other."] == ["toy_other.borrowed", "toy_library.borrowed"]


def test_a_submodule_may_be_missing_and_a_library_may_not(library: str) -> None:
    assert walk(["toy_other", "toy_other.none"]) == {"Other.": ["toy_other.borrowed"]}
    with pytest.raises(ModuleNotFoundError):
        walk(["toy_nothing"])


def test_members_written_in_c_belong_to_the_class_that_defines_them() -> None:
    found = {name for names in walk(["fractions", "array"]).values() for name in names}
    assert "array.array.append" in found
    assert "array.array.itemsize" in found


def test_the_last_line_of_what_went_wrong_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DocumentationError, match=r"of toy_broken could not be read \(RuntimeError: no licence\)"):
        find_documentation(["toy_broken", "toy_broken.part"])
