"""Requests and tokens keep to their limits per minute, in one process and over a cluster."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import ray
from ray.exceptions import RayActorError

from infra.cluster.ray_cluster import ray_cluster
from infra.engines import rate_limit
from infra.engines.rate_limit import Pace, RateLimiter, identify, run, slots, together, wait_asked
from tests.infra.ray_in_process import RayInProcess


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def starts(limiters: list[RateLimiter], number: int, tokens: int = 0) -> list[float]:
    """When each of `number` requests may start, asked for at once, in seconds from now."""
    began = time.monotonic()

    async def one(limiter: RateLimiter) -> float:
        await limiter.acquire(tokens)
        return time.monotonic() - began

    return sorted(await asyncio.gather(*(one(limiters[i % len(limiters)]) for i in range(number))))


def test_requests_start_one_interval_apart_after_a_burst_of_one_second() -> None:
    pace = Pace(Clock())
    assert [pace.reserve(0.5, 0.0) for _ in range(6)] == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


def test_in_no_minute_are_there_more_requests_than_allowed_and_a_seconds_burst() -> None:
    clock = Clock()
    pace = Pace(clock)
    times = []
    for _ in range(400):
        times.append(clock.now + pace.reserve(60 / 120, 0.0))
        clock.now += 0.05
    in_a_minute = max(sum(start <= other < start + 60 for other in times) for start in times)
    assert 120 <= in_a_minute <= 120 + 2 + 1


def test_a_quiet_hour_does_not_save_up_requests() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.reserve(1.0, 0.0)
    clock.now += 3600
    assert [pace.reserve(1.0, 0.0) for _ in range(4)] == [0.0, 0.0, 1.0, 2.0]


def test_tokens_are_paced_by_what_was_used_before() -> None:
    pace = Pace(Clock())
    per_token = 60 / 6000
    assert [pace.reserve(0.0, 500 * per_token) for _ in range(3)] == pytest.approx([0.0, 4.0, 9.0])


def test_the_stricter_limit_decides() -> None:
    pace = Pace(Clock())
    pace.reserve(2.0, 7.0)
    assert pace.reserve(2.0, 7.0) == 6.0


def test_a_pause_holds_everybody_back_and_ends_within_a_second_of_its_time() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.block(30.0)
    pace.block(5.0)
    waits = [pace.reserve(0.0, 0.0) for _ in range(50)]
    assert min(waits) >= 30.0
    assert max(waits) <= 31.0
    clock.now += 31.0
    assert pace.reserve(0.0, 0.0) == 0.0


def test_callers_with_different_limits_share_one_pace() -> None:
    pace = Pace(Clock())
    pace.reserve(1.5, 0.0)
    assert [pace.reserve(0.5, 0.0), pace.reserve(1.5, 0.0)] == [0.5, 1.0]


def test_two_limiters_of_one_key_together_keep_to_the_requests_per_minute() -> None:
    limiters = [RateLimiter("two-limiters", 600.0, None) for _ in range(2)]  # one each 0.1 s, ten at once
    times = asyncio.run(starts(limiters, 25))
    assert all(times[i] >= (i - 10) * 0.1 - 0.01 for i in range(25))
    assert times[-1] < 2.5


def test_limiters_of_different_keys_do_not_hold_each_other_back() -> None:
    slow, free = RateLimiter("slow", 1.0, None), RateLimiter("free", None, None)

    async def both() -> list[float]:
        await slow.acquire(0)
        return await starts([free], 100, tokens=1000)

    assert asyncio.run(both())[-1] < 1.0


def test_what_was_used_corrects_what_was_estimated() -> None:
    async def waited(used: int) -> float:
        limiter = RateLimiter(f"settle-{used}", None, 60_000.0)  # 1,000 tokens a second
        await limiter.acquire(1000)
        limiter.settle(1000, used)
        await limiter.acquire(500)
        return (await starts([limiter], 1, 0))[0]

    assert asyncio.run(waited(100)) < 0.5
    assert 1.4 <= asyncio.run(waited(2000)) < 2.5  # 1,000 + 1,000 + 500, less the burst


def test_the_identity_tells_keys_and_endpoints_apart_and_shows_neither() -> None:
    names = {identify(url, key) for url in ("http://a/v1", "http://b/v1") for key in ("sk-one", "sk-two")}
    assert len(names) == 4
    assert not any("sk-" in name or "http" in name for name in names)


@ray.remote(num_cpus=0.5)
class Caller:
    def starts(self, number: int) -> list[float]:
        """When this process's requests started, on the machine's clock."""
        limiter = RateLimiter("in-ray", 600.0, None)
        began = time.time()
        return [began + start for start in asyncio.run(starts([limiter], number))]

    def block(self, seconds: float) -> None:
        asyncio.run(RateLimiter("in-ray", 600.0, None).block(seconds))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_cluster(None):
        yield


@pytest.mark.slow
def test_actors_of_a_cluster_share_the_pace_the_pause_and_survive_the_end_of_the_first(cluster: None) -> None:
    first, second = Caller.remote(), Caller.remote()  # type: ignore[attr-defined]
    ray.get([first.starts.remote(1), second.starts.remote(1)], timeout=60)
    time.sleep(1.2)
    both = ray.get([caller.starts.remote(12) for caller in (first, second)], timeout=60)
    times = sorted(time for times in both for time in times)
    assert times[-1] - times[0] >= 1.2  # 24 requests: ten at once, fourteen a tenth of a second apart

    before = time.time()
    ray.get(first.block.remote(2.0), timeout=60)
    assert ray.get(second.starts.remote(1), timeout=60)[0] - before >= 1.9

    ray.kill(first)
    ray.kill(ray.get_actor("reneg-pace-in-ray", namespace="reneg"))
    assert len(ray.get(second.starts.remote(3), timeout=60)) == 3


# ---- in a cluster, with the actor in this process ----


@pytest.fixture
def in_ray(monkeypatch: pytest.MonkeyPatch) -> RayInProcess:
    monkeypatch.setattr(rate_limit, "_PACES", {})
    monkeypatch.setattr(rate_limit, "_TRY_AGAIN_SECONDS", 0.0)
    return RayInProcess().install(monkeypatch)


def test_in_a_cluster_one_actor_found_by_its_name_keeps_the_limits(in_ray: RayInProcess) -> None:
    first, second = RateLimiter("key-a", 60.0, None), RateLimiter("key-a", 60.0, None)
    assert in_ray.actors == []  # nothing is started before the first request
    asyncio.run(first.acquire(0))
    asyncio.run(second.acquire(0))
    assert in_ray.options == [{"name": "reneg-pace-key-a", "namespace": "reneg", "get_if_exists": True, "num_cpus": 0}]
    (actor,) = in_ray.actors
    assert actor.thing.reserve(1.0, 0.0) == pytest.approx(1.0, abs=0.5)  # the third of three a second apart
    asyncio.run(second.block(30.0))
    assert actor.thing.reserve(0.0, 0.0) > 29.0


def test_an_actor_that_died_is_replaced_and_one_that_dies_each_time_is_an_error(in_ray: RayInProcess) -> None:
    limiter = RateLimiter("key-a", None, None)
    asyncio.run(limiter.acquire(0))
    (actor,) = in_ray.actors
    actor.troubles = [RayActorError()] * 4
    asyncio.run(limiter.acquire(0))
    assert actor.calls == ["reserve"] * 6
    actor.troubles = [RayActorError()] * 5
    with pytest.raises(RayActorError):
        asyncio.run(limiter.acquire(0))


def test_the_pause_before_another_try_grows(in_ray: RayInProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    limiter = RateLimiter("key-a", None, None)
    asyncio.run(limiter.acquire(0))
    monkeypatch.setattr(rate_limit, "_TRY_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(rate_limit.asyncio, "sleep", sleep)
    in_ray.actors[0].troubles = [RayActorError()] * 3
    asyncio.run(limiter.acquire(0))
    assert pauses == pytest.approx([0.2, 0.4, 0.6])


def test_outside_a_cluster_the_limits_are_this_processs_own(
    in_ray: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    asyncio.run(RateLimiter("key-a", None, None).acquire(0))
    assert in_ray.actors == []
    assert list(rate_limit._PACES) == [("key-a", False)]


def test_all_who_wait_for_the_end_of_a_pause_start_within_a_second_or_the_rest_of_it() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.block(0.25)
    waits = [pace.reserve(0.0, 0.0) for _ in range(50)]
    assert 0.25 <= min(waits) <= max(waits) <= 0.5
    assert len(set(waits)) > 1
    clock.now += 0.25
    assert pace.reserve(0.0, 0.0) == 0.0


def test_a_pause_moves_the_limits_too_and_a_longer_wait_stays_one() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.block(2.0)
    pace.reserve(10.0, 0.0)
    assert pace.reserve(0.0, 0.0) == 11.0  # ten seconds after the pause, less the burst


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "9", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-reset-requests": "1h1m2.5s"}, 3662.5),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "6m0s",
          "x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "900"}, 0.12),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "2s",
          "x-ratelimit-remaining-requests": "5", "x-ratelimit-remaining-tokens": "7"}, 2.0),
        ({}, None),
    ],
)  # fmt: skip
def test_the_time_to_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_asked(headers) == (None if seconds is None else pytest.approx(seconds))


def test_a_date_without_a_zone_is_taken_for_utc() -> None:
    later = datetime.now(UTC) + timedelta(seconds=600)
    for text in (format_datetime(later), later.strftime("%a, %d %b %Y %H:%M:%S -0000")):
        assert wait_asked({"retry-after": text}) == pytest.approx(600, abs=60)
    assert wait_asked({"retry-after": "-5"}) == 0.0


def test_jobs_on_the_shared_loop_end_together_where_one_of_them_raises() -> None:
    ended: list[str] = []

    async def job(name: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(name)
        if name == "bad":
            raise ValueError("this one failed")
        return name

    async def several(*names: str) -> list[str]:
        return await together([job(name, 60.0 if name == "slow" else 0.0) for name in names])

    assert run(several("a", "b")) == ["a", "b"]
    with pytest.raises(ValueError, match="this one failed"):
        run(several("bad", "slow"))
    assert sorted(ended) == ["a", "b", "bad", "slow"]


def test_engines_with_one_key_and_setting_share_their_slots() -> None:
    assert slots("key-1", 4) is slots("key-1", 4)
    assert slots("key-1", 4) is not slots("key-1", 5)
    assert slots("key-1", 4) is not slots("key-2", 4)
