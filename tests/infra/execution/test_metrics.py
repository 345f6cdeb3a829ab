"""What parts did, counted for Prometheus."""

import sys

import pytest
import ray

from infra.execution import metrics


class Counter:
    """Keeps what is counted, as (value, tags without the stage); like Ray, it refuses to add nothing."""

    def __init__(self) -> None:
        self.counted: list[tuple[float, dict[str, str]]] = []

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0
        assert tags["stage"] == "judge-llm"
        self.counted.append((value, {name: tag for name, tag in tags.items() if name != "stage"}))

    observe = inc


@pytest.fixture
def counters() -> dict[str, Counter]:
    return {name: Counter() for name in ("parts", "seconds", "rows", "calls", "tokens", "ledger", "unparsed")}


def test_each_figure_of_a_part_goes_to_its_own_counter_and_what_is_zero_goes_nowhere(
    counters: dict[str, Counter],
) -> None:
    facts = {"calls": 3, "recalled": 4, "prompt_tokens": 50, "cached_tokens": 6, "output_tokens": 7, "unparsed": 1}
    stats = {"seconds": 1.5, "rows_in": 3, "rows_out": 0, "facts": facts}
    metrics._count(metrics._Instruments(**counters), "judge-llm", "computed", stats)
    assert {name: counter.counted for name, counter in counters.items()} == {
        "parts": [(1, {"ended": "computed"})],
        "seconds": [(1.5, {})],
        "rows": [(3, {"direction": "in"})],
        "calls": [(3, {})],
        "tokens": [(50, {"kind": "prompt"}), (6, {"kind": "cached"}), (7, {"kind": "output"})],
        "ledger": [(3, {"how": "asked"}), (4, {"how": "recalled"})],
        "unparsed": [(1, {})],
    }


def test_an_attempt_without_figures_counts_as_an_attempt_alone(counters: dict[str, Counter]) -> None:
    metrics._count(metrics._Instruments(**counters), "judge-llm", "killed", {})
    assert counters["parts"].counted == [(1, {"ended": "killed"})]
    assert not any(counter.counted for name, counter in counters.items() if name != "parts")


def test_parts_are_counted_while_ray_runs_and_an_error_of_its_own_fails_no_part(
    monkeypatch: pytest.MonkeyPatch, counters: dict[str, Counter]
) -> None:
    monkeypatch.setattr(metrics, "_instruments", lambda: metrics._Instruments(**counters))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    metrics.count_part("judge-llm", "computed")
    assert counters["parts"].counted == []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    metrics.count_part("judge-llm", "computed", {"rows_in": 2})
    assert counters["rows"].counted == [(2, {"direction": "in"})]
    metrics.count_part("another-stage", "computed")  # the counter raises
    assert len(counters["parts"].counted) == 1


def test_where_ray_was_never_imported_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray")
    metrics.count_part("judge-llm", "computed")
