"""Every way a Ray task can end, turned into a value or into one kind of error with its reason in a line."""

import re
import time
from typing import Any

import ray
from ray import exceptions as ray_errors

from infra.meter import BudgetReached
from infra.shared_engine import EngineBroken
from infra.store import StoreError
from infra.worker import EngineNeeded

_POLL_SECONDS = 0.5
_OUT_OF_MEMORY = "out of memory: Ray killed the worker; the next attempt takes smaller batches"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class PartError(Exception):
    """A part failed.

    retry: another attempt may succeed (a worker died, the store did not answer); not so for a stage's own refusal.
    engine_lost: the actor that held the engine is gone.
    out_of_memory: the worker was killed for memory; the next attempt takes smaller batches.
    """

    def __init__(self, reason: str, *, retry: bool, engine_lost: bool = False, out_of_memory: bool = False) -> None:
        """Keep the reason and what it means for the next attempt."""
        super().__init__(reason)
        self.retry = retry
        self.engine_lost = engine_lost
        self.out_of_memory = out_of_memory


def await_ray(reference: Any, deadline: float) -> Any:  # noqa: ANN401 - whatever the task returns
    """Wait for a Ray result, polling against our own deadline in seconds.

    Raises:
        PartError: the task raised, its worker or actor died, it ran out of memory, or the deadline passed.
        EngineNeeded, BudgetReached: as the task raised them.
    """
    started = time.monotonic()
    while True:
        done, _ = ray.wait([reference], timeout=_POLL_SECONDS)
        if done:
            return _result(reference)
        if time.monotonic() - started > deadline:
            _cancel(reference)
            raise PartError(f"deadline: not finished within {deadline:.0f} s", retry=True, engine_lost=True)


def _cancel(reference: Any) -> None:  # noqa: ANN401 - a Ray reference
    try:
        ray.cancel(reference, force=True)
    except (ValueError, TypeError):
        return  # actor calls cannot be cancelled by force; the pool kills the actor


def _result(reference: Any) -> Any:  # noqa: ANN401 - whatever the task returns
    try:
        return ray.get(reference)
    except ray_errors.OutOfMemoryError as error:
        raise PartError(_OUT_OF_MEMORY, retry=True, out_of_memory=True, engine_lost=True) from error
    except ray_errors.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if isinstance(cause, EngineNeeded | BudgetReached):
            raise type(cause)(str(cause)) from error
        if isinstance(cause, EngineBroken):
            raise PartError(f"engine broken: {_first_lines(str(cause))}", retry=True, engine_lost=True) from error
        text = f"{type(cause).__name__}: {_first_lines(str(cause))}"
        raise PartError(text, retry=_may_pass(cause)) from error
    except ray_errors.ActorDiedError as error:
        if "creation task" in str(error):  # the engine's own refusal stands in the last line, below Ray's account of it
            reason = _ANSI.sub("", str(error)).strip().splitlines()[-1]
            retry = not reason.startswith(("ValueError", "ImportError", "ModuleNotFoundError"))
            raise PartError(reason[:500], retry=retry, engine_lost=True) from error
        raise PartError(f"engine died: {_first_lines(str(error))}", retry=True, engine_lost=True) from error
    except ray_errors.RayActorError as error:
        raise PartError(f"engine died: {_first_lines(str(error))}", retry=True, engine_lost=True) from error
    except ray_errors.RayError as error:
        raise PartError(f"{type(error).__name__}: {_first_lines(str(error))}", retry=True) from error


def _may_pass(cause: BaseException) -> bool:
    """Judge whether an error of the part's own code may be gone on the next attempt."""
    return isinstance(cause, StoreError | OSError | MemoryError)


def _first_lines(text: str, lines: int = 3) -> str:
    plain = [line.strip() for line in _ANSI.sub("", text).splitlines() if line.strip()]
    return " / ".join(plain[:lines])[:500]
