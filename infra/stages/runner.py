"""The stage runner: cuts a stage into parts, keys them, reuses what is finished and hands the rest to an executor.

It knows stages, artifacts and keys, but neither Prefect nor Ray. Without an executor it only looks parts up: if all
parts of a curation are finished, its results are read from the manifests and nothing is started.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import polars as pl
from pydantic import BaseModel

from infra.names import PartName, StageName
from infra.stages import part_keys
from infra.stages.stage import Resources, Stage
from infra.storage.artifacts import (
    Artifact,
    Directory,
    Manifest,
    Table,
    newest_attempts,
    read_manifest,
    read_table,
    write_table,
)
from infra.storage.store import Store
from infra.storage.table_schema import SchemaLike


@dataclass(frozen=True)
class PartSpec:
    """One part of a stage, ready to be computed anywhere: references only, no data.

    since: what the ledger was told before is not recalled, in seconds since the epoch; 0: everything is (`Ledger`).
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

    @property
    def stage_name(self) -> str:
        """The stage's name with its label."""
        return str(PartName.parse(self.name).stage)


@dataclass(frozen=True)
class Failure:
    """A part that could not be computed, with its reason in one line."""

    reason: str


@dataclass(frozen=True)
class StageRun:
    """What happened to one stage: a row of `reneg status` and of the summary in the terminal."""

    name: str
    parts: int
    reused: int
    computed: int
    failed: Mapping[int, str]
    blocked: int
    unfinished: frozenset[int]  # numbers of the parts that have no manifest
    rows: int
    seconds: float  # working time of its parts, whenever they were computed
    manifests: tuple[Manifest, ...] = ()
    ingredients: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # of the parts' keys, by number

    def line(self) -> str:
        """Return a line that says what happened."""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        blocked = f", {self.blocked} blocked" if self.blocked else ""
        return (
            f"{self.name}: {self.computed} computed, {self.reused} reused{failed}{blocked}; "
            f"{self.rows} rows, {self.seconds:.1f} s of work"
        )

    @property
    def finished(self) -> dict[int, Manifest]:
        """Manifests by part number."""
        numbers = [number for number in sorted(self.ingredients) if number not in self.unfinished]
        return dict(zip(numbers, self.manifests, strict=True))


class WorkNeeded(Exception):
    """Raised by a runner without an executor, at the first stage with an unfinished part."""

    def __init__(self, run: StageRun) -> None:
        """Keep what is known of the stage."""
        super().__init__(f"{run.name}: {run.parts - run.reused} of {run.parts} parts are not computed yet")
        self.run = run


class PartDone(Exception):
    """Raised by a runner that computes one part only, after that part was computed or has failed."""

    def __init__(self, run: StageRun) -> None:
        """Keep what became of it."""
        super().__init__(f"{run.name}: {run.computed} computed, {len(run.failed)} failed")
        self.run = run


class PartUnready(Exception):
    """The one part to compute does not exist, or what it reads is not finished."""


class Executor(Protocol):
    """Computes parts; the result has one entry per part number."""

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        """Compute the parts that are not in `finished`, and show those that are as reused."""
        ...


@dataclass
class Runner:
    """Runs the stages of one curation against one store.

    force: (stage name with label, part number) to compute again though a manifest exists, as a new attempt.
    only: the one part to compute; unfinished parts elsewhere count as missing, and the walk ends with `PartDone`.
    since: parts that ask a ledger do not recall what it was told before, in seconds since the epoch, and are computed
        again unless that was done already; with `force` only the parts named there. 0: everything is recalled.
    resources: by stage name, with or without its label, instead of the stage table's.
    known: by stage name with label, what an earlier walk of the same method found. A stage whose parts are the same and
        were all finished then takes its manifests from there, and the store is not read for it.
    """

    store: Store
    executor: Executor | None = None
    force: frozenset[tuple[str, int]] = frozenset()
    only: tuple[str, int] | None = None
    since: int = 0
    resources: Mapping[str, Resources] = field(default_factory=dict)
    known: Mapping[str, StageRun] = field(default_factory=dict)
    on_stage: Callable[[StageRun], None] = lambda run: None
    on_note: Callable[[str], None] = lambda text: None
    runs: list[StageRun] = field(default_factory=list)

    def __call__(
        self,
        stage: Stage,
        config: BaseModel,
        *,
        label: str = "",
        key: Mapping[str, Any] | None = None,
        engine: BaseModel | None = None,
        **inputs: Artifact,
    ) -> dict[str, Any]:
        """Run one stage and return its outputs by name.

        Args:
            stage: what to run.
            config: its configuration; operational fields stay out of the key.
            label: tells several runs of one stage apart (`treat-relabel`).
            key: further ingredients of the key, such as a prompt's hash.
            engine: the engine's specification, for stages that need one.
            **inputs: the artifacts named in `stage.inputs`.

        Raises:
            WorkNeeded: parts are unfinished and there is no executor.
        """
        if set(inputs) != set(stage.inputs):
            raise ValueError(f"stage {stage.name}: inputs {sorted(stage.inputs)} expected, {sorted(inputs)} came")
        stage_name = StageName(stage.name, label)
        name = str(stage_name)
        stage = replace(stage, resources=self.resources.get(name, self.resources.get(stage.name, stage.resources)))
        specs, blocked = self._cut(stage, stage_name, config, key or {}, engine, inputs)
        specs, finished = self._find_finished(stage, name, specs)
        if self.executor is None and len(finished) < len(specs):
            raise WorkNeeded(_summarise(name, len(finished), finished, {}, len(blocked), specs))
        results = self._results(name, specs, finished, len(blocked))
        manifests = {n: m for n, m in results.items() if isinstance(m, Manifest)}
        failures = {n: f.reason for n, f in results.items() if isinstance(f, Failure)}
        run = _summarise(name, len(finished), manifests, failures, len(blocked), specs)
        self.runs.append(run)
        self.on_stage(run)
        if self.only is not None and self.only[0] == name:
            raise PartDone(run)
        lost = blocked | {spec.index for spec in specs if spec.number not in manifests}
        return _outputs(stage, specs, manifests, lost)

    def _find_finished(
        self, stage: Stage, name: str, specs: list[PartSpec]
    ) -> tuple[list[PartSpec], Mapping[int, Manifest]]:
        """Return the parts with their attempts, and the manifests of those that are finished, by number."""
        if not (stage.ledger and self.since) and self._is_known(name, specs):
            finished = self.known[name].finished
            return [replace(spec, attempt=finished[spec.number].attempt) for spec in specs], finished
        newest = newest_attempts(self.store, stage.name) if specs else {}
        specs = [self._attempt(spec, newest) for spec in specs]
        finished = {
            spec.number: read_manifest(self.store, stage.name, spec.key, spec.attempt)
            for spec in specs
            if newest.get(spec.key, -1) >= spec.attempt
        }
        if not (stage.ledger and self.since) or self.force:
            return specs, finished
        old = {n for n, manifest in finished.items() if int(manifest.stats.get("asked_since", 0)) < self.since}
        return [replace(spec, attempt=spec.attempt + (spec.number in old)) for spec in specs], {
            number: manifest for number, manifest in finished.items() if number not in old
        }

    def _is_known(self, name: str, specs: Sequence[PartSpec]) -> bool:
        """Tell whether an earlier walk found exactly these parts, all finished, and none is to be computed again."""
        run = self.known.get(name)
        wanted = {stage for stage, _ in self.force} | {self.only[0] if self.only else ""}
        return (
            run is not None
            and name not in wanted
            and not run.unfinished
            and run.ingredients == {spec.number: spec.ingredients for spec in specs}
        )

    def _results(
        self, name: str, specs: list[PartSpec], finished: Mapping[int, Manifest], blocked: int
    ) -> Mapping[int, Manifest | Failure]:
        """Compute the unfinished parts, or the one part that is wanted."""
        if self.executor is None or (self.only is not None and self.only[0] != name):
            return finished
        if self.only is None:
            return self.executor.run_stage(name, specs, finished)
        wanted = [spec for spec in specs if spec.number == self.only[1]]
        if not wanted:
            total = len(specs) + blocked
            there = self.only[1] < total
            why = "what it reads is not finished" if there else f"there are {total}, numbered from 0"
            raise PartUnready(f"{name}: part {self.only[1]} cannot be computed alone: {why}")
        return {**finished, **self.executor.run_stage(name, wanted, {})}

    def _attempt(self, spec: PartSpec, newest: Mapping[str, int]) -> PartSpec:
        attempt = newest.get(spec.key, 0)
        if (spec.stage_name, spec.number) in self.force and spec.key in newest:
            attempt += 1
        return replace(spec, attempt=attempt)

    def _cut(
        self,
        stage: Stage,
        name: StageName,
        config: BaseModel,
        key: Mapping[str, Any],
        engine: BaseModel | None,
        inputs: Mapping[str, Artifact],
    ) -> tuple[list[PartSpec], frozenset[int]]:
        """Cut a stage into parts; returns them and the indexes that wait for a failed part upstream."""
        shared: dict[str, Any] = {
            "stage": stage.name,
            "version": stage.version,
            "config": part_keys.semantic(config),
            **key,
        }
        if engine is not None:
            shared["engine"] = part_keys.semantic(engine)
        whole_missing = any(inputs[i].incomplete for i in (*stage.every, *stage.late, *stage.across))
        specs, blocked = [], set()
        for number, (index, crossed) in enumerate(_indexes(stage, inputs)):
            if whole_missing or any(inputs[i].lacks(index) for i in stage.each):
                blocked.add(index)
                continue
            seen: dict[str, Artifact] = {i: inputs[i] for i in (*stage.every, *stage.late)}
            seen |= {i: inputs[i].at(index) for i in stage.each}
            seen |= {i: inputs[i].at(crossed) for i in stage.across}
            ingredients = shared | {"inputs": {i: a.content() for i, a in seen.items() if i not in stage.late}}
            specs.append(
                PartSpec(
                    stage=stage,
                    name=str(PartName(name, number)),
                    index=index,
                    number=number,
                    key=part_keys.digest(ingredients),
                    attempt=0,
                    ingredients=ingredients,
                    config=config.model_dump(mode="json"),
                    inputs=seen,
                    engine=engine,
                    since=self._since(stage, str(name), number),
                )
            )
        return specs, frozenset(blocked)

    def _since(self, stage: Stage, name: str, number: int) -> int:
        return self.since if stage.ledger and (not self.force or (name, number) in self.force) else 0

    def keep_table(
        self, name: str, frame: pl.DataFrame, schema: SchemaLike, indexes: frozenset[int] = frozenset({0})
    ) -> Table:
        """Store a table that no stage made (costs so far, or an empty one), the same piece at each index."""
        piece = write_table(self.store, name, frame, schema, 0)
        return Table(name, tuple(replace(piece, index=index) for index in sorted(indexes)))

    def read(self, table: Table) -> pl.DataFrame:
        """Read a whole table."""
        return read_table(self.store, table)


def _indexes(stage: Stage, inputs: Mapping[str, Artifact]) -> list[tuple[int, int]]:
    if stage.arity in ("gather", "single"):
        return [(0, 0)]
    each = sorted(frozenset[int]().union(*(inputs[i].indexes for i in stage.each)))
    if stage.arity == "map":
        return [(index, 0) for index in each]
    across = sorted(frozenset[int]().union(*(inputs[i].indexes for i in stage.across)))
    return [(index, crossed) for index in each for crossed in across]


def _outputs(
    stage: Stage, specs: Sequence[PartSpec], manifests: Mapping[int, Manifest], lost: frozenset[int]
) -> dict[str, Any]:
    done = [(spec.index, manifests[spec.number]) for spec in specs if spec.number in manifests]
    outputs: dict[str, Any] = {}
    for name, schema in stage.outputs.items():
        # Parts of equal content share a manifest, so the index is taken from the part and not from the manifest.
        kept = name in stage.splits or name in stage.scatters
        pieces = [p if kept else replace(p, index=i) for i, m in done for p in m.tables[name]]
        ordered = tuple(sorted(pieces, key=lambda piece: piece.index))
        if name in stage.scatters:
            outputs[name] = Table(name, ordered, partial=bool(lost), schema=schema)
        else:
            outputs[name] = Table(name, ordered, lost)
    for name in stage.directories:
        outputs[name] = Directory(name, done[0][1].directories[name] if done else {}, lost)
    return outputs


def _summarise(
    name: str,
    reused: int,
    manifests: Mapping[int, Manifest],
    failed: Mapping[int, str],
    blocked: int,
    specs: Sequence[PartSpec],
) -> StageRun:
    rows = sum(p.rows for m in manifests.values() for pieces in m.tables.values() for p in pieces)
    return StageRun(
        name=name,
        parts=len(specs) + blocked,
        reused=reused,
        computed=len(manifests) - reused,
        failed=failed,
        blocked=blocked,
        unfinished=frozenset(spec.number for spec in specs) - frozenset(manifests),
        rows=rows,
        # fsum gives the same sum for any order of the parts. With `sum` the costs would differ in their last bit, and
        # the report's key with them.
        seconds=math.fsum(float(m.stats.get("seconds", 0.0)) for m in manifests.values()),
        manifests=tuple(manifests[n] for n in sorted(manifests)),
        ingredients={spec.number: spec.ingredients for spec in specs},
    )
