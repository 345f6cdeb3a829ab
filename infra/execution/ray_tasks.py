"""Every way a Ray task can end, turned into a value or into one kind of error with its reason in a line."""

import logging
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import exceptions as ray_errors

from infra.cluster.nodes import refuse_other_code
from infra.cluster.ray_cluster import granted
from infra.engines.kinds import kind_of
from infra.execution.part_logs import SILENT, PartLog, Sender, last_lines, relayed
from infra.execution.sent_parts import SentPart, pack, pack_result, unpack
from infra.execution.shared_engine import EngineBroken
from infra.execution.usage_meter import BudgetReached
from infra.redact import hide_variable, redact
from infra.stages.compute_part import EngineNeeded, compute_part
from infra.stages.runner import PartSpec
from infra.storage.artifacts import Manifest
from infra.storage.store import StoreError

_POLL_SECONDS = 0.5
_OUT_OF_MEMORY = "out of memory: Ray killed the worker; the next attempt takes smaller batches"
STOPPED = "stopped: the run was told to end"
LOST = "lost: another cluster stands at Ray's address, and what was at work is gone with the old head; run again"
_reason = ""
_given_up = threading.Event()
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class PartError(Exception):
    """A part failed.

    retry: another attempt may succeed (a worker died, the store did not answer); not so for a stage's own refusal.
    engine_lost: the actor that held the engine is gone.
    out_of_memory: the worker was killed for memory; the next attempt takes smaller batches.
    killed: it did not end by itself: its worker died, or it ran past its deadline.
    of_every_part: the other parts of the stage would fail for the same reason.
    """

    killed = False
    of_every_part = False

    def __init__(self, reason: str, *, retry: bool, engine_lost: bool = False, out_of_memory: bool = False) -> None:
        """Keep the reason and what it means for the next attempt."""
        super().__init__(reason)
        self.retry = retry
        self.engine_lost = engine_lost
        self.out_of_memory = out_of_memory


def give_up(reason: str) -> None:
    """End every wait of this process, give its part up and begin no other; `reason` is STOPPED or LOST."""
    global _reason  # noqa: PLW0603 - one for the process, as its connection to Ray
    _reason = reason
    _given_up.set()


def begin_anew() -> None:
    """Allow waits again after `give_up`."""
    _given_up.clear()


def given_up() -> bool:
    """Tell whether `give_up` was called."""
    return _given_up.is_set()


def refuse_if_given_up() -> None:
    """Begin nothing more where everything was given up.

    Raises:
        PartError: it was; not to be tried again.
    """
    if _given_up.is_set():
        raise PartError(_reason, retry=False)


def await_ray(reference: Any, deadline: float, log: PartLog = SILENT, *, queue: float = 0.0) -> Any:  # noqa: ANN401 - what the task returns
    """Wait for a Ray result, polling against our own deadline in seconds.

    The clock of a part begins with its first line in `log`. Until that comes, the wait lasts `deadline` seconds, and
    `queue` seconds more, which a part may wait in Ray before it begins.

    The last lines of a failed part's traceback are told to `log`; the error that is raised holds its reason in a line.

    Raises:
        PartError: the task raised, its worker or actor died, it ran out of memory, or the deadline passed.
        EngineNeeded, BudgetReached: as the task raised them.
    """
    started = time.monotonic()
    while not ray.wait([reference], timeout=_POLL_SECONDS)[0]:
        if _given_up.is_set() and _reason != LOST:  # a lost cluster answers nothing
            _cancel(reference)
        refuse_if_given_up()
        if time.monotonic() > (log.begun or started + queue) + deadline:
            _cancel(reference)
            log.finish(killed=True)
            late = PartError(f"deadline: not finished within {deadline:.0f} s", retry=True, engine_lost=True)
            late.killed = True
            raise late
    try:
        result = ray.get(reference)
    except ray_errors.RayError as error:
        killed = not isinstance(error, ray_errors.RayTaskError)
        log.finish(killed=killed)
        ended = _explain(error)
        if isinstance(ended, PartError):
            ended.killed = killed
            log.tell(logging.ERROR, last_lines(_ANSI.sub("", str(error))))
        raise ended from None  # Prefect would log the cause, which was shown above without secrets
    log.finish(killed=False)
    return result


def _cancel(reference: Any) -> None:  # noqa: ANN401 - a Ray reference
    try:
        ray.cancel(reference, force=True)
    except (ValueError, TypeError):
        return  # actor calls cannot be cancelled by force; the pool kills the actor


def _explain(error: ray_errors.RayError) -> Exception:
    """Turn an error of Ray's into one of ours."""
    if isinstance(error, ray_errors.OutOfMemoryError):
        return PartError(_OUT_OF_MEMORY, retry=True, out_of_memory=True, engine_lost=True)
    if isinstance(error, ray_errors.RayTaskError):
        return _explain_cause(error.cause if isinstance(error.cause, Exception) else error)
    if isinstance(error, ray_errors.ActorDiedError) and "creation task" in str(error):
        # The engine's own refusal stands in the last line, below Ray's account of it.
        reason = redact(_ANSI.sub("", str(error))).strip().splitlines()[-1]
        retry = not reason.startswith(("ValueError", "ImportError", "ModuleNotFoundError"))
        return PartError(reason[:500], retry=retry, engine_lost=True)
    if isinstance(error, ray_errors.RayActorError):
        return PartError(f"engine died: {_first_lines(str(error))}", retry=True, engine_lost=True)
    return PartError(f"{type(error).__name__}: {_first_lines(str(error))}", retry=True)


def _explain_cause(cause: Exception) -> Exception:
    """Turn what a part's own code raised into one of our errors."""
    if isinstance(cause, EngineNeeded | BudgetReached):
        return type(cause)(str(cause))
    if isinstance(cause, EngineBroken):
        return PartError(f"engine broken: {_first_lines(str(cause))}", retry=True, engine_lost=True)
    failed = PartError(f"{type(cause).__name__}: {_first_lines(str(cause))}", retry=_may_pass(cause))
    failed.of_every_part = bool(getattr(cause, "of_every_part", False))  # as an endpoint's refusal of every request
    return failed


def _may_pass(cause: BaseException) -> bool:
    """Judge whether an error of the part's own code may be gone on the next attempt."""
    return isinstance(cause, StoreError | OSError | MemoryError)


def _first_lines(text: str, lines: int = 3) -> str:
    plain = [line.strip() for line in redact(_ANSI.sub("", text)).splitlines() if line.strip()]
    return " / ".join(plain[:lines])[:500]


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _compute(store_url: str, sent: SentPart, cache: Path, sender: Sender | None) -> Manifest:
    spec = unpack(sent)
    if spec.engine is not None:
        hide_variable(kind_of(spec.engine).key_variable(spec.engine))
    with relayed(sender, spec.name, expected=(EngineNeeded,)):
        refuse_other_code()
        workers = None
        if spec.workers > 1:
            from infra.execution.train_workers import TrainWorkers

            workers = TrainWorkers(store_url, spec, cache, sender)
        return pack_result(sent, compute_part(store_url, spec, cache, workers=workers))


def submit_part(store_url: str, spec: PartSpec, cache: Path, num_cpus: float, sender: Sender | None = None) -> Any:  # noqa: ANN401 - a Ray reference
    """Submit one part to Ray; wait for the returned reference with `await_ray`, which shows what `sender` sends.

    `unpack_result` completes the manifest that comes.
    """
    wanted = replace(spec.stage.resources, num_cpus=num_cpus)
    if spec.stage.engine is not None or spec.workers > 1:  # these are the engine's, or the workers'
        wanted = replace(wanted, num_gpus=0.0, memory=None)
    resources = granted(wanted)
    return _compute.options(
        name=spec.name, num_cpus=resources.num_cpus, num_gpus=resources.num_gpus, memory=resources.memory
    ).remote(store_url, pack(spec), cache, sender)
