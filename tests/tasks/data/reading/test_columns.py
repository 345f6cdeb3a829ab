"""Reading by column gives what reading row by row gives."""

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.layouts.fields import FieldNames
from tasks.data.reading.columns import fits, read_columns
from tasks.data.reading.records import Batch, batches_of
from tasks.data.reading.rows import RowOptions, read_rows
from tasks.lines import Problem, ReadLimits

PASSAGE = pl.Struct({"docid": pl.String, "title": pl.String, "text": pl.String, "score": pl.Float64, "url": pl.String})
SCHEMA = {
    "query_id": pl.String,
    "query": pl.String,
    "positive_passages": pl.List(PASSAGE),
    "negative_passages": pl.List(PASSAGE),
    "subset": pl.String,
    "prompt": pl.String,
    "lang": pl.String,
}
OPTIONS = RowOptions(limits=ReadLimits(passages=4))


def _frame(*rows: dict[str, Any], schema: dict[str, Any] = SCHEMA) -> pl.DataFrame:
    return pl.DataFrame([{key: row.get(key) for key in schema} for row in rows], schema=schema, orient="row")


def _by_row(frame: pl.DataFrame, options: RowOptions, first: int = 1) -> Batch:
    objects = ((f"a#{number}", row) for number, row in enumerate(frame.to_dicts(), start=first))
    return _joined(batches_of(read_rows(objects, "a", options)))


def _by_column(frame: pl.DataFrame, options: RowOptions, first: int = 1) -> Batch:
    return _joined(read_columns(iter([(first, frame)]), "a", options))


def _joined(batches: Iterator[Batch]) -> Batch:
    every = list(batches) or [next(batches_of([Problem("", "", "")]))]
    (largest,) = [one for one in every if not one.rows.is_empty()] or every[:1]
    return Batch(largest.rows, largest.passages, largest.extras, [item for one in every for item in one.problems])


def _same(one: Batch, other: Batch) -> None:
    assert one.rows.equals(other.rows)
    assert one.passages.equals(other.passages)
    assert one.extras.sort("row", "name").equals(other.extras.sort("row", "name"))
    assert sorted(map(repr, one.problems)) == sorted(map(repr, other.problems))


texts = st.sampled_from([None, "", " ", "a", " b\t", "c\x00d", "é\u0085\u2028x\u00a0", "\x1c\x7f", "e\nf", "g\x1f"])
passages = st.fixed_dictionaries(
    {
        "docid": st.sampled_from([None, "", "d1", " d\t2", "d\x003"]),
        "title": texts,
        "text": texts,
        "score": st.sampled_from([None, 0.5, float("nan"), float("inf")]),
        "url": st.sampled_from([None, "", "u"]),
    }
)
lists = st.one_of(st.none(), st.lists(st.one_of(st.none(), passages, passages, passages), max_size=3))
rows = st.fixed_dictionaries(
    {
        "query_id": st.sampled_from([None, "", "q1", " q\n2"]),
        "query": texts,
        "positive_passages": lists,
        "negative_passages": lists,
        "subset": st.sampled_from([None, "", "nq", " a\tb"]),
        "prompt": st.sampled_from([None, "", "p"]),
        "lang": st.sampled_from([None, "", "de"]),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.lists(rows, min_size=1, max_size=5))
def test_columns_and_rows_give_the_same(made: list[dict[str, Any]]) -> None:
    frame = _frame(*made)
    assert fits(frame.schema, OPTIONS)
    _same(_by_column(frame, OPTIONS, 11), _by_row(frame, OPTIONS, 11))


def test_usual_rows_take_no_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.data.reading.columns._with_unusual", None)
    good = {"docid": "d1", "title": "T", "text": "x"}
    row = {"query_id": "q1", "query": "a", "positive_passages": [good], "negative_passages": [good], "subset": "nq"}
    batch = _by_column(_frame(row, row | {"negative_passages": None}), OPTIONS)
    assert batch.rows.rows() == [(0, "a#1", "nq", "q1", "a"), (1, "a#2", "nq", "q1", "a")]
    assert batch.passages.select("row", "positive", "doc_id", "title", "text").rows() == [
        (0, True, "d1", "T", "x"),
        (0, False, "d1", "T", "x"),
        (1, True, "d1", "T", "x"),
    ]


def test_numbers_as_ids_are_read_by_column_too() -> None:
    inner = pl.List(pl.Struct({"docid": pl.Int64, "text": pl.String}))
    schema = {"query_id": pl.Int32, "query": pl.String, "positive_passages": inner}
    frame = _frame({"query_id": 7, "query": "a", "positive_passages": [{"docid": 3, "text": "x"}]}, schema=schema)
    assert fits(frame.schema, OPTIONS)
    _same(_by_column(frame, OPTIONS), _by_row(frame, OPTIONS))


@pytest.mark.parametrize(
    "change",
    [
        {"query_id": pl.Float64},
        {"query": pl.List(pl.String)},
        {"positive_passages": pl.List(pl.String)},
        {"positive_passages": pl.List(pl.Struct({"docid": pl.String, "abstract": pl.String}))},
        {"positive_passages": pl.List(pl.Struct({"docid": pl.String, "text": pl.String, "contents": pl.String}))},
        {"positive_passages": pl.List(pl.Struct({"text": pl.String}))},
        {"subset": pl.Int64},
        {"prompt": pl.Int64},
    ],
)
def test_other_types_are_read_row_by_row(change: dict[str, Any]) -> None:
    assert not fits(pl.Schema(SCHEMA | change), OPTIONS)


def test_other_layouts_are_read_row_by_row() -> None:
    strings = pl.List(pl.String)
    assert not fits(pl.Schema({"query": pl.String, "pos": strings, "neg": strings}), OPTIONS)
    assert not fits(pl.Schema({"anchor": pl.String, "positive": pl.String}), OPTIONS)
    assert not fits(pl.Schema(SCHEMA), RowOptions("flagembedding"))
    named = RowOptions(names=FieldNames(query="frage"))
    assert not fits(pl.Schema(SCHEMA), named)


def test_problems_of_the_file_are_passed_on() -> None:
    problem = Problem("a#1", "broken_file", "damaged")
    (batch,) = read_columns(iter([problem]), "a", OPTIONS)
    assert batch.problems == [problem]
