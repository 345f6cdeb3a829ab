"""Rows are taken out of a segment; the others are durable before it goes."""

from pathlib import Path

import polars as pl
import pytest

from infra.ledger.rewriting import count_in, take_out
from infra.ledger.segments import DamagedError, Segments
from infra.storage.store import Store
from tests.infra.ledger.rows import frame_of

FOLDER = "ledger/j/ab"


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    found = Segments(Store.open(str(tmp_path)))
    found.slice_rows = 100
    return found


def even(rows: pl.DataFrame) -> pl.Series:
    return rows["entry"].str.tail(1).is_in(list("02468ace"))


def nothing(rows: pl.DataFrame) -> pl.Series:
    return rows["entry"] == ""


@pytest.mark.parametrize("height", [40, 700])
def test_the_chosen_rows_are_taken_out_and_the_others_were_durable_before(segments: Segments, height: int) -> None:
    rows = frame_of(height)
    key, chosen = segments.write(FOLDER, rows), int(even(rows).sum())
    there: list[list[str]] = []

    def remove(key: str) -> None:
        there.append(segments.keys(FOLDER))
        segments.store.delete(key)

    assert count_in(segments, key, even) == (chosen, height)
    found, kept = take_out(segments, key, even, remove)
    assert found == chosen
    assert [sorted(keys) for keys in there] == [sorted([key, kept])]
    left = segments.read(kept)
    assert left is not None
    assert left.sort("entry").equals(rows.filter(~even(rows)).sort("entry"))


def test_a_segment_of_chosen_rows_alone_goes_and_one_without_any_stays(segments: Segments) -> None:
    key = segments.write(FOLDER, frame_of(300))
    assert take_out(segments, key, nothing, segments.store.delete) == (0, "")
    assert segments.keys(FOLDER) == [key]
    assert take_out(segments, key, lambda rows: ~nothing(rows), segments.store.delete) == (300, "")
    assert segments.keys(FOLDER) == []
    assert count_in(segments, key, nothing) == (0, 0)


def test_a_damaged_segment_is_told(segments: Segments) -> None:
    key = segments.write(FOLDER, frame_of(300))
    segments.store.repair(key, b"cut")
    with pytest.raises(DamagedError):
        take_out(segments, key, even, segments.store.delete)
    assert segments.keys(FOLDER) == [key]
