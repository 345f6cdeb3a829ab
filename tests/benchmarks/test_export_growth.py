"""The benchmark of exports that grow, on a few rows; the figures of more are in benchmarks/results."""

import json
from pathlib import Path

import pytest

from benchmarks import export_growth as bench
from infra.storage.artifacts import Directory
from infra.storage.store import Store


def test_merged_files_are_those_of_a_whole_export_and_both_ways_copy_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_PART", 20)
    monkeypatch.setattr(bench, "RENDERED_ROWS", 40)
    store = Store.open(str(tmp_path / "store"))
    tables = bench.write_tables(store, 100)
    assert tables["instances"].rows == 100
    (whole,) = bench.compute(store, tmp_path / "cache", bench.whole_parts(tables))
    specs = bench.render_parts(tables)
    assert len(specs) == 3
    (merged,) = bench.compute(store, tmp_path / "cache", bench.merge_parts(bench.compute(store, tmp_path, specs)))
    assert whole.directories == merged.directories
    export = Directory("export", merged.directories["export"])
    bench.copy_twice(store, export, tmp_path / "cache", tmp_path / "twice")
    bench.place_directory(store, export, tmp_path / "out")
    names = [tmp_path / folder / "tevatron" / "train.jsonl" for folder in ("twice", "out")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_the_published_figures_say_that_growth_costs_a_fraction() -> None:
    figures = json.loads(bench.RESULT.read_text(encoding="utf-8"))
    assert figures["growth_ratio"] < 0.3
    assert figures["merge"]["peak_gib"] < 2
