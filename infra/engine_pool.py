"""Costly engines in Ray actors: built once, kept for the parts that need them, rebuilt when one dies."""

import queue
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel

from infra.artifacts import Manifest
from infra.engines import build_engine, environment
from infra.ray_cluster import granted, slots_for
from infra.ray_wait import PartError, await_ray
from infra.runner import PartSpec
from infra.stage import Resources
from infra.worker import compute_part

_BUILD_SECONDS = 900.0
_MAX_KILLS = 2  # a part that was in the engine each time it died is set aside after so many


@ray.remote(max_restarts=0, max_task_retries=0)
class EngineActor:
    """Holds one engine and computes parts with it, one at a time."""

    def __init__(self, spec: BaseModel) -> None:
        """Build the engine; minutes for a large model."""
        self._engine = build_engine(spec)

    def ready(self) -> bool:
        """Answer once the engine is built."""
        return True

    def compute(self, store_url: str, spec: PartSpec, cache: Path) -> Manifest:
        """Compute one part with the engine."""
        return compute_part(store_url, spec, cache, self._engine)


class EnginePool:
    """A fixed number of slots; a slot holds a living actor, or nothing until it is first needed."""

    def __init__(self, spec: BaseModel, resources: Resources, size: int) -> None:
        """Prepare the slots; no actor is started before a part needs it."""
        self.spec = spec
        self._build_spec = spec  # with smaller batches once memory ran out
        self._resources = granted(resources)
        self._slots: queue.Queue[Any] = queue.Queue()
        self._actors: set[Any] = set()
        self._kills: dict[str, int] = {}
        for _ in range(max(1, min(size, slots_for(self._resources)))):
            self._slots.put(None)

    def compute(self, spec: PartSpec, store_url: str, cache: Path) -> Manifest:
        """Wait for a free engine, however long that takes, then compute within the part's deadline.

        Raises:
            PartError: the part failed; `retry` says whether another attempt makes sense.
        """
        if self._kills.get(spec.key, 0) >= _MAX_KILLS:
            raise PartError(f"set aside: the engine died {_MAX_KILLS} times while it computed this part", retry=False)
        with self._slot() as slot:
            actor = slot["actor"] or self._build(slot)
            reference = actor.compute.remote(store_url, spec, cache)
            try:
                manifest: Manifest = await_ray(reference, self._resources.deadline)
            except PartError as error:
                if error.out_of_memory:
                    self._build_spec = _smaller_batches(self._build_spec)
                if error.engine_lost:
                    self._kills[spec.key] = self._kills.get(spec.key, 0) + 1
                    self._discard(slot)
                raise
            return manifest

    @contextmanager
    def _slot(self) -> Iterator[dict[str, Any]]:
        slot = {"actor": self._slots.get()}
        try:
            yield slot
        finally:
            self._slots.put(slot["actor"])

    def _build(self, slot: dict[str, Any]) -> Any:  # noqa: ANN401 - Ray's actor handles are untyped
        actor = EngineActor.options(  # type: ignore[attr-defined]
            num_cpus=self._resources.num_cpus,
            num_gpus=self._resources.num_gpus,
            memory=self._resources.memory,
            runtime_env={"env_vars": environment(self._build_spec)},
        ).remote(self._build_spec)
        self._actors.add(actor)
        slot["actor"] = actor
        try:
            await_ray(actor.ready.remote(), _BUILD_SECONDS)
        except PartError as error:
            self._discard(slot)
            raise PartError(f"the engine could not be built: {error}", retry=error.retry) from error
        return actor

    def _discard(self, slot: dict[str, Any]) -> None:
        actor, slot["actor"] = slot["actor"], None
        if actor is not None:
            self._actors.discard(actor)
            ray.kill(actor)

    def close(self) -> None:
        """Release every engine and wait until Ray has the resources back: a leftover actor starves the next stage."""
        if not self._actors:
            return
        for actor in list(self._actors):
            ray.kill(actor)
        self._actors.clear()
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline and not _granted(self._resources):
            time.sleep(0.1)


def _granted(resources: Resources) -> bool:
    available: Mapping[str, float] = ray.available_resources()
    return available.get("CPU", 0.0) >= resources.num_cpus and available.get("GPU", 0.0) >= resources.num_gpus


def _smaller_batches(spec: BaseModel) -> BaseModel:
    size = getattr(spec, "batch_size", 1)
    return spec.model_copy(update={"batch_size": size // 2}) if size > 1 else spec
