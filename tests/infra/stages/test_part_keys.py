"""What a part's key covers, and how two keys differ."""

import math
from typing import Any

import pytest
from pydantic import BaseModel, Field

from infra.stages.part_keys import canonical, differences, digest, semantic


class Inner(BaseModel):
    depth: int = 1
    batch_size: int = Field(8, json_schema_extra={"operational": True})


class Outer(BaseModel):
    seed: int = 0
    workers: int = Field(2, json_schema_extra={"operational": True})
    shown: int = Field(3, json_schema_extra={"operational": False})
    told: int = Field(4, json_schema_extra=lambda schema: None)
    one: Inner = Inner()
    many: list[Inner] = [Inner()]
    named: dict[str, Inner] = {"a": Inner()}
    numbered: dict[int, Inner] = {1: Inner()}
    deep: list[dict[str, tuple[Inner, ...]]] = [{"b": (Inner(), Inner())}]
    plain: tuple[int, ...] = (1, 2)


def test_operational_fields_are_left_out_however_deep_they_lie() -> None:
    assert semantic(Outer()) == {
        "seed": 0,
        "shown": 3,
        "told": 4,
        "one": {"depth": 1},
        "many": [{"depth": 1}],
        "named": {"a": {"depth": 1}},
        "numbered": {1: {"depth": 1}},
        "deep": [{"b": [{"depth": 1}, {"depth": 1}]}],
        "plain": [1, 2],
    }


class Grown(BaseModel):
    depth: int = 1
    limit: int = Field(9, json_schema_extra={"keyed_when_set": True})
    names: tuple[str, ...] = Field(default_factory=tuple, json_schema_extra={"keyed_when_set": True})


def test_a_setting_that_was_added_later_is_left_out_only_at_its_default() -> None:
    assert semantic(Grown()) == semantic(Grown(limit=9, names=())) == {"depth": 1}
    assert semantic(Grown(limit=10)) == {"depth": 1, "limit": 10}
    assert semantic(Grown(names=("a",))) == {"depth": 1, "names": ["a"]}


def test_equal_values_are_equal_strings_whatever_the_order_of_their_names() -> None:
    assert canonical({"b": 1, "a": [1.5, None, True, "é"]}) == '{"a":[1.5,null,true,"é"],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})


def test_a_digest_has_thirty_two_hexadecimal_digits_and_is_the_same_in_every_process() -> None:
    assert digest({"stage": "judge"}) == "bf651a6d21d6c2f18a6395c35f6b441b"
    assert digest([1]) != digest([2])


def test_a_number_that_is_none_in_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        canonical(math.nan)


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"config": {"depth": 50, "seed": 0}}, {"config": {"depth": 100, "seed": 0}}, ["config.depth: 50 → 100"]),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, ["a: 1 → 2", "b: 1 → 2"]),
        ({"a": 1}, {}, ["a: 1 → null"]),
        ({}, {"a": {"b": 1}}, ['a: null → {"b":1}']),
        ({"a": {"b": 1}}, {"a": 2}, ['a: {"b":1} → 2']),
        ({"inputs": ["x"]}, {"inputs": ["x", "y"]}, ['inputs: ["x"] → ["x","y"]']),
        (1, 2, [": 1 → 2"]),
    ],
)
def test_each_difference_is_a_line_that_names_its_path(old: Any, new: Any, lines: list[str]) -> None:
    assert differences(old, new) == lines
