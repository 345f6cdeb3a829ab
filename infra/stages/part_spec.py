"""One part of a stage, ready to be computed anywhere, and the form in which it travels to where that happens."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from infra.names import ManifestName, PartName
from infra.stages.stage import Stage
from infra.storage.artifacts import Artifact, Table


@dataclass(frozen=True)
class SharedSpec:
    """What all parts of a stage have in common. The parts refer to this one object; none has a copy.

    ingredients: of the parts' keys, without the inputs.
    inputs: those that every part gets whole.
    """

    stage: Stage
    config: Mapping[str, Any]
    ingredients: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    engine: BaseModel | None = None


@dataclass(frozen=True)
class PartSpec:
    """One part of a stage, ready to be computed anywhere: references only, no data.

    since: what the ledger or the vectors were told before is not recalled, in seconds since the epoch; 0: all of it is.
    shared: what it has in common with the other parts of its stage; None for a part that was made alone.
    """

    stage: Stage
    name: str  # as people see it: stage, label and number
    index: int  # the index its output pieces carry
    number: int
    key: str
    attempt: int
    ingredients: Mapping[str, Any]
    config: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    engine: BaseModel | None = None
    since: int = 0
    shared: SharedSpec | None = field(default=None, compare=False, repr=False)

    @property
    def stage_name(self) -> str:
        """The stage's name with its label."""
        return str(PartName.parse(self.name).stage)

    @property
    def workers(self) -> int:
        """How many processes compute it together: those that its settings name, if its stage trains."""
        return int(self.config.get("workers", 1)) if self.stage.trains else 1

    @property
    def stored_name(self) -> str:
        """The stage, and the name of the manifest that the part will have."""
        return f"{self.stage.name}/{ManifestName(self.key, self.attempt)}"


@dataclass(frozen=True)
class OwnSpec:
    """What a part has of its own: together with `SharedSpec` it is the part. Its size is that of its own inputs.

    config: only where the part's differs from that of its stage, as after memory ran out.
    """

    name: str
    index: int
    number: int
    key: str
    attempt: int
    inputs: Mapping[str, Artifact]
    since: int = 0
    config: Mapping[str, Any] | None = None


def own_of(spec: PartSpec, shared: SharedSpec) -> OwnSpec:
    """Leave out what a part has in common with the other parts of its stage."""
    return OwnSpec(
        name=spec.name,
        index=spec.index,
        number=spec.number,
        key=spec.key,
        attempt=spec.attempt,
        inputs={name: artifact for name, artifact in spec.inputs.items() if name not in shared.inputs},
        since=spec.since,
        config=None if spec.config is shared.config else spec.config,
    )


def whole_of(own: OwnSpec, shared: SharedSpec) -> PartSpec:
    """Put a part together again: the opposite of `own_of`."""
    spec = PartSpec(
        stage=shared.stage,
        name=own.name,
        index=own.index,
        number=own.number,
        key=own.key,
        attempt=own.attempt,
        ingredients={},
        config=shared.config if own.config is None else own.config,
        inputs={**shared.inputs, **own.inputs},
        engine=shared.engine,
        since=own.since,
        shared=shared,
    )
    return replace(spec, ingredients=ingredients_of(spec, shared))


def ingredients_of(spec: PartSpec, shared: SharedSpec) -> dict[str, Any]:
    """Return what a part's key covers, with the contents of its inputs."""
    by_hashes = (*shared.stage.late, *shared.stage.late_each)
    covered = {name: artifact for name, artifact in spec.inputs.items() if name not in by_hashes}
    return {**shared.ingredients, "inputs": contents_of(shared.stage, covered)}


def contents_of(stage: Stage, inputs: Mapping[str, Artifact]) -> dict[str, list[str]]:
    """Return what a key covers of inputs: their contents; of a `numbered` one also the indexes of its pieces."""
    found = {name: artifact.content() for name, artifact in inputs.items()}
    numbered = ((name, inputs[name]) for name in stage.numbered if name in inputs)
    return found | {
        f"{name}.part": [str(piece.index if piece.part is None else piece.part) for piece in artifact.pieces]
        for name, artifact in numbered
        if isinstance(artifact, Table)
    }
