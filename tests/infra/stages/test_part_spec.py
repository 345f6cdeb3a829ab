"""A part and what it has in common with the others of its stage: taken apart and put together again."""

import pickle
from dataclasses import replace
from typing import Any

import pytest

from infra.names import StageName
from infra.stages.cutting import Call, cut
from infra.stages.part_spec import PartSpec, SharedSpec, own_of, whole_of
from infra.stages.stage import Stage
from infra.storage.artifacts import Piece, Table
from tests.infra.frozen import can_be_changed
from tests.infra.toy import ToyConfig

STAGE = Stage("s", "m:f", 1, "map", each=("own",), every=("all",), late=("late",))


def table(name: str, pieces: int) -> Table:
    return Table(name, tuple(Piece(n, f"objects/aa/{n:064x}.parquet", 3) for n in range(pieces)))


def parts(pieces: int = 4) -> list[PartSpec]:
    inputs = {name: table(name, pieces) for name in STAGE.inputs}
    return cut(Call(STAGE, StageName("s", "label"), ToyConfig(), inputs, {"prompt": "abc"}, ToyConfig(factor=2)))[0]


def shared_of(spec: PartSpec) -> SharedSpec:
    assert spec.shared is not None
    return spec.shared


def test_a_part_comes_back_as_it_was() -> None:
    for spec in parts():
        for changed in (spec, replace(spec, attempt=3, since=7), replace(spec, config={"batch_size": 4})):
            shared = shared_of(changed)
            sent = pickle.loads(pickle.dumps(own_of(changed, shared)))
            assert whole_of(sent, pickle.loads(pickle.dumps(shared))) == changed


def test_all_parts_of_a_stage_refer_to_the_same_shared_things() -> None:
    specs = parts()
    assert len({id(spec.shared) for spec in specs}) == 1
    assert len({id(spec.config) for spec in specs}) == 1
    assert len({id(spec.ingredients["inputs"]["all"]) for spec in specs}) == 1


@pytest.mark.parametrize("pieces", [300])
def test_what_a_part_has_of_its_own_does_not_grow_with_the_pieces_of_a_whole_input(pieces: int) -> None:
    few, many = (len(pickle.dumps(own_of(spec, shared_of(spec)))) for spec in (parts(3)[1], parts(pieces)[1]))
    assert few == many < 2000
    assert len(pickle.dumps(parts(pieces)[1])) > 20 * many  # with what it shares


def test_the_name_of_a_parts_stage_has_its_label() -> None:
    assert {spec.stage_name for spec in parts()} == {"s-label"}


def test_a_part_and_its_own_half_cannot_be_changed() -> None:
    spec = parts()[0]
    values: list[Any] = [spec, spec.shared, own_of(spec, shared_of(spec))]
    assert [value for value in values if can_be_changed(value)] == []


def test_only_a_stage_that_trains_has_several_workers() -> None:
    spec = replace(parts()[0], config={"workers": 3}, key="5f3c", attempt=2)
    assert spec.workers == 1
    assert replace(spec, stage=replace(STAGE, trains=True)).workers == 3
    assert replace(spec, stage=replace(STAGE, trains=True), config={}).workers == 1
    assert spec.stored_name == "s/5f3c-002"
