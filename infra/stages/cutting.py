"""Cuts a stage into parts and gives each its key. What the parts share is worked out once, whatever their number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from infra.names import PartName, StageName
from infra.stages import part_keys
from infra.stages.part_spec import PartSpec, SharedSpec, contents_of
from infra.stages.stage import Stage
from infra.storage.artifacts import Artifact


@dataclass(frozen=True)
class Call:
    """One use of a stage.

    name: the stage's with its label. key: further ingredients of the key. engine: for stages that need one.
    inputs: by name, all that the stage reads.
    """

    stage: Stage
    name: StageName
    config: BaseModel
    inputs: Mapping[str, Artifact]
    key: Mapping[str, Any] = field(default_factory=dict)
    engine: BaseModel | None = None


def cut(call: Call, since: Callable[[int], int] = lambda number: 0) -> tuple[list[PartSpec], frozenset[int]]:
    """Cut a stage into parts; returns them and the indexes that wait for a failed part upstream.

    since: from when on a part recalls what its ledger was told, by its number (`PartSpec.since`).
    """
    stage, inputs = call.stage, call.inputs
    shared = _shared(call)
    contents = contents_of(stage, {name: inputs[name] for name in stage.every})
    keys = part_keys.StageKeys(shared.ingredients, contents)
    whole_missing = any(inputs[i].incomplete for i in (*stage.every, *stage.late, *stage.across))
    specs, blocked = [], set()
    for number, (index, crossed) in enumerate(_indexes(stage, inputs)):
        if whole_missing or any(inputs[i].lacks(index) for i in (*stage.each, *stage.late_each)):
            blocked.add(index)
            continue
        seen: dict[str, Artifact] = {i: inputs[i].at(index) for i in stage.each}
        seen |= {i: inputs[i].at(crossed) for i in stage.across}
        own_contents = contents_of(stage, seen)
        seen |= {i: inputs[i].at(index) for i in stage.late_each}
        specs.append(
            PartSpec(
                stage=stage,
                name=str(PartName(call.name, number)),
                index=index,
                number=number,
                key=keys.of(own_contents),
                attempt=0,
                ingredients={**shared.ingredients, "inputs": {**contents, **own_contents}},
                config=shared.config,
                inputs={**shared.inputs, **seen},
                engine=call.engine,
                since=since(number),
                shared=shared,
            )
        )
    return specs, frozenset(blocked)


def _shared(call: Call) -> SharedSpec:
    stage = call.stage
    ingredients: dict[str, Any] = {
        "stage": stage.name,
        "version": stage.version,
        "config": part_keys.semantic(call.config),
        **call.key,
    }
    if call.engine is not None:
        ingredients["engine"] = part_keys.semantic(call.engine)
    return SharedSpec(
        stage=stage,
        config=call.config.model_dump(mode="json"),
        ingredients=ingredients,
        inputs={name: call.inputs[name] for name in (*stage.every, *stage.late)},
        engine=call.engine,
    )


def _indexes(stage: Stage, inputs: Mapping[str, Artifact]) -> list[tuple[int, int]]:
    if stage.arity in ("gather", "single"):
        return [(0, 0)]
    each = sorted(frozenset[int]().union(*(inputs[i].indexes for i in stage.each)))
    if stage.arity == "map":
        return [(index, 0) for index in each]
    across = sorted(frozenset[int]().union(*(inputs[i].indexes for i in stage.across)))
    return [(index, crossed) for index in each for crossed in across]
