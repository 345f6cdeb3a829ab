"""Usage is counted, priced and stopped at the budget, also over a meter that was killed."""

import threading
import time

import pytest
import ray

from infra.execution.usage_meter import Budget, Meter, Price, RemoteMeter, Usage

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


@pytest.mark.slow
def test_a_meter_that_is_killed_goes_on_from_what_it_had_counted(services: None) -> None:
    meter = RemoteMeter.start(Budget(tokens=100), {})
    meter.add("judge", Usage(calls=1, prompt_tokens=90))
    assert meter.totals()["judge"]["prompt_tokens"] == 90
    ray.kill(meter._actor, no_restart=False)
    assert meter.totals()["judge"]["prompt_tokens"] == 90
    meter.add("judge", Usage(calls=1, prompt_tokens=10))
    assert meter.totals()["judge"]["prompt_tokens"] == 100
    assert "tokens 100 used up" in str(meter.reached())
