"""Rows sorted on disk: in order whatever their number, and never many of them in memory."""

import random
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.on_disk import sorted_rows as module
from tasks.data.on_disk.scratch import Scratch
from tasks.data.on_disk.sorted_rows import SortedRows

KEYS = ("dataset", "id")


def _frame(keys: Sequence[tuple[str, str]]) -> pl.DataFrame:
    rows = [(*key, [{"text": f"é {key[1]}"}] * (len(key[1]) % 3)) for key in keys]
    schema = {"dataset": pl.String, "id": pl.String, "passages": pl.List(pl.Struct({"text": pl.String}))}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _added(frames: Sequence[pl.DataFrame], *, distinct: bool = False) -> SortedRows:
    rows = SortedRows(Scratch(), "rows", KEYS, distinct=distinct)
    for frame in frames:
        rows.add(frame)
    return rows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "a b", "ab", "é", "z"]), st.text("ab\t\x1fé😀", max_size=6)), max_size=60),
    st.integers(1, 9),
    st.integers(1, 3_000),
)
def test_rows_come_in_the_order_of_their_columns_whatever_the_size_of_a_piece(
    keys: list[tuple[str, str]], size: int, most: int
) -> None:
    frames = [_frame(keys[at : at + size]) for at in range(0, len(keys), size)] or [_frame([])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_BYTES", most)
        patch.setattr(module, "_RANGES", 3)
        patch.setattr(module, "_SAMPLED", 8)
        rows, once = _added(frames), _added(frames, distinct=True)
        found, again = (pl.concat([rows.empty, *rows.frames()]) for _ in range(2))
        distinct = pl.concat([once.empty, *once.frames()])
    assert found.equals(_frame(sorted(keys)))
    assert again.equals(found)
    assert distinct.equals(_frame(sorted(set(keys))))


def test_pieces_are_of_bounded_size_and_no_row_is_on_disk_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(module, "_RANGES", 8)
    numbers = list(range(20_000))
    random.Random(3).shuffle(numbers)
    scratch = Scratch()
    rows = SortedRows(scratch, "rows", KEYS)
    for at in range(0, len(numbers), 500):
        rows.add(_frame([("d", f"{number:05d}") for number in numbers[at : at + 500]]))
    written = _bytes(scratch.path)
    frames = list(rows.frames())
    assert [number for frame in frames for number in map(int, frame["id"])] == sorted(numbers)
    assert max(frame.height for frame in frames) < 1_000
    assert _bytes(scratch.path) < 2 * written


def test_rows_of_one_key_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 100)
    (frame,) = _added([_frame([("d", "same")] * 50)] * 2).frames()
    assert frame.height == 100


def test_no_rows_have_a_schema() -> None:
    rows = _added([_frame([])])
    assert list(rows.frames()) == []
    assert rows.empty.columns == ["dataset", "id", "passages"]


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
