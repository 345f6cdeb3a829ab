"""Parts on their way to workers, with Ray's store in the place of a dictionary; with Ray, in test_flow_runs.py."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import ray
from ray import cloudpickle

from infra.execution import sent_parts
from infra.execution.sent_parts import SentPart, pack, pack_result, unpack, unpack_result
from infra.names import StageName
from infra.stages.cutting import Call, cut
from infra.stages.part_spec import PartSpec
from infra.stages.stage import Stage
from infra.storage.artifacts import Manifest, Piece, Table
from tests.infra.toy import ToyConfig

STAGE = Stage("s", "m:f", 1, "map", each=("own",), every=("all",))


@dataclass(frozen=True)
class Reference:
    number: int

    def hex(self) -> str:
        return f"{self.number:x}"


@dataclass
class Placed:
    """What was put into Ray's store, and how often each was fetched."""

    values: list[bytes] = field(default_factory=list)
    fetched: list[int] = field(default_factory=list)

    def put(self, value: Any) -> Reference:
        self.values.append(cloudpickle.dumps(value))
        return Reference(len(self.values) - 1)

    def get(self, reference: Reference) -> Any:
        self.fetched.append(reference.number)
        return cloudpickle.loads(self.values[reference.number])


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Placed:
    placed = Placed()
    monkeypatch.setattr(ray, "put", placed.put)
    monkeypatch.setattr(ray, "get", placed.get)
    monkeypatch.setattr(sent_parts, "_placed", sent_parts._Kept())
    monkeypatch.setattr(sent_parts, "_fetched", sent_parts._Kept())
    return placed


def parts(pieces: int) -> list[PartSpec]:
    found = Table("t", tuple(Piece(n, f"objects/aa/{n:064x}.parquet", 3) for n in range(pieces)))
    return cut(Call(STAGE, StageName("s", ""), ToyConfig(), {"own": found, "all": found}))[0]


def sent(spec: PartSpec) -> SentPart:
    there: SentPart = cloudpickle.loads(cloudpickle.dumps(pack(spec)))
    return there


def test_what_a_stage_shares_is_put_and_fetched_once_and_every_part_arrives_whole(placed: Placed) -> None:
    specs = parts(50)
    assert [unpack(sent(spec)) for spec in specs] == specs
    assert (len(placed.values), placed.fetched) == (1, [0])


def test_what_is_sent_of_a_part_does_not_grow_with_the_pieces_that_all_parts_read(placed: Placed) -> None:
    few, many = (len(cloudpickle.dumps(pack(parts(pieces)[2]))) for pieces in (3, 500))
    assert few == many < 3000
    assert len(cloudpickle.dumps(parts(500)[2])) > 10 * many


def test_a_part_whose_batches_were_halved_keeps_them(placed: Placed) -> None:
    spec = replace(parts(3)[0], config={"batch_size": 4}, attempt=2)
    assert unpack(sent(spec)) == spec


def test_the_stages_that_were_sent_last_are_kept_and_an_earlier_one_is_put_again(placed: Placed) -> None:
    first, second, third = (parts(2) for _ in range(3))
    for specs in (first, second, first, third, first, second):
        assert unpack(sent(specs[1])) == specs[1]
    assert len(placed.values) == 4


def test_a_part_that_was_made_alone_is_sent_whole(placed: Placed) -> None:
    spec = replace(parts(3)[0], shared=None)
    assert sent(spec) == SentPart(spec)
    assert unpack(sent(spec)) == spec
    assert placed.values == []


def test_the_ingredients_of_the_key_do_not_travel_back(placed: Placed) -> None:
    spec = parts(3)[1]
    manifest = Manifest("s", 1, 1, spec.key, 0, spec.ingredients, {}, {}, {"seconds": 1.0})
    back = pack_result(pack(spec), manifest)
    assert back.ingredients == {}
    assert unpack_result(spec, back) == manifest
    alone = replace(spec, shared=None)
    assert unpack_result(alone, pack_result(pack(alone), manifest)) == manifest
