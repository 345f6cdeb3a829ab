"""The stage runner: cuts a stage into parts, keys them, reuses what is finished and hands the rest to an executor.

It knows stages, artifacts and keys, but neither Prefect nor Ray. Without an executor it only looks parts up: if all
parts of a curation are finished, its results are read from the manifests and nothing is started.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import polars as pl
from pydantic import BaseModel

from infra.names import StageName
from infra.stages.cutting import Call, cut
from infra.stages.found_parts import FoundParts
from infra.stages.part_spec import PartSpec
from infra.stages.stage import Resources, Stage
from infra.storage.artifacts import Artifact, Directory, Manifest, Table, read_table, write_table
from infra.storage.store import Store
from infra.storage.table_schema import SchemaLike

__all__ = [
    "Executor",
    "Failure",
    "PartDone",
    "PartSpec",
    "PartUnready",
    "Runner",
    "StageRun",
    "WorkNeeded",
]


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
    def read_bytes(self) -> int:
        """Bytes that its parts read of their inputs, whenever they were computed; 0 for parts of an older version."""
        return sum(int(manifest.stats.get("read_bytes", 0)) for manifest in self.manifests)

    @property
    def peak_gib(self) -> float:
        """The highest memory of a process that computed one of its parts, in GiB."""
        return max((float(manifest.stats.get("peak_gib", 0.0)) for manifest in self.manifests), default=0.0)

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
    about: begins the label of every stage, to run the same stages on other tables (`judge-heldout-llm`).
    found: the finished parts that this walk knows. With those of an earlier walk (`FoundParts.for_another_walk`), the
        store is not read for a stage whose parts were all found then.
    """

    store: Store
    executor: Executor | None = None
    force: frozenset[tuple[str, int]] = frozenset()
    only: tuple[str, int] | None = None
    since: int = 0
    resources: Mapping[str, Resources] = field(default_factory=dict)
    about: str = ""
    found: FoundParts = field(default_factory=FoundParts)
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
        (made,) = self.together([self.call(stage, config, label=label, key=key, engine=engine, **inputs)])
        return made

    def call(
        self,
        stage: Stage,
        config: BaseModel,
        *,
        label: str = "",
        key: Mapping[str, Any] | None = None,
        engine: BaseModel | None = None,
        **inputs: Artifact,
    ) -> Call:
        """Return what `together` runs: one use of a stage, as `__call__` takes it."""
        if set(inputs) != set(stage.inputs):
            raise ValueError(f"stage {stage.name}: inputs {sorted(stage.inputs)} expected, {sorted(inputs)} came")
        name = StageName(stage.name, "-".join(filter(None, (self.about, label))))
        stage = replace(stage, resources=self.resources.get(str(name), self.resources.get(stage.name, stage.resources)))
        return Call(stage, name, config, inputs, key or {}, engine)

    def together(self, calls: Sequence[Call]) -> list[dict[str, Any]]:
        """Run stages of which none reads what another makes, side by side; returns the outputs of each by name.

        They need no engine, or only one of them does.

        Raises:
            WorkNeeded: parts are unfinished and there is no executor.
        """
        planned = [self._plan(call) for call in calls]
        working = [plan for plan in planned if len(plan.finished) < len(plan.specs)]
        if len(working) > 1 and self.only is None:
            return [self._finish(plan, found) for plan, found in zip(planned, self._side_by_side(planned), strict=True)]
        return [self._finish(plan, self._results(plan)) for plan in planned]

    def _plan(self, call: Call) -> "_Plan":
        """Cut a stage into parts, and look up those that are finished."""
        specs, blocked = cut(call, lambda number: self._since(call.stage, str(call.name), number))
        specs, finished = self._find_finished(call.stage, str(call.name), specs)
        if self.executor is None and len(finished) < len(specs):
            raise WorkNeeded(_summarise(str(call.name), len(finished), finished, {}, len(blocked), specs))
        return _Plan(call.stage, str(call.name), specs, finished, blocked)

    def _side_by_side(self, planned: "Sequence[_Plan]") -> "list[Mapping[int, Manifest | Failure]]":
        """Compute the parts of several stages at the same time, each stage from a thread of its own."""
        pool = ThreadPoolExecutor(len(planned), "stages")
        try:
            # What the executor finds in the context of this thread (a flow run) it finds in theirs.
            futures = [pool.submit(copy_context().run, self._results, plan) for plan in planned]
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # a signal must not wait for parts that are at work

    def _finish(self, plan: "_Plan", results: "Mapping[int, Manifest | Failure]") -> dict[str, Any]:
        """Note what happened to a stage, and return its outputs by name."""
        manifests = {n: m for n, m in results.items() if isinstance(m, Manifest)}
        self.found.add(plan.stage.name, (m for n, m in manifests.items() if n not in plan.finished))
        failures = {n: f.reason for n, f in results.items() if isinstance(f, Failure)}
        run = _summarise(plan.name, len(plan.finished), manifests, failures, len(plan.blocked), plan.specs)
        self.runs.append(run)
        self.on_stage(run)
        if self.only is not None and self.only[0] == plan.name:
            raise PartDone(run)
        lost = plan.blocked | {spec.index for spec in plan.specs if spec.number not in manifests}
        return _outputs(plan.stage, plan.specs, manifests, lost)

    def find(self, stage: Stage, config: BaseModel, **inputs: Artifact) -> Manifest | None:
        """Return the manifest of a stage of a single part if it is finished; nothing is computed or noted."""
        (spec,), _ = cut(Call(stage, StageName(stage.name), config, inputs))
        return self.found.look_up(self.store, stage.name, [spec.key]).get(spec.key)

    def _find_finished(
        self, stage: Stage, name: str, specs: list[PartSpec]
    ) -> tuple[list[PartSpec], Mapping[int, Manifest]]:
        """Return the parts with their attempts, and the manifests of those that are finished, by number."""
        wanted = {stage for stage, _ in self.force} | {self.only[0] if self.only else ""}
        found = self.found.look_up(self.store, stage.name, [spec.key for spec in specs], anew=name in wanted)
        placed: list[PartSpec] = []
        finished: dict[int, Manifest] = {}
        for spec in specs:
            manifest = found.get(spec.key)
            if manifest is None:
                placed.append(spec)
                continue
            again = self._is_wanted_again(stage, name, spec, manifest)
            # Vectors are encoded anew, each once whatever is retried.
            since = int(time.time()) if again and stage.vectors else spec.since
            placed.append(replace(spec, attempt=manifest.attempt + again, since=since))
            if not again:
                # Equal keys are made of equal ingredients, and these ones share what is in each part's.
                finished[spec.number] = replace(manifest, ingredients=spec.ingredients)
        return placed, finished

    def _is_wanted_again(self, stage: Stage, name: str, spec: PartSpec, manifest: Manifest) -> bool:
        if self.force:
            return (name, spec.number) in self.force
        return stage.ledger and int(manifest.stats.get("asked_since", 0)) < self.since

    def _results(self, plan: "_Plan") -> Mapping[int, Manifest | Failure]:
        """Compute the unfinished parts, or the one part that is wanted."""
        name, specs, finished = plan.name, plan.specs, plan.finished
        if self.executor is None or (self.only is not None and self.only[0] != name):
            return finished
        if self.only is None:
            return self.executor.run_stage(name, specs, finished)
        wanted = [spec for spec in specs if spec.number == self.only[1]]
        if not wanted:
            total = len(specs) + len(plan.blocked)
            there = self.only[1] < total
            why = "what it reads is not finished" if there else f"there are {total}, numbered from 0"
            raise PartUnready(f"{name}: part {self.only[1]} cannot be computed alone: {why}")
        return {**finished, **self.executor.run_stage(name, wanted, {})}

    def _since(self, stage: Stage, name: str, number: int) -> int:
        return self.since if stage.ledger and (not self.force or (name, number) in self.force) else 0

    def keep_table(
        self, name: str, frame: pl.DataFrame, schema: SchemaLike, indexes: frozenset[int] = frozenset({0})
    ) -> Table:
        """Store a table that no stage made (costs so far, or an empty one), the same piece at each index."""
        piece = write_table(self.store, name, frame, schema, 0)
        return Table(name, tuple(replace(piece, index=index) for index in sorted(indexes)))

    def read(self, table: Table, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read a whole table, or some of its columns."""
        return read_table(self.store, table, columns=columns)


@dataclass(frozen=True)
class _Plan:
    """The parts of a stage: all that can be computed, the finished ones by number, and the indexes that wait."""

    stage: Stage
    name: str
    specs: list[PartSpec]
    finished: Mapping[int, Manifest]
    blocked: frozenset[int]


def _outputs(
    stage: Stage, specs: Sequence[PartSpec], manifests: Mapping[int, Manifest], lost: frozenset[int]
) -> dict[str, Any]:
    done = [(spec.index, manifests[spec.number]) for spec in specs if spec.number in manifests]
    outputs: dict[str, Any] = {}
    for name, schema in stage.outputs.items():
        # Parts of equal content share a manifest, so the index is taken from the part and not from the manifest.
        kept = name in stage.splits or name in stage.scatters
        pieces = [p if kept or p.index == i else replace(p, index=i) for i, m in done for p in m.tables[name]]
        ordered = tuple(sorted(pieces, key=lambda piece: piece.index))
        if name in stage.scatters:
            outputs[name] = Table(name, ordered, partial=bool(lost), schema=schema)
        else:
            outputs[name] = Table(name, ordered, lost, schema=None if ordered else schema)
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
