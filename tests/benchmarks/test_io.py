"""The benchmark of reading and writing, on a small file; the figures of a large one are in benchmarks/results."""

import json
from pathlib import Path

import polars as pl

from benchmarks.io import RESULT, edit, run_ours, write_rows


def test_equal_seeds_give_equal_rows_in_the_layout_of_the_papers_data(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.parquet", "b.parquet")]
    rows = [write_rows(path, 2.0, 3) for path in files]
    first, second = (pl.read_parquet(path) for path in files)
    assert first.equals(second)
    assert rows == [first.height] * 2
    assert first.columns == ["query_id", "query", "positive_passages", "negative_passages", "subset"]
    assert set(first["negative_passages"].list.len()) <= set(range(15, 26))
    assert first["positive_passages"].list.len().unique().to_list() == [1]


def test_the_edit_of_a_row_removes_negatives_that_repeat_a_passage() -> None:
    passages = [
        {"docid": name, "title": "", "text": text} for name, text in (("p", "Yes."), ("c", "yes. "), ("n", "no"))
    ]
    row = edit({"query": "really?", "positive_passages": passages[:1], "negative_passages": [*passages, passages[2]]})
    assert [passage["docid"] for passage in row["negative_passages"]] == ["n"]


def test_our_way_keeps_every_row_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    rows = write_rows(tmp_path / "source" / "train.parquet", 1.5, 1)
    assert run_ours(tmp_path / "source", tmp_path)["rows"] == rows


def test_the_published_figures_keep_within_two_gibibytes() -> None:
    figures = json.loads(RESULT.read_text(encoding="utf-8"))
    assert figures["file_bytes"] > 990_000_000
    assert figures["peak_rss_bytes"]["ours"] < 2 * 2**30
    assert figures["ratio"] >= 3 or figures["note"]
