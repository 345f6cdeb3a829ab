"""Usage is counted, priced and stopped at the budget, also by a meter that was started again."""

import threading
import time

import pytest

from infra.cluster import ray_cluster
from infra.execution.usage_meter import Budget, Meter, Price, RemoteMeter, Usage
from tests.infra.ray_in_process import RayInProcess

PRICES = {"judge-weak": Price(input=1.0, cached_input=0.5, output=4.0), "judge-own": Price(hour=3.0)}


def test_money_is_tokens_by_price_and_hours_by_price() -> None:
    meter = Meter(Budget(), PRICES)
    meter.add("judge-weak", Usage(calls=2, prompt_tokens=3_000_000, cached_tokens=1_000_000, output_tokens=500_000))
    meter.add("judge-own", Usage(calls=1, prompt_tokens=7, seconds=1800.0))
    meter.add("judge-free", Usage(calls=1, prompt_tokens=7))
    totals = meter.totals()
    assert totals["judge-weak"]["money"] == pytest.approx(2.0 + 0.5 + 2.0)
    assert totals["judge-own"]["money"] == pytest.approx(1.5)
    assert [totals[name]["priced"] for name in ("judge-weak", "judge-own", "judge-free")] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("budget", "usage", "said"),
    [
        (Budget(tokens=100), Usage(prompt_tokens=90, output_tokens=10), "budget: tokens 100 used up (100 spent)"),
        (Budget(money=2.0), Usage(output_tokens=500_000), "budget: money 2 used up (2 spent)"),
        (Budget(hours=0.5), Usage(seconds=1900.0), "budget: hours 0.5 used up (0.528 spent)"),
        (Budget(tokens=101), Usage(prompt_tokens=90, output_tokens=10), None),
        (Budget(), Usage(prompt_tokens=10**12), None),
    ],
)
def test_a_limit_is_reached_by_what_was_really_used(budget: Budget, usage: Usage, said: str | None) -> None:
    meter = Meter(budget, PRICES)
    meter.add("judge-weak", usage)
    assert meter.reached() == said


def test_all_engines_count_together_whatever_the_thread() -> None:
    meter = Meter(Budget(tokens=8000), {})

    def work() -> None:
        for _ in range(1000):
            meter.add("judge-llm", Usage(prompt_tokens=1))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.totals()["judge-llm"]["prompt_tokens"] == 8000
    assert meter.reached() is not None


def test_a_run_is_over_at_its_end_whatever_is_left_of_its_budget() -> None:
    assert Meter(Budget(until=time.time() + 60), {}).reached() is None
    over = Meter(Budget(tokens=1000, until=0.0), {}).reached()
    assert over == "end-by time 1970-01-01 00:00:00 UTC reached"


# ---- numbers, exactly ----


def test_a_usage_without_a_price_for_cached_tokens_pays_them_as_any_others() -> None:
    usage = Usage(prompt_tokens=2_000_000, cached_tokens=500_000, output_tokens=1_000_000, seconds=7200.0)
    assert Price(input=1.0, output=4.0, hour=0.5).of(usage) == 2.0 + 4.0 + 1.0
    assert Price(input=1.0, cached_input=0.0, output=4.0).of(usage) == 1.5 + 4.0
    assert Price().of(usage) == 0.0


def test_usages_add_up_field_by_field() -> None:
    total = Usage(1, 2, 3, 4, 5.0) + Usage(10, 20, 30, 40, 50.0)
    assert total == Usage(11, 22, 33, 44, 55.0)


def test_the_state_holds_the_life_of_the_meter_and_the_plain_and_the_priced_usage() -> None:
    meter, other = Meter(Budget(), PRICES), Meter(Budget(), PRICES)
    meter.add("judge-own", Usage(seconds=3600.0))
    life, used, priced = meter.state()
    assert (used, priced) == ({"judge-own": Usage(seconds=3600.0)}, meter.totals())
    assert priced["judge-own"]["money"] == 3.0
    assert life == meter.state()[0] != other.state()[0]


def test_hours_and_money_of_several_stages_count_together() -> None:
    meter = Meter(Budget(hours=1.0), PRICES)
    meter.add("judge-own", Usage(seconds=1800.0))
    meter.add("judge-weak", Usage(seconds=1799.0))
    assert meter.reached() is None
    meter.add("judge-weak", Usage(seconds=1.0))
    assert meter.reached() == "budget: hours 1 used up (1 spent)"


# ---- a meter behind an actor, in this process ----


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> tuple[RemoteMeter, RayInProcess]:
    ours = RayInProcess().install(monkeypatch)
    monkeypatch.setattr(ray_cluster, "beside_driver", lambda: "beside")
    return RemoteMeter.start(Budget(tokens=100), {}), ours


def test_the_meters_actor_takes_no_cpu_and_is_started_again_for_ever(
    remote: tuple[RemoteMeter, RayInProcess],
) -> None:
    _, ours = remote
    assert ours.options == [
        {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": "beside"}
    ]


def test_a_meter_that_lost_what_it_had_counted_is_given_it_back_once(
    remote: tuple[RemoteMeter, RayInProcess],
) -> None:
    meter, ours = remote
    meter.add("judge", Usage(prompt_tokens=90))
    assert meter.totals()["judge"]["prompt_tokens"] == 90
    ours.actors[0].thing = Meter(Budget(tokens=100), {})  # killed, and started anew by Ray
    ours.actors[0].thing.add("judge", Usage(prompt_tokens=4))
    assert meter.totals()["judge"]["prompt_tokens"] == 94
    assert meter.totals()["judge"]["prompt_tokens"] == 94
    assert meter.reached() is None
    meter.add("judge", Usage(prompt_tokens=6))
    assert meter.reached() == "budget: tokens 100 used up (100 spent)"


def test_a_meter_that_does_not_answer_is_told_as_last_heard_and_its_limit_is_an_error(
    remote: tuple[RemoteMeter, RayInProcess],
) -> None:
    meter, ours = remote
    meter.add("judge", Usage(prompt_tokens=90))
    told = meter.totals()
    ours.actors[0].is_late = True
    assert meter.totals() == told
    with pytest.raises(TimeoutError):
        meter.reached()


def test_a_meter_travels_to_workers_as_its_actor_alone(remote: tuple[RemoteMeter, RayInProcess]) -> None:
    meter, ours = remote
    make, arguments = meter.__reduce__()
    assert (make, arguments) == (RemoteMeter, (ours.actors[0],))
