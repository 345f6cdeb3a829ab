"""The orchestration's overhead and memory, measured briefly; the full figures are in benchmarks/results."""

from pathlib import Path

import pytest

from benchmarks.orchestration import growth, measure
from tests.conftest import ROOT


def test_growth_is_that_of_the_second_half() -> None:
    warming = [(n, 100.0 + n) for n in range(0, 100, 10)]
    assert growth([*warming, *((n, 200.0) for n in range(100, 210, 10))]) == 0.0
    assert growth([*warming, *((n, 200.0 + 0.05 * n) for n in range(100, 210, 10))]) == pytest.approx(5.0)
    assert growth([(5, 100.0)]) == 0.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_part_costs_less_than_0_3_seconds_beyond_the_bare_function_and_memory_stays_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    figures = measure(60, 2, tmp_path)
    assert figures["overhead_seconds_per_part"] < 0.3
    assert figures["task_runs_recorded"] == 120
    growths = {name: group["growth_mb_per_100_parts"] for name, group in figures["memory"].items()}
    assert set(growths) == {"driver", "prefect_server", "ray", "ray_workers"}
    assert {name: size for name, size in growths.items() if size > 25} == {}, growths
