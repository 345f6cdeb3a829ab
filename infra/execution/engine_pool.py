"""Costly engines in Ray actors: built once, kept for the parts that need them, rebuilt when one dies."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel

from infra.cluster import shutdown
from infra.cluster.nodes import refuse_other_code
from infra.cluster.ray_cluster import GROW_SECONDS, granted, is_draining, is_going, slots_for, slots_now
from infra.cluster.weights import ensure
from infra.engines.kinds import build_engine, environment, kind_of, origin_of, refusal_of
from infra.execution.part_logs import SILENT, PartLog, Sender, relayed
from infra.execution.ray_tasks import PartError, await_ray, given_up
from infra.execution.sent_parts import SentPart, pack, pack_result, unpack, unpack_result
from infra.execution.shared_engine import EngineThread, LentEngine
from infra.execution.usage_meter import MeterLike
from infra.key_rules import KeyRules
from infra.redact import hide_variable
from infra.settings import autoscales
from infra.stages.compute_part import compute_part
from infra.stages.runner import PartSpec
from infra.stages.stage import Resources
from infra.storage.artifacts import Manifest
from infra.storage.background_writes import drain_all
from infra.storage.store import Store

_BUILD_SECONDS = 900.0
_FLUSH_SECONDS = 20.0
_LOOK_SECONDS = 5.0  # between two looks whether nodes joined
_log = logging.getLogger(__name__)
_MAX_KILLS = 2  # a part that was in the engine each time it died is set aside after so many


@dataclass(frozen=True)
class Place:
    """Where a node finds what an engine needs: the store, and a folder of its own."""

    store_url: str
    cache: Path


@ray.remote(max_restarts=0, max_task_retries=0)
class EngineActor:
    """Holds one engine and computes parts with it; the engine works for one of them at a time."""

    def __init__(self, spec: BaseModel, place: Place, sender: Sender | None = None) -> None:
        """Fetch the weights if they are not on this node, and build the engine; minutes for a large model."""
        shutdown.install(is_draining)
        refuse_other_code()
        kind, model = kind_of(spec), getattr(spec, "model", "")
        hide_variable(kind.key_variable(spec))
        started = time.monotonic()
        with relayed(sender, f"building the engine ({kind.name} {model})"):
            local = ensure(Store(place.store_url), spec, place.cache)
            self._engine = EngineThread(lambda: build_engine(local), kind.threads(spec))
            self._origin = origin_of(local)
            _log.info("engine built in %.1f s: %s", time.monotonic() - started, self._origin.line)

    def ready(self) -> str:
        """Answer once the engine is built, with the id of the node it stands on."""
        return str(ray.get_runtime_context().get_node_id())

    def compute(
        self, store_url: str, sent: SentPart, cache: Path, meter: MeterLike, sender: Sender | None = None
    ) -> Manifest:
        """Compute one part with the engine."""
        spec = unpack(sent)
        with relayed(sender, spec.name):
            lent = LentEngine(self._engine, meter, spec.stage_name, self._origin)
            return pack_result(sent, compute_part(store_url, spec, cache, lent))

    def flush(self) -> int:
        """Write what the ledgers of the parts at work hold so far; returns how many writes are left."""
        return drain_all(_FLUSH_SECONDS)


@dataclass
class _Host:
    """A place for one actor, which is started when a part first needs it."""

    actor: Any = None
    node: str = ""
    busy: int = 0
    building: threading.Lock = field(default_factory=threading.Lock)


class EnginePool:
    """The hosts of engines, each with a few lanes. No actor is started before a part needs it.

    There are as many hosts as engines are configured, or as fit on the nodes; nodes that join add further ones.
    """

    def __init__(
        self, spec: BaseModel, resources: Resources, meter: MeterLike, key_rules: KeyRules | None = None
    ) -> None:
        """Prepare the hosts.

        key_rules: which keys an endpoint may use, for a configuration from the store; None for one of the user's own.
        """
        self.spec = spec
        self.resources = resources
        self._meter = meter
        self._build_spec = spec  # with smaller batches once memory ran out
        self._granted = granted(resources)
        # Where the cluster grows, an engine that waits in Ray for its node is what makes it grow.
        engines = resources.engines if autoscales() else min(resources.engines, slots_for(self._granted))
        self._hosts = [_Host() for _ in range(max(1, engines))]
        self._counted = time.monotonic()
        self._free = threading.Condition()
        self._suspects = 0  # how many parts wait to be computed alone
        self._kills: dict[str, int] = {}
        self._lanes = kind_of(spec).lanes(spec)
        self._refusal: PartError | None = None
        if refusal := refusal_of(spec, key_rules):  # the only way to an engine leads through here
            self._refusal = PartError(f"the engine could not be built: {refusal}", retry=False)

    def compute(self, spec: PartSpec, store_url: str, cache: Path, log: PartLog = SILENT) -> Manifest:
        """Wait for a free lane, however long that takes, then compute within the part's deadline.

        When an engine dies, every part in it may be the cause: each is tried again alone, and one that kills the
        engine then too is set aside.

        Raises:
            PartError: the part failed; `retry` says whether another attempt makes sense.
            BudgetReached: the run's budget is used up.
        """
        kills = self._kills.get(spec.key, 0)
        if kills >= _MAX_KILLS:
            raise PartError(f"set aside: the engine died {_MAX_KILLS} times while it computed this part", retry=False)
        with self._lane(alone=kills > 0) as host:
            actor = self._actor(host, Place(store_url, cache), log.another())
            reference = actor.compute.remote(store_url, pack(spec), cache, self._meter, log.sender())
            try:
                # All lanes' work may lie within one part's time.
                manifest: Manifest = await_ray(reference, self._granted.deadline * self._lanes, log)
            except PartError as error:
                if error.out_of_memory:
                    self._build_spec = _smaller_batches(self._build_spec)
                if error.engine_lost:
                    if not is_going(host.node):  # else its node was taken away, which is not the part's fault
                        self._kills[spec.key] = kills + 1
                    self._discard(host, actor)
                if error.of_every_part:
                    self._refusal = PartError(str(error), retry=False)  # the parts that wait are not begun
                raise
            return unpack_result(spec, manifest)

    @property
    def lanes(self) -> int:
        """How many parts can be at work in engines at a time, as far as nodes are there."""
        return len(self._hosts) * self._lanes

    @contextmanager
    def _lane(self, *, alone: bool) -> Iterator[_Host]:
        host = self._enter(alone)
        try:
            yield host
        finally:
            with self._free:
                host.busy -= self._lanes if alone else 1
                self._free.notify_all()

    def _enter(self, alone: bool) -> _Host:
        """Take a lane of the least busy host, or all of an idle one; those that want to be alone go first."""
        with self._free:
            self._suspects += alone
            try:
                while True:
                    host = min(self._hosts, key=lambda host: host.busy)
                    if host.busy == 0 if alone else (host.busy < self._lanes and not self._suspects):
                        host.busy += self._lanes if alone else 1
                        return host
                    self._free.wait(_LOOK_SECONDS)
                    self._add_hosts()
            finally:
                self._suspects -= alone
                self._free.notify_all()

    def _add_hosts(self) -> None:
        """Make use of nodes that joined, where fewer engines stand than are configured."""
        if len(self._hosts) >= self.resources.engines or time.monotonic() - self._counted < _LOOK_SECONDS:
            return
        self._counted = time.monotonic()
        engines = min(self.resources.engines, slots_now(self._granted) or 0)
        self._hosts += [_Host() for _ in range(engines - len(self._hosts))]

    def _actor(self, host: _Host, place: Place, log: PartLog) -> Any:  # noqa: ANN401 - Ray's actor handles are untyped
        with host.building:
            if self._refusal is not None:
                raise self._refusal
            if host.actor is None:
                host.actor, host.node = self._build(place, log)
            return host.actor

    def _build(self, place: Place, log: PartLog) -> tuple[Any, str]:
        actor = EngineActor.options(  # type: ignore[attr-defined]
            num_cpus=self._granted.num_cpus,
            num_gpus=self._granted.num_gpus,
            memory=self._granted.memory,
            max_concurrency=self._lanes + 1,
            runtime_env={"env_vars": environment(self._build_spec)},
        ).remote(self._build_spec, place, log.sender())
        try:
            node = await_ray(actor.ready.remote(), _BUILD_SECONDS + (GROW_SECONDS if autoscales() else 0.0), log)
        except PartError as error:
            ray.kill(actor)
            failure = PartError(f"the engine could not be built: {error}", retry=error.retry)
            if not error.retry:
                self._refusal = failure  # a wrong key or folder is not tried again for every part
            raise failure from error
        return actor, node

    def _discard(self, host: _Host, actor: Any) -> None:  # noqa: ANN401 - Ray's actor handles are untyped
        """Remove a dead actor from its host, unless another part did so already and a new one was built."""
        with host.building:
            if host.actor is actor:
                host.actor = None
                _dismiss([actor])

    def close(self) -> None:
        """Release every engine and wait until Ray has the resources back: a leftover actor starves the next stage."""
        self._refusal = PartError("stopped: the engines were released", retry=False)
        actors = [host.actor for host in self._hosts if host.actor is not None]
        for host in self._hosts:
            host.actor = None
        _dismiss(actors)
        deadline = time.monotonic() + 30.0
        while actors and not given_up() and time.monotonic() < deadline and not _is_free(self._granted):
            time.sleep(0.1)


def _dismiss(actors: list[Any]) -> None:
    """Kill actors once their ledgers are written; in a run that is stopped, parts are still at work in them."""
    if actors:
        flushed = [actor.flush.remote() for actor in actors]  # a dead actor counts as one that answered
        ray.wait(flushed, num_returns=len(flushed), timeout=_FLUSH_SECONDS)
    for actor in actors:
        ray.kill(actor)


def _is_free(resources: Resources) -> bool:
    available: Mapping[str, float] = ray.available_resources()
    return available.get("CPU", 0.0) >= resources.num_cpus and available.get("GPU", 0.0) >= resources.num_gpus


def _smaller_batches(spec: BaseModel) -> BaseModel:
    size = getattr(spec, "batch_size", 1)
    return spec.model_copy(update={"batch_size": size // 2}) if size > 1 else spec
