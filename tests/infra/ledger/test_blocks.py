"""Segments of blocks: which blocks may hold an entry, which segments may name a text, and that bytes are checked."""

import numpy as np
import polars as pl
import pytest

from infra.ledger import blocks
from infra.ledger.blocks import BlockWriter, DamagedError, Index, Wanted
from tests.infra.ledger.rows import asked_of, frame_of, hashed

ROWS = blocks.sort_distinct(blocks.with_places(frame_of(1000)))


def written(*cuts: int, size: int = 64) -> tuple[bytes, Index]:
    """A segment of 1,000 rows that came in pieces, and its index."""
    writer = BlockWriter(size)
    for start, end in zip((0, *cuts), (*cuts, ROWS.height), strict=True):
        writer.add(ROWS.slice(start, end - start))
    body, index = writer.finish()
    return bytes(body), Index.parse(index)


def test_where_the_pieces_are_cut_makes_no_difference() -> None:
    once = written()[0]
    assert written(1, 63, 64, 65, 500)[0] == once
    assert written(*range(1, 1000))[0] == once


def test_rows_of_a_query_lie_together_and_few_blocks_may_hold_what_is_asked() -> None:
    body, index = written()
    assert index.blocks == 16
    query = ROWS["subjects"].list.first()[500]
    asked = ROWS.filter(pl.col("subjects").list.first() == query)
    found = index.candidates(Wanted.of(asked_of(asked)))
    assert 1 <= len(found) <= 2
    decoded = pl.concat([pl.read_parquet(body[int(index.starts[b]) : int(index.starts[b + 1])]) for b in found])
    assert set(asked["entry"]) <= set(decoded["entry"])


def test_every_entry_is_found_and_hardly_any_other_costs_a_block() -> None:
    _, index = written()
    for entry, subject in asked_of(ROWS.gather_every(17)).items():
        assert len(index.candidates(Wanted.of({entry: subject}))) >= 1
    unknown = {hashed(f"unknown {n}"): subject for n, subject in enumerate(asked_of(ROWS).values())}
    hits = sum(len(index.candidates(Wanted.of({entry: subject}))) for entry, subject in unknown.items())
    assert hits < 20  # of a thousand; about two are expected
    assert index.candidates(Wanted.of({"e": "0" * 32, "f": "f" * 32})) == []


def test_a_query_with_more_rows_than_a_block_is_found_in_all_of_its_blocks() -> None:
    one = blocks.sort_distinct(blocks.with_places(frame_of(200, per_query=1000)))
    writer = BlockWriter(64)
    writer.add(one)
    index = Index.parse(writer.finish()[1])
    assert index.candidates(Wanted.of(asked_of(one))) == [0, 1, 2, 3]
    assert index.candidates(Wanted.of(asked_of(one.slice(130, 1))))[0] <= 2


def test_wanted_entries_are_told_by_their_shelves() -> None:
    entries = {"a": "00" * 16, "b": "ff" * 16, "c": "00ab" * 8, "d": "7f"}
    found = Wanted.of(entries).shelves
    assert {shelf: wanted.table["entry"].to_list() for shelf, wanted in found.items()} == {
        "00": ["a", "c"],
        "7f": ["d"],
        "ff": ["b"],
    }
    assert found["7f"].places.tolist() == [0x7F << 56]
    assert found["00"].tags.tolist() == blocks.tags_of(["a", "c"]).tolist()


def test_an_index_is_the_same_after_it_was_written_and_read() -> None:
    _, index = written()
    again = Index.parse(index.to_bytes())
    for name in ("starts", "first", "last", "tags"):
        assert np.array_equal(getattr(again, name), getattr(index, name)), name
    assert (again.digests, again.marks, again.size) == (index.digests, index.marks, index.size)


def test_a_damaged_block_and_damaged_marks_are_told() -> None:
    body, index = written()
    block = body[int(index.starts[3]) : int(index.starts[4])]
    assert blocks.checked(block, index, 3) == block
    with pytest.raises(DamagedError, match="block 3 of 16"):
        blocks.checked(block[:-1] + b"x", index, 3)
    with pytest.raises(DamagedError, match="marks"):
        blocks.names_any(body[int(index.starts[-1]) :] + b"x", index, ["a"])


def test_marks_tell_which_texts_a_segment_may_name() -> None:
    body, index = written()
    marks = body[int(index.starts[-1]) :]
    assert len(marks) == 4 * index.marks
    assert blocks.names_any(marks, index, [hashed("unknown"), hashed("passage 77")])
    assert blocks.names_any(marks, index, [hashed("query 3")])
    assert not blocks.names_any(marks, index, [hashed(f"unknown {n}") for n in range(100)])
    assert not blocks.names_any(marks, index, [])


def test_neighbouring_blocks_are_read_at_once() -> None:
    _, index = written()
    width = int(index.starts[1])
    assert list(blocks.neighbours(index, [1, 2, 5, 9], 0)) == [[1, 2], [5], [9]]
    assert list(blocks.neighbours(index, [1, 2, 5, 9], 2 * width + 500)) == [[1, 2, 5], [9]]
    assert list(blocks.neighbours(index, [], 0)) == []


def test_of_one_entry_the_last_asking_counts_then_the_smallest_payload() -> None:
    rows = frame_of(1)
    many = pl.concat(
        [rows.with_columns(payload=pl.lit(p), again=pl.lit(a, pl.Int64)) for p, a in (("a", 0), ("c", 7), ("b", 7))]
    )
    assert blocks.sort_distinct(blocks.with_places(many)).select("payload", "again").rows() == [("b", 7)]


def test_the_index_of_one_file_has_one_block() -> None:
    rows = frame_of(20)
    index = Index.of_one(rows, 1234)
    assert index.starts.tolist() == [0, 1234]
    assert index.candidates(Wanted.of(asked_of(rows))) == [0]
    assert Index.of_one(rows.clear(), 100).candidates(Wanted.of(asked_of(rows))) == []
