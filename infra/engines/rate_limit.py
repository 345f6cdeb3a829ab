"""Limits for all engines that share a key: requests and tokens per minute, and the pause that an endpoint asked for.

They are kept in one place: a Ray actor where Ray runs, so that they hold for engines on other machines too, else an
object of this process. An engine asks once per request how long to wait, and waits on its own. The
engines of one process also share an event loop, and the slots for requests in flight.
"""

import asyncio
import functools
import hashlib
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

_BURST_SECONDS = 1.0  # after a pause, requests for so many seconds may start at once; vendors look at seconds
_HERD_SECONDS = 1.0  # after a pause the engines start within this time, not all at once
_NAMESPACE = "reneg"
_TRIES = 5
_TRY_AGAIN_SECONDS = 0.2
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LOOP_LOCK = threading.Lock()

Result = TypeVar("Result")


class Pace:
    """When the next request may start. Each one moves that time by its share of a minute, as a token bucket would.

    It adds seconds, not requests, so that callers with different limits can share it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing used."""
        self._clock = clock
        self._free_at = {"requests": 0.0, "tokens": 0.0}
        self._blocked_until = 0.0

    def reserve(self, request_seconds: float, token_seconds: float) -> float:
        """Take what one request costs, in seconds of each limit, and say how long to wait before it is sent.

        >>> pace = Pace(clock=lambda: 100.0)
        >>> [pace.reserve(2.0, 0.0) for _ in range(3)]
        [0.0, 1.0, 3.0]
        """
        now = self._clock()
        wait = max(0.0, *(free_at - _BURST_SECONDS - now for free_at in self._free_at.values()))
        for name, cost in (("requests", request_seconds), ("tokens", token_seconds)):
            self._free_at[name] = max(self._free_at[name], now) + cost
        pause = self._blocked_until - now
        return max(wait, pause + random.uniform(0.0, min(_HERD_SECONDS, pause))) if pause > 0 else wait

    def block(self, seconds: float) -> None:
        """Let nobody start before so many seconds have passed."""
        until = self._clock() + seconds
        self._blocked_until = max(self._blocked_until, until)
        for name in self._free_at:
            self._free_at[name] = max(self._free_at[name], until)


class RateLimiter:
    """One engine's access to the shared pace."""

    def __init__(self, identity: str, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Join those that share `identity`; nothing is started before the first request."""
        self._shared = _shared(identity)
        self._request_seconds = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._token_seconds = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._owed = 0  # tokens used beyond the estimates; added to the next request, which saves a call

    async def acquire(self, tokens: int) -> None:
        """Wait until a request of about so many tokens may be sent."""
        owed, self._owed = self._owed, 0
        wait = await self._shared.reserve(self._request_seconds, (tokens + owed) * self._token_seconds)
        if wait > 0:
            await asyncio.sleep(wait)

    def settle(self, estimated: int, used: int) -> None:
        """Correct an estimate by what was used."""
        self._owed += used - estimated

    async def block(self, seconds: float) -> None:
        """Let none of those who share the key ask for so many seconds."""
        await self._shared.block(seconds)


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds an endpoint wants us to wait.

    >>> wait_asked({"retry-after-ms": "250"}), wait_asked({"retry-after": "2"}), wait_asked({})
    (0.25, 2.0, None)
    >>> wait_asked({"x-ratelimit-reset-requests": "1m2s", "x-ratelimit-reset-tokens": "20ms"})
    62.0
    """
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    after = _seconds(headers.get("retry-after", ""))
    if after is not None:
        return after
    limits = ("requests", "tokens")
    resets = {limit: _seconds(headers.get(f"x-ratelimit-reset-{limit}", "")) for limit in limits}
    spent = [limit for limit in limits if headers.get(f"x-ratelimit-remaining-{limit}", "0").strip() == "0"]
    known = [seconds for limit in spent if (seconds := resets[limit]) is not None]
    return max(known or [seconds for seconds in resets.values() if seconds is not None], default=None)


def _seconds(text: str) -> float | None:
    """Read `2`, `0.5`, `1m2s`, `20ms` or an HTTP date as seconds from now."""
    text = text.strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    if re.fullmatch(f"({_DURATION.pattern})+", text):
        return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def identify(base_url: str, key: str) -> str:
    """Return a name for a key at an endpoint; the key cannot be read from it."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return hashlib.sha256(f"{base_url}\0{digest}".encode()).hexdigest()[:16]


class _Local:
    """The pace of this process alone."""

    def __init__(self) -> None:
        self._pace = Pace()

    async def reserve(self, request_seconds: float, token_seconds: float) -> float:
        return self._pace.reserve(request_seconds, token_seconds)

    async def block(self, seconds: float) -> None:
        self._pace.block(seconds)


class _InRay:
    """The pace of a whole cluster, in a named actor that lives as long as the process that first asked for it.

    When that process ends the next caller starts another one, with nothing used: at most a burst is lost.
    """

    def __init__(self, identity: str) -> None:
        self._name = f"reneg-pace-{identity}"
        self._actor: Any = None

    async def reserve(self, request_seconds: float, token_seconds: float) -> float:
        return float(await self._call("reserve", request_seconds, token_seconds))

    async def block(self, seconds: float) -> None:
        await self._call("block", seconds)

    async def _call(self, method: str, *arguments: float) -> Any:  # noqa: ANN401 - Ray's results are untyped
        from ray.exceptions import RayActorError

        for left in reversed(range(_TRIES)):
            try:
                return await getattr(self._connect(), method).remote(*arguments)
            except RayActorError:
                if not left:
                    raise
                self._actor = None
                await asyncio.sleep(
                    _TRY_AGAIN_SECONDS * (_TRIES - left)
                )  # Ray frees a dead actor's name a little later

    def _connect(self) -> Any:  # noqa: ANN401 - Ray's actor handles are untyped
        import ray

        if self._actor is None:
            options = {"name": self._name, "namespace": _NAMESPACE, "get_if_exists": True, "num_cpus": 0}
            self._actor = ray.remote(Pace).options(**options).remote()
        return self._actor


_PACES: dict[tuple[str, bool], _Local | _InRay] = {}


def _shared(identity: str) -> _Local | _InRay:
    ray: Any = sys.modules.get("ray")  # not imported is not running, and importing it takes a second
    in_ray = ray is not None and bool(ray.is_initialized())
    if (identity, in_ray) not in _PACES:
        _PACES[identity, in_ray] = _InRay(identity) if in_ray else _Local()
    return _PACES[identity, in_ray]


async def together(jobs: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run jobs at the same time; the first that raises ends the others, and its exception is raised.

    Raises:
        Exception: whatever a job raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as several:
        error = several.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise error


def run(job: Coroutine[Any, Any, Result]) -> Result:
    """Run a job on the one event loop that all endpoints of this process share, and wait for it.

    One loop in a thread of its own: engines share the slots and the rate limit, and a caller may run a loop itself.
    """
    with _LOOP_LOCK:
        loop = _loop()
    future = asyncio.run_coroutine_threadsafe(job, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="reneg-endpoints", daemon=True).start()
    return loop


@functools.cache
def slots(identity: str, concurrency: int) -> asyncio.Semaphore:
    """Return what bounds the requests in flight, over all engines of this process with this key and setting."""
    return asyncio.Semaphore(concurrency)
