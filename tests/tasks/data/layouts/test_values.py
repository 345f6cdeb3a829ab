"""Single values of other people's objects."""

from typing import Any

import numpy as np
import pytest

from tasks.data.layouts.values import has_content, identifier, name_of, number_of, optional_text, required_text
from tasks.lines import UnusableError


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (7, "7"),
        (7.0, "7"),
        (np.int64(7), "7"),
        (np.float32(7), "7"),
        (-3, "-3"),
        (10**20, "1" + "0" * 20),
        (" a\tb\n", "a b"),
        ("7.0", "7.0"),
    ],
)
def test_an_id_is_a_string_or_a_whole_number(value: object, read: str) -> None:
    assert identifier(value, "docid") == read


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no_id"),
        ("", "no_id"),
        (" ", "no_id"),
        (float("nan"), "no_id"),
        (1.5, "wrong_type"),
        (float("inf"), "wrong_type"),
        (True, "wrong_type"),
        ([1], "wrong_type"),
        ([], "wrong_type"),
        ({}, "wrong_type"),
        ("x" * 10_001, "id_too_long"),
    ],
)
def test_what_is_no_id_is_refused_with_its_reason(value: Any, reason: str) -> None:
    with pytest.raises(UnusableError) as error:
        identifier(value, "docid")
    assert error.value.reason == reason


def test_a_missing_name_is_empty() -> None:
    assert [name_of(value, "subset") for value in (None, "", float("nan"), 3)] == ["", "", "", "3"]


def test_a_required_text_says_what_is_missing() -> None:
    with pytest.raises(UnusableError, match="no_query: question is missing"):
        required_text(None, "question", "no_query")
    with pytest.raises(UnusableError, match="empty_text: question is empty"):
        required_text(" ", "question", "no_query")
    assert optional_text(float("nan"), "title") == ""
    with pytest.raises(UnusableError, match="wrong_type: title is a number"):
        optional_text(5, "title")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (1, 1.0),
        (0.5, 0.5),
        (np.float32(0.5), 0.5),
        (True, None),
        ("1", None),
        (float("nan"), None),
        (2**31, None),
        (10**400, None),
    ],
)
def test_a_number_is_finite_and_a_table_can_hold_it(value: object, read: float | None) -> None:
    assert number_of(value) == read


def test_null_and_what_is_empty_have_no_content() -> None:
    assert not any(map(has_content, (None, "", [], {}, float("nan"))))
    assert all(map(has_content, (0, False, " ", [None], {"a": None})))
