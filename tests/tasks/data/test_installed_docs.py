"""Documentation is found in an interpreter of its own."""

import numpy as np
import pytest

from tasks.data.installed_docs import DocumentationError, find_documentation


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
