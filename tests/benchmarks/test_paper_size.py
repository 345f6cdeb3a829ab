"""The figures of the benchmark at the paper's size, from made-up runs and parts."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.paper_size import add_run, figures, forecast, marginal_ratio
from benchmarks.paper_size_parts import Part, below, growth_shares, new_by_stage, read_over_input, seconds_by_stage
from benchmarks.paper_size_repair import curation_of
from benchmarks.paper_size_watch import Run, Watched, kind_of


def _part(stage: str, number: int, key: str, **facts: object) -> Part:
    return Part(**{"stage": stage, "arity": "map", "number": number, "index": number, "key": key, **facts})  # type: ignore[arg-type]


def _runs(*seconds: float) -> list[dict[str, object]]:
    return [
        {"name": f"rows-{n}", "queries": n, "seconds": s}
        for n, s in zip((10_000, 30_000, 100_000), seconds, strict=False)
    ]


def test_a_time_that_grows_with_the_rows_has_the_marginal_ratio_1() -> None:
    assert marginal_ratio(_runs(70.0, 110.0, 250.0)) == 1.0
    assert marginal_ratio(_runs(70.0, 110.0, 390.0)) == 2.0
    assert marginal_ratio(_runs(70.0, 110.0)) is None


def test_the_forecast_goes_on_at_the_cost_of_the_largest_sizes() -> None:
    assert forecast(_runs(70.0, 110.0, 250.0)) == round((250 + 580_000 * 0.002) / 3600, 2)
    assert forecast(_runs(70.0)) is None


def test_a_run_takes_the_place_of_an_older_one_of_its_name() -> None:
    result: dict[str, object] = {"runs": [{"name": "mined-9", "queries": 3, "seconds": 5.0}]}
    for run in (*_runs(70.0, 110.0, 390.0)[::-1], _runs(70.0, 110.0, 250.0)[-1]):
        add_run(result, run)
    names = [run["name"] for run in result["runs"]]  # type: ignore[attr-defined]
    assert names == ["rows-10000", "rows-30000", "rows-100000", "mined-9"]
    assert result["marginal_ratio"] == 1.0


def test_bytes_read_are_counted_once_for_parts_that_are_shared_and_inputs_once_for_a_stage() -> None:
    parts = [
        _part("judge", 0, "a", inputs={"x": 100, "all": 50}, read_bytes=150),
        _part("judge", 1, "b", inputs={"y": 100, "all": 50}, read_bytes=350),
        _part("judge", 2, "b", inputs={"y": 100, "all": 50}, read_bytes=350),
        _part("draw", 0, "a", inputs={}, read_bytes=3),
    ]
    assert read_over_input(parts) == {"judge": 2.0}


def test_growth_is_measured_by_what_was_not_there_before() -> None:
    before = [
        _part("encode", 0, "a", made={"v0": 80}, rows=160, encoded=80),
        _part("ingest", 0, "c", made={"q0": 20}, rows=20),
    ]
    after = [
        before[0],
        _part("encode", 1, "b", made={"v1": 1}, rows=2, encoded=1),
        _part("ingest", 0, "d", made={"q0": 20, "q1": 1}, rows=21),
    ]
    assert growth_shares(before, after) == {
        "redone_share": 0.02,
        "computed_share": round(23 / 180, 4),
        "parts_share": 1.0,
        "encoded_share": 0.0125,
    }
    assert new_by_stage(before, after) == {"encode": [1, 2], "ingest": [1, 1]}


def test_what_reads_a_part_is_followed_within_its_index_and_not_into_gathers() -> None:
    failed = _part("judge", 1, "a", made={"said": 3})
    parts = [
        failed,
        _part("judge", 0, "b", made={"other": 3}),
        _part("decide", 1, "c", inputs={"said": 9}, made={"decided": 3}),
        _part("decide", 0, "d", inputs={"other": 9}, made={"decided": 3}),
        _part("treat", 1, "e", inputs={"decided": 9}),
        _part("report", 0, "f", inputs={"decided": 9}, arity="gather"),
    ]
    assert [part.key for part in below(failed, parts)] == ["c", "e"]


def test_figures_take_the_highest_memory_of_samples_and_parts_and_add_up_commands() -> None:
    runs = [
        Run(0, 10.0, {"worker": 9.0, "driver": 6.0}, {"worker": 0.5, "driver": 0.4}, ""),
        Run(0, 2.0, {"driver": 3.0}, {"driver": 0.3}, ""),
    ]
    parts = [
        _part("encode", 0, "a", inputs={"x": 10}, read_bytes=25, seconds=4.0, peak_gib=0.9),
        _part("decide", 0, "b", inputs={"x": 10}, read_bytes=10, seconds=6.0),
    ]
    made = figures(runs, parts)
    assert {name: made[name] for name in ("seconds", "cpu_seconds", "peak_worker_gib", "peak_driver_gib")} == {
        "seconds": 12.0,
        "cpu_seconds": 18.0,
        "peak_worker_gib": 0.9,
        "peak_driver_gib": 0.4,
    }
    assert (made["read_over_input"], made["parts"]) == (2.5, 2)
    assert made["cpu_by_process"] == {"worker": 9.0, "driver": 9.0}
    assert list(seconds_by_stage(parts)) == ["decide", "encode"]
    assert json.dumps(made)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["ray::compute"], "worker"),
        ([sys.executable, "-u", "…/default_worker.py"], "starting"),
        ([sys.executable, "-m", "flows.cli", "curate", "x.yaml"], "driver"),
        (["/opt/ray/raylet"], "server"),
    ],
)
def test_processes_are_told_apart_by_their_command_lines(command: list[str], kind: str) -> None:
    assert kind_of(command) == kind


def test_a_process_without_the_mark_is_not_counted() -> None:
    watched = Watched("nobody has this mark")
    watched.look()
    assert (watched.cpu, dict(watched.peak)) == ({}, {})


def test_the_id_of_a_curation_is_read_from_what_was_printed(tmp_path: Path) -> None:
    assert curation_of(f"a note\ncuration paper-size-000002 in {tmp_path}\n") == "paper-size-000002"
