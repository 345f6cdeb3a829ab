"""The examples in docstrings give what they show."""

import doctest
import importlib

import pytest

from tests import house

WITH_EXAMPLES = [
    house.dotted(path) for path in house.modules() if ">>>" in (house.ROOT / path).read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_give_what_they_show(name: str) -> None:
    done = doctest.testmod(importlib.import_module(name), optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
    assert (done.failed, done.attempted > 0) == (0, True)
