"""Rows with their texts: checked at once, and read in chunks of bounded size."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

from tasks import schemas
from tasks.data.on_disk import sorted_rows
from tasks.data.writing import training_set as module
from tasks.data.writing.config import ExportConfig
from tests.tasks.data.writing.sets import Row, Texts, generated, pairs, tables, training_set
from tests.tasks.records import mutable_records

ROWS: list[Row] = [("b", "q1", ["d1"], []), ("a", "q2", ["d2", "d1"], ["d3"]), ("a", "q1", ["d4"], ["d5", "d1"])]


def test_rows_are_sorted_and_keep_the_order_of_their_passages() -> None:
    rows = training_set(ROWS)
    (chunk,) = rows.chunks()
    assert chunk.rows.rows() == [("a", "q1", "about q1", 21), ("a", "q2", "about q2", 21), ("b", "q1", "about q1", 9)]
    assert chunk.size == 51
    assert chunk.positives.passages["doc_id"].to_list() == ["d4", "d2", "d1", "d1"]
    assert chunk.positives.shown.to_list() == ["text 4", "text 2", "One text 1", "One text 1"]
    assert (chunk.positives.counts.tolist(), chunk.negatives.counts.tolist()) == ([1, 2, 1], [2, 1, 0])
    assert chunk.negatives.starts.tolist() == [0, 2, 3]
    assert (rows.height, rows.without_negatives, dict(rows.treatments)) == (3, 1, {"relabel": 3})


def test_a_chunk_can_be_cut_to_some_of_its_rows() -> None:
    (chunk,) = training_set(ROWS).chunks()
    cut = chunk.only(np.array([False, True, True]))
    assert cut.rows["query_id"].to_list() == ["q2", "q1"]
    assert cut.positives.passages["doc_id"].to_list() == ["d2", "d1", "d1"]
    assert cut.negatives.counts.tolist() == [1, 0]


def test_chunks_are_bounded_by_rows_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: Texts = {"small": ("", "x" * 10), "large": ("title", "y" * 95)}
    rows: list[Row] = [("d", f"q{n}", ["large" if n == 2 else "small"], []) for n in range(6)]
    monkeypatch.setattr(module, "CHUNK_BYTES", 30)
    monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    found = training_set(rows, texts=texts)
    assert [chunk.size for chunk in found.chunks()] == [20, 100, 20, 10]
    monkeypatch.setattr(module, "CHUNK_ROWS", 9)
    assert [chunk.size for chunk in found.chunks()] == [20, 100, 30]
    monkeypatch.setattr(sorted_rows, "PIECE_BYTES", 200)  # the rows come in pieces, and are cut at the same places
    assert [chunk.size for chunk in training_set(rows, texts=texts).chunks()] == [20, 100, 30]
    assert list(training_set([]).chunks()) == []


@settings(max_examples=30, deadline=None)
@given(generated())
def test_chunks_of_any_size_hold_the_same_rows(made: tuple[list[Row], Texts]) -> None:
    rows, texts = made
    found = training_set(rows, texts=texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_ROWS", 1)
        single = list(training_set(rows, texts=texts).chunks())
    (whole,) = found.chunks()
    assert pl.concat([chunk.rows for chunk in single]).equals(whole.rows)
    for side in ("positives", "negatives"):
        assert pl.concat([getattr(chunk, side).passages for chunk in single]).equals(getattr(whole, side).passages)
    listed = {(row[0], row[1]): (row[2], row[3]) for row in rows}
    for chunk in single:
        keys = (chunk.positives.passages["doc_id"].to_list(), chunk.negatives.passages["doc_id"].to_list())
        assert keys == listed[chunk.rows.row(0)[:2]]


def test_each_dataset_gives_its_rows_and_its_passages_once() -> None:
    rows = training_set(ROWS)
    groups = {name: sum(chunk.rows.height for chunk in chunks) for name, chunks in rows.by_dataset()}
    assert groups == {"a": 2, "b": 1} == dict(rows.datasets)
    documents = {name: pl.concat(frames)["doc_id"].to_list() for name, frames in rows.documents()}
    assert documents == {"a": ["d1", "d2", "d3", "d4", "d5"], "b": ["d1"]}
    assert (rows.count_passages(0), rows.count_passages(1)) == (4, 3)


def test_further_fields_of_the_source_stand_beside_the_rows() -> None:
    extras = pairs(schemas.EXTRAS, ("a", "q1", "prompt", "Represent: "), ("b", "q1", "type", "normal"))
    rows = training_set(ROWS, extras=extras)
    assert rows.extras == ("prompt", "type")
    (chunk,) = rows.chunks()
    assert chunk.rows.select("prompt", "type").rows() == [("Represent: ", ""), ("", ""), ("", "normal")]
    assert (rows.fields, rows.count("teacher"), rows.has("teacher")) == ({"prompt": 1, "type": 1}, 0, False)


@pytest.mark.parametrize(
    ("table", "says"),
    [("queries", "instance a/q1: no text for its query"), ("passages", "instance a/q1: no text for passage d4")],
)
def test_a_missing_text_names_the_instance(table: str, says: str) -> None:
    made = tables(ROWS)
    made[table] = made[table].filter(pl.col("query_id" if table == "queries" else "doc_id").is_in(["q1", "d4"]).not_())
    with pytest.raises(ValueError, match=says):
        module.join_texts(ExportConfig(), **made)


def test_a_text_that_changed_names_the_instance() -> None:
    made = tables(ROWS)
    changed = pl.when(doc_id="d2").then(pl.lit("0" * 32)).otherwise("text_hash")
    made["passages"] = made["passages"].with_columns(text_hash=changed)
    with pytest.raises(ValueError, match=r"instance a/q2: texts_hash is .*, its texts now give"):
        module.join_texts(ExportConfig(), **made)


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(module) == set()
