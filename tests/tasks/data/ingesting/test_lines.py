"""Places of records are numbered, and named again by their numbers."""

import polars as pl

from tasks.data.ingesting.lines import Lines
from tasks.data.on_disk.scratch import Scratch


def test_places_are_named_by_their_numbers_in_any_order_and_more_than_once() -> None:
    lines = Lines(Scratch())
    assert lines.add(pl.Series(["a:1", "a:2"])).to_list() == [0, 1]
    assert lines.names(pl.Series([1])).to_list() == ["a:2"]
    assert lines.add(pl.Series(["b:1"])).to_list() == [2]
    assert lines.count == 3
    assert lines.names(pl.Series([2, 0, 2], dtype=pl.UInt32)).to_list() == ["b:1", "a:1", "b:1"]
    assert lines.names(pl.Series([], dtype=pl.UInt32)).to_list() == []
