"""Rows are numbered, and what contradicts an earlier row is left out."""

import polars as pl

from tasks.data.ingesting import records as r
from tasks.data.ingesting.row_records import read_rows
from tasks.data.reading.records import Passage, Row, batches_of
from tasks.lines import Problem


def _row(line: int, query: str, positives: str, negatives: str, score: float | None = None, **more: str) -> Row:
    def passages(names: str) -> list[Passage]:
        pairs = [name.partition("=") for name in names.split()]
        return [Passage(f"f:{line}", doc, "", text or f"text of {doc}", score) for doc, _, text in pairs]

    return Row(f"f:{line}", None, query, f"about {query}", passages(positives), passages(negatives), [], more)


def _read(*rows: Row | Problem, size: int = 2) -> r.Records:
    return read_rows(batches_of(rows, size), "d", longest=100, most_rejects=10)


def test_passages_and_queries_are_numbered_in_reading_order_over_all_batches() -> None:
    read = _read(_row(1, "q1", "a", "b c"), _row(2, "q2", "b", "a"), _row(3, "q1", "d", "b"))
    assert read.queries.select("number", "id", "line", "named").rows() == [(0, "q1", 0, "train"), (1, "q2", 1, "train")]
    assert read.passages["id"].to_list() == ["a", "b", "c", "d"]
    assert read.labels["train"].rows() == [(0, 0, 0, 1.0), (1, 1, 1, 1.0), (0, 3, 2, 1.0)]
    assert read.negatives.select("query", "passage", "line").rows() == [(0, 1, 0), (0, 2, 0), (1, 0, 1), (0, 1, 2)]
    texts = pl.concat(read.texts.frames())["text"].gather(read.passages["place"]).to_list()
    assert texts == [f"text of {doc}" for doc in "abcd"]
    assert read.rejects.frame()["reason"].to_list() == ["duplicate_query"]


def test_a_conflict_in_a_later_batch_costs_the_reference_or_the_row() -> None:
    read = _read(
        _row(1, "q1", "a", "b"), _row(2, "q2", "c", "d"), _row(3, "q3", "a=new b", "c"), _row(4, "q4", "a=new", "e")
    )
    assert read.queries["id"].to_list() == ["q1", "q2", "q3"]
    assert read.passages["id"].to_list() == ["a", "b", "c", "d"]
    assert read.labels["train"].select("query", "passage").rows() == [(0, 0), (1, 2), (2, 1)]
    assert read.rejects.frame().select("key", "reason").rows() == [
        ("f:3", "id_conflict"),
        ("f:4", "id_conflict"),
        ("f:4", "no_positive"),
    ]


def test_scores_and_further_fields_of_kept_rows_are_kept() -> None:
    read = _read(_row(1, "q1", "a", "b", 0.5, prompt="find it"), _row(2, "q2", "a=new", "c", 0.25, prompt="lost"))
    assert read.scores.rows() == [(0, 0, 0, 0.5), (0, 1, 0, 0.5)]
    assert read.extras.rows() == [(0, "prompt", "find it")]


def test_rows_that_the_reader_lost_are_counted_as_read() -> None:
    read = _read(_row(1, "q1", "a", ""), Problem("f:2", "broken_json", ""), Problem("f:2", "empty_text", ""))
    assert read.facts == {"rows_read": 2, "rows_kept": 1}
    assert not read.corpus


def test_nothing_at_all_is_no_records() -> None:
    read = _read()
    assert read.queries.is_empty() and read.passages.is_empty() and read.negatives.is_empty()
