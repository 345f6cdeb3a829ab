"""Computing one part, in a Ray worker: read inputs, call the stage's function, write outputs, then the manifest."""

import importlib
import logging
import tempfile
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from infra.machine import give_back_memory, where
from infra.provenance import Origin, here
from infra.stages import origins
from infra.stages.checkpoints import Checkpoints
from infra.stages.part_spec import PartSpec
from infra.stages.part_usage import CountingStore, peak_memory
from infra.stages.remembered import Remembered
from infra.stages.stage import Stage
from infra.storage.artifacts import (
    Artifact,
    Directory,
    Manifest,
    Piece,
    Table,
    commit,
    materialise,
    read_table,
    write_bundle,
    write_directory,
    write_table,
)
from infra.storage.store import Store
from infra.storage.table_schema import SchemaLike
from infra.storage.tables import Stream

_log = logging.getLogger(__name__)


class EngineNeeded(Exception):
    """Not every row of a part is remembered, so the part needs its engine."""


class NoEngine:
    """Stands in for an engine while only the ledger is asked."""

    def answer(self, requests: Sequence[Any]) -> Sequence[Any]:
        """Raise, because rows have to be answered."""
        raise EngineNeeded(f"{len(requests)} rows are not in the ledger")

    def score(self, pairs: Sequence[Any], instructions: Sequence[str] = ()) -> Sequence[float]:
        """Raise, because rows have to be scored."""
        raise EngineNeeded(f"{len(pairs)} rows are not in the ledger")

    def encode(self, texts: Sequence[str], role: str) -> Any:  # noqa: ANN401 - it returns nothing
        """Raise, because texts have to be encoded."""
        raise EngineNeeded(f"no vectors of {len(texts)} texts are remembered")

    def embed(self, texts: Sequence[str], role: str) -> Any:  # noqa: ANN401 - it returns nothing
        """Raise, because an endpoint has to be asked."""
        raise EngineNeeded(f"no vectors of {len(texts)} texts are remembered")

    def find(self, keys: pl.DataFrame, role: str) -> Any:  # noqa: ANN401 - it returns nothing
        """Raise, because vectors have to be found in files."""
        raise EngineNeeded(f"vectors of {keys.height} texts are in files")


def compute_part(
    store_url: str, spec: PartSpec, cache: Path, engine: object | None = None, workers: object | None = None
) -> Manifest:
    """Compute one part and write its manifest; if another process was first, return that one's manifest.

    Args:
        store_url: the store that holds the inputs and receives the outputs.
        spec: which part.
        cache: a folder on this machine for directory inputs.
        engine: the engine of the actor this runs in, for stages that need one; without it only what the ledger
            remembers can be used.
        workers: lent to a stage that trains. Its checkpoints are deleted when the manifest is there.

    Raises:
        EngineNeeded: there is no engine, and the ledger does not remember every row.
        StoreError: reading or writing failed.
        ValueError: the stage's function refused its input, or made a table that is not of its schema.
    """
    store = CountingStore(store_url)
    lent: dict[str, Any] = {} if spec.stage.engine is None else {"engine": engine or NoEngine()}
    checkpoints = Checkpoints(store_url, spec.stored_name)
    if spec.stage.trains:
        lent |= {"checkpoints": checkpoints, "workers": workers}
    with peak_memory() as peak_gib:
        made = _compute(store, spec, cache, lent)
        finished = commit(store, replace(made, stats={**made.stats, "peak_gib": peak_gib()}))
    if engine is not None:
        give_back_memory()  # an engine's process computes many parts
    if spec.stage.trains:
        checkpoints.drop()
    return finished


def _compute(store: CountingStore, spec: PartSpec, cache: Path, lent: Mapping[str, Any]) -> Manifest:
    engine = lent.get("engine")
    function = load_function(spec.stage.function)
    config = typing.get_type_hints(function)["config"].model_validate(dict(spec.config))
    inputs = {name: _read(store, spec.stage, name, artifact, cache) for name, artifact in spec.inputs.items()}
    reads = store.counts()
    rows_in = sum(frame.height for frame in inputs.values() if isinstance(frame, pl.DataFrame | Stream))
    extra = dict(lent)
    _log.info("%d rows in", rows_in)
    # Durable before the first answer that names it.
    origin: Origin | None = getattr(engine, "origin", None)
    made_by = "" if origin is None else origins.keep(store, origin)
    remembered = Remembered(store, spec, made_by)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reneg-") as scratch, ExitStack() as stack:
        extra |= remembered.lend(stack)
        if spec.stage.directories:
            extra["out"] = Path(scratch)
        result = dict(function(config, **inputs, **extra))
        facts = {**result.pop("facts", {}), **getattr(engine, "facts", {})}
        seconds = time.monotonic() - started - getattr(engine, "waited", 0.0)
        if engine is not None:
            give_back_memory()  # of the texts, before the tables are written
        tables, making = _write_tables(store, spec, result)
        reads = store.counts() if spec.stage.streams else reads  # these were not read before
        directories = {
            n: dict(write_directory(store, n, Path(scratch), ours=True).files) for n in spec.stage.directories
        }
    stats = {
        "seconds": round(seconds + making, 3),
        "rows_in": rows_in,
        "rows_out": sum(piece.rows for pieces in tables.values() for piece in pieces),
        "rows": {name: sum(piece.rows for piece in pieces) for name, pieces in tables.items()},
        **reads,
    }
    if origin is None:
        made_by = origins.keep(store, here(spec.stage.libraries, str(spec.config.get("device", "cpu"))))
    stats["origin"] = made_by
    if spec.since:
        stats["asked_since"] = spec.since
    stats |= remembered.stats(facts, made_by)
    if node := where():
        stats["node"] = node
    if facts:
        facts |= rates(facts)
        stats["facts"] = facts
        _log.info("%s", ", ".join(f"{name}={value}" for name, value in facts.items() if value))
    return Manifest(
        stage=spec.stage.name,
        version=spec.stage.version,
        part=spec.number,
        key=spec.key,
        attempt=spec.attempt,
        ingredients=spec.ingredients,
        tables=tables,
        directories=directories,
        stats=stats,
    )


def load_function(reference: str) -> Callable[..., Any]:
    """Import a stage's function from `module:name`."""
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _read(store: Store, stage: Stage, name: str, artifact: Artifact, cache: Path) -> pl.DataFrame | Stream | Path:
    if isinstance(artifact, Directory):
        return materialise(store, artifact, cache)
    assert isinstance(artifact, Table)  # a part of files is a directory
    columns = stage.columns.get(name)
    if name in stage.streams:
        return Stream(store, artifact, columns)
    return read_table(store, artifact, numbered=name in stage.numbered, columns=columns)


def _write_tables(store: Store, spec: PartSpec, result: dict[str, Any]) -> tuple[dict[str, tuple[Piece, ...]], float]:
    """Write the outputs; returns them, and the seconds that the function took to make frames on the way."""
    if set(result) != set(spec.stage.outputs):
        raise ValueError(f"{spec.name}: outputs {sorted(spec.stage.outputs)} expected, {sorted(result)} came")
    tables: dict[str, tuple[Piece, ...]] = {}
    making = 0.0
    for name, schema in spec.stage.outputs.items():
        found = result.pop(name)  # nothing else holds the frames, so that they can be dropped one by one
        if name not in (*spec.stage.splits, *spec.stage.scatters):
            tables[name] = (write_table(store, name, found, schema, spec.index),)
            continue
        frames = _Clocked(found)
        del found
        write = _write_pieces if name in spec.stage.splits else write_bundle
        tables[name] = write(store, name, frames, schema)
        making += frames.seconds
    return tables, making


class _Clocked(Iterator[Any]):
    """Passes on what an iterable yields, holds none of it, and counts the seconds that it takes to make."""

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames, self.seconds = iter(frames), 0.0

    def __next__(self) -> Any:  # noqa: ANN401 - as it comes
        started = time.monotonic()
        try:
            return next(self._frames)
        finally:
            self.seconds += time.monotonic() - started


def _write_pieces(store: Store, name: str, frames: Iterable[pl.DataFrame], schema: SchemaLike) -> tuple[Piece, ...]:
    """Write frames one by one. Each is dropped before the next one is made.

    A frame without rows that comes again is written once: many tables have no row in most parts.
    """
    pieces: list[Piece] = []
    empty: tuple[pl.DataFrame, Piece] | None = None
    for frame in frames:
        if empty is not None and frame is empty[0]:
            pieces.append(replace(empty[1], index=len(pieces)))
        else:
            pieces.append(write_table(store, name, frame, schema, len(pieces)))
            if frame.is_empty():
                empty = frame, pieces[-1]
        del frame
    return tuple(pieces)


def rates(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return tokens and queries per second of the engine's work, and the share of tokens from the prefix cache.

    >>> rates({"prompt_tokens": 100, "cached_tokens": 25, "output_tokens": 20, "queries": 6, "engine_seconds": 2.0})
    {'prefix_hit_rate': 0.25, 'tokens_per_second': 60.0, 'queries_per_second': 3.0}
    """
    found = {}
    prompt, seconds = facts.get("prompt_tokens", 0), facts.get("engine_seconds", 0.0)
    if prompt:
        found["prefix_hit_rate"] = round(facts.get("cached_tokens", 0) / prompt, 4)
    if prompt and seconds:
        found["tokens_per_second"] = round((prompt + facts.get("output_tokens", 0)) / seconds, 1)
    if facts.get("queries") and seconds:
        found["queries_per_second"] = round(facts["queries"] / seconds, 3)
    return found
