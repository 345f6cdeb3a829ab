"""One engine for several parts: while it works for one, the next is read and the last is written."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from infra.execution.usage_meter import BudgetReached, MeterLike, Usage
from infra.provenance import Origin


class EngineBroken(Exception):
    """The engine raised an error that no request explains; it must be built again."""


class EngineThread:
    """The threads that build an engine and make every call to it, in the order in which the calls arrive."""

    def __init__(self, build: Callable[[], Any], threads: int = 1) -> None:
        """Build the engine in its thread; what it logs belongs to the part that it works for, then and later."""
        self._thread = ThreadPoolExecutor(threads, thread_name_prefix="engine")
        self._engine = self._thread.submit(copy_context().run, build).result()

    def call(self, method: str, *args: Any) -> tuple[Any, float, Counter[str]]:
        """Call the engine and wait; returns its result, the seconds in which it worked, and what it counted."""
        return self._thread.submit(copy_context().run, self._timed, method, args).result()

    def _timed(self, method: str, args: Sequence[Any]) -> tuple[Any, float, Counter[str]]:
        before = Counter(getattr(self._engine, "counts", {}))  # retries and failures by reason, where it counts any
        started = time.monotonic()
        try:
            result = getattr(self._engine, method)(*args)
        except (ValueError, OSError):  # it refuses a request or cannot reach a server; the engine itself works
            raise
        except Exception as error:
            raise EngineBroken(f"{type(error).__name__}: {error}") from error
        seconds = time.monotonic() - started
        return result, seconds, Counter(getattr(self._engine, "counts", {})) - before


@dataclass
class LentEngine:
    """An engine as one part sees it: shared with other parts, metered, stopped when the budget is used up.

    origin: the software and processor, or the endpoint, that answers.
    """

    engine: EngineThread
    meter: MeterLike
    stage: str
    origin: Origin | None = None
    used: Usage = field(default_factory=Usage)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def facts(self) -> dict[str, Any]:
        """How long the engine worked for this part, in seconds, and what it counted meanwhile."""
        counts = {"engine_counts": dict(sorted(self.counts.items()))} if self.counts else {}
        return {"engine_seconds": round(self.used.seconds, 3), **counts}

    def answer(self, requests: Sequence[Any]) -> Sequence[Any]:
        """Answer chats.

        Raises:
            BudgetReached: before anything is asked.
        """
        self._check()
        answers, seconds = self._call("answer", requests)
        tokens = {n: sum(getattr(a, n) for a in answers) for n in ("prompt_tokens", "cached_tokens", "output_tokens")}
        self._count(Usage(calls=len(answers), seconds=seconds, **tokens))
        return list(answers)

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> Sequence[float]:
        """Score pairs of texts, with an instruction for each, or without.

        Raises:
            BudgetReached: before anything is scored.
        """
        self._check()
        scores, seconds = self._call("score", pairs, *([instructions] if instructions else []))
        self._count(Usage(calls=len(pairs), seconds=seconds))
        return list(scores)

    def encode(self, texts: Sequence[str], role: str) -> Any:  # noqa: ANN401 - a polars Series
        """Encode texts with a model of one's own; the budget is for what is paid, so this is not metered."""
        vectors, seconds = self._call("encode", texts, role)
        self.used += Usage(seconds=seconds)
        return vectors

    def embed(self, texts: Sequence[str], role: str) -> Any:  # noqa: ANN401 - what came of each text
        """Ask an endpoint for the vectors of texts, which are paid for.

        Raises:
            BudgetReached: before anything is asked.
        """
        self._check()
        made, seconds = self._call("embed", texts, role)
        self._count(Usage(calls=made.calls, prompt_tokens=made.prompt_tokens, seconds=seconds))
        return made

    def find(self, keys: Any, role: str) -> Any:  # noqa: ANN401 - polars objects
        """Find vectors in files; nothing is paid for."""
        vectors, seconds = self._call("find", keys, role)
        self.used += Usage(seconds=seconds)
        return vectors

    def _call(self, method: str, *args: Any) -> tuple[Any, float]:
        result, seconds, counts = self.engine.call(method, *args)
        self.counts += counts
        return result, seconds

    def _check(self) -> None:
        reached = self.meter.reached()
        if reached is not None:
            raise BudgetReached(reached)

    def _count(self, usage: Usage) -> None:
        self.used += usage
        self.meter.add(self.stage, usage)
