"""The passages of a plan: ids of all, texts of those that are named."""

import polars as pl

from flows.planning.passage_texts import PassageTexts
from tasks import schemas


def _passages(*numbers: int) -> pl.DataFrame:
    rows = [("d", f"p{number}", "", f"text {number}", f"h{number}") for number in numbers]
    return pl.DataFrame(rows, schema=schemas.PASSAGES.columns, orient="row")


_FRAMES = [_passages(1, 2), _passages(), _passages(3)]


def test_passages_of_a_generator_are_kept_and_can_be_read_more_than_once() -> None:
    passages = PassageTexts.keep(frame for frame in _FRAMES)
    for _ in range(2):
        assert pl.concat(passages.frames()).equals(pl.concat(_FRAMES))
    assert passages.ids.rows() == [("d", "p1", "h1"), ("d", "p2", "h2"), ("d", "p3", "h3")]


def test_texts_are_given_for_the_passages_that_pairs_name() -> None:
    passages = PassageTexts(lambda: iter(_FRAMES))
    pairs = [
        pl.DataFrame({"dataset": ["d", "e"], "query_id": ["q", "q"], "doc_id": [doc, "p2"]}) for doc in ("p3", "p1")
    ]
    assert passages.named_in(*pairs)["text"].to_list() == ["text 1", "text 3"]


def test_without_passages_there_are_empty_tables() -> None:
    nothing = PassageTexts.keep([])
    assert nothing.ids.columns == ["dataset", "doc_id", "text_hash"]
    assert nothing.named_in(pl.DataFrame({"dataset": ["d"], "doc_id": ["p1"]})).is_empty()
