"""Texts are cut, hashed as everywhere else, and each is kept once."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as some

from tasks.data.ingesting.text_store import (
    PassageStore,
    QueryStore,
    cut_texts,
    from_hex,
    hash_all,
    hash_titled,
    part_of_hashes,
    to_hex,
)
from tasks.data.on_disk.scratch import Scratch
from tasks.texts import hash_passage, hash_text, part_of

_TEXT = some.text(some.characters(codec="utf-8"), max_size=30)


@settings(max_examples=50, deadline=None)
@given(some.lists(some.tuples(_TEXT, _TEXT), max_size=8), some.integers(1, 2**31))
def test_hashes_and_parts_are_those_of_single_texts(passages: list[tuple[str, str]], parts: int) -> None:
    frame = pl.DataFrame(passages, schema={"title": pl.String, "text": pl.String}, orient="row")
    hashes = [hash_passage(*passage) for passage in passages]
    halves = hash_titled(frame)
    assert to_hex(*halves).to_list() == hashes
    assert [half.tolist() for half in from_hex(to_hex(*halves))] == [half.tolist() for half in halves]
    assert to_hex(*hash_all(frame["text"])).to_list() == [hash_text(text) for _, text in passages]
    assert part_of_hashes(*hash_titled(frame), parts).tolist() == [part_of(digits, parts) for digits in hashes]


def test_long_texts_are_cut_by_characters_and_told_by_their_length() -> None:
    texts, lengths = cut_texts(pl.Series(["äöüß", "äöü ß", "abc", "", "abcde fgh"]), 4)
    assert texts.to_list() == ["äöüß", "äöü", "abc", "", "abcd"]
    assert lengths.to_list() == [None, 5, None, None, 9]
    same, none = cut_texts(pl.Series(["ab"]), 4)
    assert (same.to_list(), none.to_list()) == (["ab"], [None])


def test_each_passage_is_kept_once_over_all_batches_and_later_ones_go_on_counting() -> None:
    store = PassageStore(Scratch(), 3)
    rows = [("d", "1", "", "one"), ("d", "2", "", "two"), ("d", "1", "", "one"), ("d", "1", "", "longer")]
    frame = pl.DataFrame(rows, schema=["dataset", "id", "title", "text"], orient="row")
    assert store.add(frame).tolist() == [0, 1, 0, 2]
    more = pl.DataFrame([("e", "1", "", "one")], schema=frame.schema, orient="row")
    assert store.add(pl.concat([frame[2:], more])).tolist() == [0, 2, 3]
    kept = store.frame()
    assert kept["id"].to_list() == ["1", "2", "1", "1"]
    assert kept["length"].to_list() == [None, None, 6, None]
    assert pl.concat(store.texts.frames())["text"].to_list() == ["one", "two", "lon", "one"]
    assert to_hex(kept["high"].to_numpy(), kept["low"].to_numpy())[2] == hash_passage("", "lon")


def test_queries_are_kept_with_their_texts() -> None:
    store = QueryStore(5)
    store.add(pl.DataFrame({"dataset": ["d"], "id": ["q"], "text": ["what is"]}))
    (row,) = store.frame().select("dataset", "id", "text", "length").rows()
    assert row == ("d", "q", "what", 7)


def test_no_text_has_no_hash() -> None:
    high, low = hash_all(pl.Series([], dtype=pl.String))
    assert high.dtype == low.dtype == np.uint64
    assert to_hex(high, low).to_list() == []
