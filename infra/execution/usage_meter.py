"""What engines use up, counted as it happens and stopped at a limit: one meter for all engines of a run."""

import contextlib
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

_MILLION = 1_000_000
_HOUR = 3600.0
_TOTALS_SECONDS = 30.0  # a killed actor is back by then
_REACHED_SECONDS = 300.0


class BudgetReached(Exception):
    """The run's budget is used up; what was done so far is kept."""


@dataclass(frozen=True)
class Price:
    """What an engine costs, in one currency: per million tokens, and per hour that one engine works."""

    input: float = 0.0
    cached_input: float | None = None  # None: as any other input
    output: float = 0.0
    hour: float = 0.0

    def of(self, usage: "Usage") -> float:
        """Price a usage."""
        cached = self.input if self.cached_input is None else self.cached_input
        tokens = (usage.prompt_tokens - usage.cached_tokens) * self.input + usage.cached_tokens * cached
        return (tokens + usage.output_tokens * self.output) / _MILLION + usage.seconds / _HOUR * self.hour


@dataclass(frozen=True)
class Usage:
    """Calls, tokens, and seconds in which an engine worked."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True)
class Budget:
    """What one run may use: tokens read and written, money, hours in which engines work; None for no limit.

    until: seconds since the epoch, after which nothing more is asked.
    """

    tokens: int | None = None
    money: float | None = None
    hours: float | None = None
    until: float | None = None

    def is_over(self) -> str | None:
        """Say that the time is up; None while it is not."""
        if self.until is None or time.time() < self.until:
            return None
        return f"end-by time {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(self.until))} reached"


class Meter:
    """Adds usage up by stage, with its money; says when the budget is used up."""

    def __init__(self, budget: Budget, prices: Mapping[str, Price]) -> None:
        """Start at zero; `prices` by stage, nothing for stages it does not name."""
        self._budget = budget
        self._prices = dict(prices)
        self._usage: dict[str, Usage] = {}
        self._lock = threading.Lock()
        self._life = uuid.uuid4().hex

    def state(self) -> tuple[str, dict[str, Usage], dict[str, dict[str, float]]]:
        """Return this meter's id, new after each start, and what was used by stage, without and with money."""
        with self._lock:
            return self._life, dict(self._usage), self._priced()

    def add(self, stage: str, usage: Usage) -> None:
        """Count what was used."""
        with self._lock:
            self._usage[stage] = self._usage.get(stage, Usage()) + usage

    def reached(self) -> str | None:
        """Say which limit is reached, with what was used; None while there is room."""
        totals = self.totals().values()
        tokens = sum(total["prompt_tokens"] + total["output_tokens"] for total in totals)
        spent = {
            "tokens": (tokens, self._budget.tokens, f"{tokens:,}"),
            "money": (m := sum(total["money"] for total in totals), self._budget.money, f"{m:,.4g}"),
            "hours": (h := sum(total["seconds"] for total in totals) / _HOUR, self._budget.hours, f"{h:,.3g}"),
        }
        for name, (used, limit, shown) in spent.items():
            if limit is not None and used >= limit:
                return f"budget: {name} {limit:g} used up ({shown} spent)"
        return self._budget.is_over()

    def totals(self) -> dict[str, dict[str, float]]:
        """Give usage and money by stage."""
        with self._lock:
            return self._priced()

    def _priced(self) -> dict[str, dict[str, float]]:
        return {
            stage: {
                **asdict(u),
                "money": self._prices.get(stage, Price()).of(u),
                "priced": float(stage in self._prices),
            }
            for stage, u in self._usage.items()
        }


class MeterLike(Protocol):
    """A meter, here or behind an actor."""

    def add(self, stage: str, usage: Usage) -> None:
        """Count what was used."""
        ...

    def reached(self) -> str | None:
        """Say which limit is reached."""
        ...


class RemoteMeter:
    """A meter in an actor, so that all engines of a run share it.

    Ray starts a killed actor again, with nothing counted. `totals` then gives it what the old one had counted when it
    was last asked, so the budget holds but for what was used since. Where the cluster lost its head the actor does not
    come back and Ray raises no error, so every call has a timeout.
    """

    def __init__(self, actor: Any) -> None:  # noqa: ANN401 - Ray's actor handles are untyped
        """Wrap the actor's handle."""
        self._actor = actor
        self._life, self._known = "", dict[str, Usage]()
        self._told: dict[str, dict[str, float]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["RemoteMeter"], tuple[Any]]:
        """Travel to workers as the handle alone."""
        return RemoteMeter, (self._actor,)

    @classmethod
    def start(cls, budget: Budget, prices: Mapping[str, Price]) -> "RemoteMeter":
        """Start the actor; it ends with the process that started it."""
        import ray

        from infra.cluster.ray_cluster import beside_driver

        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": beside_driver()}
        return cls(ray.remote(Meter).options(**options).remote(budget, dict(prices)))

    def add(self, stage: str, usage: Usage) -> None:
        """Count what was used; nobody waits for it."""
        self._actor.add.remote(stage, usage)

    def reached(self) -> str | None:
        """Say which limit is reached.

        Raises:
            TimeoutError: the actor does not answer (Ray's own GetTimeoutError).
        """
        import ray

        reached: str | None = ray.get(self._actor.reached.remote(), timeout=_REACHED_SECONDS)
        return reached

    def totals(self) -> dict[str, dict[str, float]]:
        """Give usage and money by stage, as last told where the actor does not answer; call it where it was started."""
        from ray.exceptions import RayError

        with self._lock:
            with contextlib.suppress(RayError):
                self._ask()
            return self._told

    def _ask(self) -> None:
        import ray

        while True:
            life, used, told = ray.get(self._actor.state.remote(), timeout=_TOTALS_SECONDS)
            if self._life in ("", life):
                break
            self._life = life
            for stage, usage in self._known.items():
                self._actor.add.remote(stage, usage)
        self._life, self._known, self._told = life, used, told
