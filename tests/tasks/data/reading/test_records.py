"""Batches of rows."""

from tasks.data.reading import records
from tasks.data.reading.records import EXTRAS, PASSAGES, ROWS, Passage, Row, batches_of
from tasks.lines import Problem
from tests.tasks.records import mutable_records


def _row(number: int) -> Row:
    passage = Passage(f"a:{number}", f"d{number}", "", "text", 0.5)
    return Row(f"a:{number}", None, f"q{number}", "query", [passage], [passage], [], {"type": "normal"})


def test_rows_are_numbered_within_their_batch_and_keep_their_order() -> None:
    first, second = batches_of([_row(1), Problem("a:2", "broken_json", ""), _row(3), _row(4)], size=2)
    assert first.rows.rows() == [(0, "a:1", None, "q1", "query"), (1, "a:3", None, "q3", "query")]
    assert first.passages.select("row", "positive", "doc_id", "score").rows() == [
        (0, True, "d1", 0.5),
        (0, False, "d1", 0.5),
        (1, True, "d3", 0.5),
        (1, False, "d3", 0.5),
    ]
    assert first.extras.rows() == [(0, "type", "normal"), (1, "type", "normal")]
    assert [item.key for item in first.problems] == ["a:2"]
    assert second.rows["query_id"].to_list() == ["q4"]


def test_problems_alone_are_a_batch_with_empty_frames() -> None:
    (batch,) = batches_of([Problem("a:1", "broken_json", "")])
    assert (dict(batch.rows.schema), dict(batch.passages.schema), dict(batch.extras.schema)) == (ROWS, PASSAGES, EXTRAS)
    assert not list(batches_of([]))


def test_records_cannot_be_changed() -> None:
    assert mutable_records(records) == set()
