"""Compaction: little is rewritten, memory is bounded, and a compactor that is killed or overtaken loses nothing."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.ledger import blocks, compaction
from infra.ledger.compaction import NOTHING, Compaction, compact, merge, settle, size_class, slices
from infra.ledger.ledger import Ledger
from infra.ledger.names import SegmentName
from infra.ledger.segments import Segments
from infra.storage.store import Store
from tests.infra.ledger.rows import Counted, asked_of, frame_of

FOLDER = "ledger/j/ab"


def rows_of(segments: Segments, folder: str = "ledger") -> pl.DataFrame:
    found = [segments.read(key) for key in segments.keys(folder)]
    return pl.concat([rows for rows in found if rows is not None]).sort("entry")


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    return Segments(Store.open(str(tmp_path)))


def test_news_of_one_percent_rewrites_little_more_than_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_SMALLEST", 8 * 1024)
    Store.open(str(tmp_path))
    store = Counted(str(tmp_path))
    segments = Segments(store)
    for shelf in ("ab", "cd"):
        segments.write(f"ledger/j/{shelf}", frame_of(4000, shelf=shelf))
    whole = sum(store.sizes("ledger").values())
    store.bytes_written = 0
    nights = 10
    for night in range(nights):
        with Ledger(store) as ledger:
            news = [frame_of(40, 100_000 + 1000 * night, shelf=shelf) for shelf in ("ab", "cd")]
            ledger.remember("j", pl.concat(news).select("entry", "subjects", "payload").rows())
        compact(segments, "j", 1, 2048)
    assert store.bytes_written < whole * nights / 8  # as it was, each night rewrote everything
    assert len(segments.keys("ledger")) < 2 * 2 * 8
    assert rows_of(segments).height == 8000 + nights * 80


def test_segments_of_one_size_are_merged_with_all_smaller_ones_and_larger_ones_stay(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_SMALLEST", 4 * 1024)
    large = segments.write(FOLDER, frame_of(2000))
    for n in range(3):
        segments.write(FOLDER, frame_of(10, 5000 + 10 * n))
    sizes = segments.store.sizes(FOLDER)
    assert {size_class(size) for key, size in sizes.items() if key != large} == {0}
    assert settle(segments, dict(sizes), 4) == NOTHING
    segments.write(FOLDER, frame_of(10, 6000))
    sizes = segments.store.sizes(FOLDER)
    assert settle(segments, sizes, 4) == Compaction(4, 1)
    assert large in segments.keys(FOLDER)
    assert sizes == segments.store.sizes(FOLDER)
    assert rows_of(segments).height == 2040


def test_no_more_is_merged_at_once_than_fits_and_the_largest_stay_as_they_are(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [segments.write(FOLDER, frame_of(200, 200 * n)) for n in range(6)]
    sizes = segments.store.sizes(FOLDER)
    monkeypatch.setattr(compaction, "_MOST", int(3.5 * max(sizes.values())))
    assert settle(segments, dict(sizes), 2) == Compaction(6, 2)
    assert not set(keys) & set(segments.keys(FOLDER))
    assert settle(segments, segments.store.sizes(FOLDER), 2) == NOTHING
    assert rows_of(segments).height == 1200


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(0, 150), max_size=3), st.integers(10, 100), st.integers(0, 50))
def test_slices_are_sorted_distinct_and_complete_whatever_overlaps(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], size: int, further: int
) -> None:
    segments = Segments(Store.open(str(tmp_path_factory.mktemp("store"))))
    segments.block_rows = 32
    every = frame_of(150, per_query=7)
    edges = sorted({0, *cuts, 150})
    pieces = [every.slice(max(0, low - 20), high - low + 20) for low, high in pairwise(edges)]
    opened = [segments.open(segments.write("ledger/j/new", piece)) for piece in pieces]
    more = frame_of(further, 140, per_query=7) if further else None
    found = list(slices([one for one in opened if one is not None], more, size))
    whole = pl.concat([every] if more is None else [every, more])
    expected = blocks.sort_distinct(blocks.with_places(whole))
    assert pl.concat(found).equals(expected)


def test_slices_make_the_same_segment_as_one_frame(segments: Segments) -> None:
    segments.block_rows = 32
    every = frame_of(900, per_query=4)
    opened = [segments.open(segments.write("ledger/j/new", every.slice(start, 300))) for start in (0, 300, 600)]
    sliced, _ = segments.write_sorted(FOLDER, slices([one for one in opened if one is not None], None, 100))
    assert segments.write(FOLDER, every) == sliced


def test_a_large_segment_of_an_earlier_version_is_cut_into_blocks_once(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_LARGE_FILE", 2000)
    few = monkeypatch.context()
    with few as patch:
        patch.setattr("infra.ledger.segments._FEW", 10_000)
        old = segments.write(FOLDER, frame_of(500))
    assert SegmentName.parse(old).rows is None
    assert compact(segments, "j", 64, 2048) == Compaction(1, 1)
    (key,) = segments.keys("ledger")
    assert SegmentName.parse(key).rows == 500
    assert rows_of(segments).equals(frame_of(500).sort("entry"))
    assert compact(segments, "j", 1, 2048) == NOTHING


def test_a_damaged_segment_of_blocks_is_left_alone(segments: Segments) -> None:
    keys = [segments.write(FOLDER, frame_of(200, 200 * n, shelf="ab")) for n in range(3)]
    segments.store.repair(keys[0], (segments.store.read(keys[0]) or b"")[:-1] + b"x")
    assert compact(segments, "j", 2, 2048) == Compaction(2, 1)
    assert keys[0] in segments.keys(FOLDER)
    known = Ledger(segments.store).recall("j", asked_of(frame_of(600, shelf="ab")))
    assert known.keys() == set(frame_of(400, 200, shelf="ab")["entry"])


def test_a_segment_that_vanishes_is_left_out_and_nothing_makes_nothing(segments: Segments) -> None:
    key = segments.write(FOLDER, frame_of(5))
    assert merge(segments, FOLDER, [key, f"{FOLDER}/{'0' * 64}.parquet"]) == (NOTHING, key)
    assert merge(segments, FOLDER, [f"{FOLDER}/{'0' * 64}.parquet"]) == (NOTHING, "")


def test_new_segments_are_sorted_a_few_megabytes_at_a_time(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_AT_ONCE", 1)
    for n in range(3):
        segments.write("ledger/j/new", frame_of(200, 200 * n, shelf="ab"))
    done = compact(segments, "j", 3, 2048)
    assert done == Compaction(3 + 2, 3)  # the third with the two before it, as three of one size are merged
    assert done.written > sum(segments.store.sizes("ledger").values())
    assert rows_of(segments, FOLDER).height == 600


def test_figures_add_up_and_bytes_are_told_beside_them() -> None:
    total = Compaction(1, 2, 3) + Compaction(10, 20, 30)
    assert dataclasses.astuple(total) == (11, 22, 33)
    assert Compaction(1, 2, 3) == Compaction(1, 2)
