"""The dataset folder: loaded by the real library, in the layout of the paper's data."""

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings

from tasks import schemas
from tasks.data.writing import dataset_folder, training_set
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.dataset_folder import write_dataset_folder
from tests.tasks.data.writing import sets
from tests.tasks.data.writing.sets import Row, Texts, generated, pairs, teacher

ROWS: list[Row] = [("a/b", "q1", ["d1"], ["d2", "d3"]), ("a/b", "q2", ["d4"], []), ("c", "q1", ["d5", "d6"], ["d7"])]
D1 = {"docid": "d1", "text": "text 1", "title": "One"}


def test_the_datasets_library_loads_both_configurations(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    counts = write_dataset_folder(ExportConfig(), tmp_path / "d", sets.training_set(ROWS))
    assert counts == {"rows": 2, "without_negatives": 1, "files": 1}
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(tmp_path / "d"), split="train", cache_dir=cache)
    assert loaded.column_names == ["query_id", "query", "positive_passages", "negative_passages", "subset"]
    assert (loaded[0]["query"], loaded[0]["subset"], loaded[0]["positive_passages"]) == ("about q1", "a/b", [D1])
    assert [row["docid"] for row in loaded[1]["positive_passages"]] == ["d5", "d6"]
    alone = datasets.load_dataset(str(tmp_path / "d"), "without_negatives", split="train", cache_dir=cache)
    assert (alone["query_id"][:], alone["negative_passages"][:]) == (["q2"], [[]])


def test_large_sets_have_several_files_with_all_rows_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_set, "CHUNK_ROWS", 2)
    monkeypatch.setattr(dataset_folder, "SHARD_BYTES", 20)
    rows: list[Row] = [("d", f"q{number}", ["d2"], ["d3"]) for number in range(9)]
    counts = write_dataset_folder(ExportConfig(), tmp_path, sets.training_set(rows))
    assert counts == {"rows": 9, "without_negatives": 0, "files": 5}
    files = sorted((tmp_path / "data").iterdir())
    assert [path.name for path in files] == [f"train-{number:05d}-of-00005.parquet" for number in range(5)]
    assert pl.concat(map(pl.read_parquet, files))["query_id"].to_list() == [f"q{number}" for number in range(9)]


def test_fields_and_scores_of_the_source_are_columns(tmp_path: Path) -> None:
    extras = pairs(schemas.EXTRAS, ("c", "q1", "prompt", "Find: "))
    rows = sets.training_set(ROWS, extras=extras, teacher=teacher(("c", "q1", "d7", 0.25)))
    write_dataset_folder(ExportConfig(), tmp_path, rows)
    frame = pl.read_parquet(tmp_path / "data" / "*.parquet")
    assert frame["prompt"].to_list() == ["", "Find: "]
    assert [[p["teacher"] for p in row] for row in frame["negative_passages"]] == [[None, None], [0.25]]


@settings(max_examples=20, deadline=None)
@given(generated())
def test_what_is_written_is_read_back(made: tuple[list[Row], Texts]) -> None:
    rows, texts = made
    with tempfile.TemporaryDirectory() as folder:
        counts = write_dataset_folder(ExportConfig(), Path(folder) / "d", sets.training_set(rows, texts=texts))
        found, _ = sets.read_back(Path(folder) / "d")
    passages = {key: (key, *text, None) for key, text in texts.items()}
    assert found == {
        (row[0], row[1]): {True: [passages[key] for key in row[2]], False: [passages[key] for key in row[3]]}
        for row in rows
    }
    assert counts["without_negatives"] == sum(not row[3] for row in rows)
