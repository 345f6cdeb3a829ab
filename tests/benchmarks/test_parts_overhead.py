"""The figures of thousands of parts, from a few parts; the full ones are in benchmarks/results."""

import json
from pathlib import Path

import polars as pl

from benchmarks.parts_overhead import RESULT, Counted, compare, make_numbers, measured, walk
from infra.storage.store import Store
from tests.flows.fakes import InProcess


def test_a_walk_is_measured_with_its_calls_to_the_store(tmp_path: Path) -> None:
    Store.open(str(tmp_path))
    store = Counted(str(tmp_path))
    numbers = make_numbers(store, 5)
    assert store.get_object(numbers.pieces[4].object)
    rows: list[dict[str, float]] = [{}, {}]
    for row, executor in zip(rows, (InProcess(store, tmp_path / "scratch"), None), strict=True):
        with measured(row, 5):
            walk(store, numbers, executor)
    assert rows[0]["listings"] == 1
    assert (rows[1]["listings"], rows[1]["reads"]) == (1, 5)
    assert 0 < rows[1]["seconds_per_part"] < 1
    assert rows[1]["driver_peak_gib"] > 0.05
    assert pl.read_parquet(store.get_object(numbers.pieces[4].object))["n"].to_list() == list(range(40, 50))


def test_the_recorded_figures_hold_what_the_page_says() -> None:
    found = json.loads(RESULT.read_text())
    assert [row["parts"] for row in found["sizes"]] == [300, 1000, 3000]
    assert found["times_as_much_before"] == compare(found["before"], found["sizes"])
