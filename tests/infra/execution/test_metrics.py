"""What parts did, counted for Prometheus."""

import re
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import ray

from infra.execution import metrics
from tests.conftest import RAY_EXTRAS, require
from tests.infra.toy import ToyConfig
from tests.infra.toy_runs import execute


@pytest.mark.slow
def test_every_figure_of_a_part_is_of_a_kind_that_ray_counts(services: None) -> None:
    facts = {"calls": 3, "recalled": 4, "prompt_tokens": 50, "cached_tokens": 6, "output_tokens": 7, "unparsed": 1}
    stats = {"seconds": 1.5, "rows_in": 3, "rows_out": 0, "facts": facts}
    metrics._count(metrics._instruments(), "judge-llm", "computed", stats)


@pytest.mark.slow
def test_what_parts_did_is_exported_for_prometheus(services: None, tmp_path: Path) -> None:
    require(RAY_EXTRAS)
    execute(
        str(tmp_path / "store"), tmp_path, ToyConfig(log=str(tmp_path / "log"), trouble=f"kill:{tmp_path / 'once'}")
    )
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    wanted = re.compile(r'^ray_reneg_parts_total{.*ended="(killed|computed)".*stage="double".*} (\d+)', re.MULTILINE)
    found: dict[str, str] = {}
    for _ in range(240):  # Ray passes numbers on every ten seconds
        page = urllib.request.urlopen(address, timeout=5).read().decode()
        found = dict(wanted.findall(page))
        if int(found.get("computed", 0)) >= 4 and "add_up" in page:
            break
        time.sleep(0.5)
    assert int(found["killed"]) >= 1
    assert int(found["computed"]) >= 4
    assert "ray_reneg_part_seconds_bucket{" in page
    assert re.search(r'^ray_reneg_rows_total{.*direction="out".*stage="add_up".*} ', page, re.MULTILINE)


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
