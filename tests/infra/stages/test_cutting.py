"""Cutting a stage into parts; how the runner does it with manifests, in test_runner.py."""

from typing import Any

import pytest

from infra.names import StageName
from infra.stages.cutting import Call, cut
from infra.stages.part_keys import digest
from infra.stages.part_spec import ingredients_of
from infra.stages.stage import Stage
from infra.storage.artifacts import Directory, Piece, Table
from tests.infra.frozen import can_be_changed
from tests.infra.toy import ToyConfig


def table(*indexes: int, missing: frozenset[int] = frozenset(), partial: bool = False) -> Table:
    pieces = tuple(Piece(index, f"objects/aa/{place:064x}.parquet", 3) for place, index in enumerate(indexes))
    return Table("t", pieces, missing, partial)


def call(stage: Stage, **inputs: Any) -> Call:
    return Call(stage, StageName("s", ""), ToyConfig(), inputs, {"prompt": "abc"}, ToyConfig(factor=2))


GRID = Stage("s", "m:f", 3, "grid", each=("a", "e"), across=("b",), every=("c", "d"), late=("l",))


def test_each_key_is_the_digest_of_the_ingredients_that_are_kept_with_the_part() -> None:
    folder = Directory("d", {"x.txt": "objects/bb/x"})
    whole = {"c": table(0, 1, 2), "d": folder, "l": table(0)}
    specs, blocked = cut(call(GRID, a=table(0, 0, 2), e=table(2, 0), b=table(0, 1), **whole))
    assert [(spec.number, spec.index, spec.name) for spec in specs] == [
        (0, 0, "s-00000"), (1, 0, "s-00001"), (2, 2, "s-00002"), (3, 2, "s-00003"),
    ]  # fmt: skip
    assert [spec.key for spec in specs] == [digest(spec.ingredients) for spec in specs]
    assert len({spec.key for spec in specs}) == 4
    assert blocked == frozenset()
    assert set(specs[0].ingredients) == {"stage", "version", "config", "prompt", "engine", "inputs"}
    assert set(specs[0].ingredients["inputs"]) == {"a", "e", "b", "c", "d"}  # the late one is read, and not in the key
    assert specs[3].inputs == {
        "a": whole_at(table(0, 0, 2), 2), "e": whole_at(table(2, 0), 2), "b": whole_at(table(0, 1), 1), **whole,
    }  # fmt: skip


def whole_at(found: Table, index: int) -> Table:
    return Table(found.name, tuple(piece for piece in found.pieces if piece.index == index))


@pytest.mark.parametrize(
    ("inputs", "numbers", "blocked"),
    [
        ({"a": table(0, 2, missing=frozenset({1}))}, [0, 2], {1}),
        ({"a": table(0, 1, 2, partial=True)}, [], {0, 1, 2}),
        ({"b": table(0, missing=frozenset({1}))}, [], {0, 1, 2}),
        ({"b": table(0, partial=True)}, [], {0, 1, 2}),
    ],
    ids=["a piece of its own", "rows at any index", "a piece of a whole input", "rows of a whole input"],
)
def test_a_part_waits_for_what_is_missing(inputs: dict[str, Table], numbers: list[int], blocked: set[int]) -> None:
    stage = Stage("s", "m:f", 1, "map", each=("a",), every=("b",))
    specs, waiting = cut(call(stage, **{"a": table(0, 1, 2), "b": table(0), **inputs}))
    assert [spec.number for spec in specs] == numbers
    assert waiting == blocked


def test_a_part_has_only_its_own_pieces_of_what_its_key_covers_by_hashes() -> None:
    stage = Stage("s", "m:f", 1, "map", each=("a",), late_each=("b",))
    own = table(0, 1, 1, 2)
    specs, _ = cut(call(stage, a=table(0, 1), b=own))
    assert [spec.inputs["b"] for spec in specs] == [whole_at(own, 0), whole_at(own, 1)]
    assert set(specs[0].ingredients["inputs"]) == {"a"}
    assert specs[0].ingredients == ingredients_of(specs[0], specs[0].shared or pytest.fail("no shared"))
    other, _ = cut(call(stage, a=table(0, 1), b=table(1, 1, 0)))
    assert [spec.key for spec in other] == [spec.key for spec in specs]
    waiting = cut(call(stage, a=table(0, 1), b=table(0, missing=frozenset({1}))))[1]
    assert waiting == {1}


@pytest.mark.parametrize("role", ["each", "every"])
def test_the_indexes_of_a_numbered_input_are_in_the_key_because_the_function_sees_them(role: str) -> None:
    arity = "map" if role == "each" else "gather"
    stage = Stage("s", "m:f", 1, arity, numbered=("a",), **{role: ("a",)})  # type: ignore[arg-type]
    here, there = (Table("a", (Piece(index, "objects/aa/00.parquet", 3),)) for index in (3, 4))
    (one,), (two,) = cut(call(stage, a=here))[0], cut(call(stage, a=there))[0]
    assert one.ingredients["inputs"]["a"] == two.ingredients["inputs"]["a"]
    assert one.key != two.key
    assert one.key == digest(one.ingredients) == digest(ingredients_of(one, one.shared or pytest.fail("no shared")))


def test_what_is_recalled_is_asked_by_the_parts_number() -> None:
    specs, _ = cut(call(Stage("s", "m:f", 1, "map", each=("a",)), a=table(5, 6)), lambda number: 100 + number)
    assert [(spec.index, spec.since) for spec in specs] == [(5, 100), (6, 101)]


def test_a_stage_that_is_one_part_gets_all_pieces() -> None:
    (spec,), _ = cut(call(Stage("s", "m:f", 1, "gather", every=("a",)), a=table(3, 4)))
    assert (spec.index, spec.inputs) == (0, {"a": table(3, 4)})


def test_a_call_of_a_stage_cannot_be_changed() -> None:
    assert not can_be_changed(call(GRID))
