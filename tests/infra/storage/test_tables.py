"""Pieces of tables: whole objects and slices of bundles, read by range, checked, found by their part."""

import json
import pickle
from pathlib import Path

import polars as pl
import pytest

from infra.stages.part_usage import CountingStore
from infra.storage import tables as module
from infra.storage.artifacts import Manifest
from infra.storage.store import Store, StoreError
from infra.storage.tables import (
    BUNDLE,
    BundleWriter,
    Piece,
    Slice,
    Stream,
    Table,
    read_slice,
    read_table,
    slices_of,
    write_bundle,
    write_table,
)
from tests.infra.frozen import can_be_changed
from tests.infra.toy import NUMBERS


def numbers(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"n": list(values)}, schema={"n": pl.Int64})


def bundle(store: Store, *frames: tuple[int, tuple[int, ...]]) -> Table:
    pieces = write_bundle(store, "numbers", ((index, numbers(*values)) for index, values in frames), NUMBERS)
    return Table("numbers", pieces, schema=NUMBERS)


def test_a_stream_reads_piece_by_piece_or_one_part_and_gives_an_empty_frame_where_a_part_has_none(
    tmp_path: Path,
) -> None:
    store = Store.open(str(tmp_path))
    first, second = bundle(store, (0, (1, 2)), (3, (3,))), bundle(store, (3, (4,)))
    stream = Stream(store, Table("numbers", (*first.pieces, *second.pieces), frozenset({5})))
    assert [frame["n"].to_list() for frame in stream] == [[1, 2], [3], [4]]
    assert stream[1]["n"].to_list() == [3]
    assert (stream.parts, stream.height) == ([0, 3, 5], 4)
    assert [stream.at(part)["n"].to_list() for part in (0, 3, 5, 9)] == [[1, 2], [3, 4], [], []]
    assert stream.at(9).equals(numbers())
    assert Stream(store, Table("numbers", schema=NUMBERS)).at(0).is_empty()


def test_each_part_reads_the_slices_of_all_makers_in_their_order_and_no_other_byte(store_url: str) -> None:
    store = Store.open(store_url)
    first = bundle(store, (3, (5, 1)), (0, tuple(range(1000, 3000))))
    second = bundle(store, (0, (7,)), (3, (2,)))
    both = Table("numbers", (*first.pieces, *second.pieces), schema=NUMBERS)
    assert len({piece.object for piece in both.pieces}) == 2
    assert all(piece.object.endswith(BUNDLE) for piece in both.pieces)
    counting = CountingStore(store_url)
    assert read_table(counting, both.at(3))["n"].to_list() == [5, 1, 2]
    assert counting.counts()["read_bytes"] == sum(piece.length or 0 for piece in both.at(3).pieces)
    assert read_table(store, both.at(0))["n"].to_list() == [*range(1000, 3000), 7]
    assert read_table(store, both.at(9)).schema == pl.Schema({"n": pl.Int64})
    numbered = read_table(store, both, numbered=True)
    assert numbered.filter(pl.col("part") == 3)["n"].to_list() == [5, 1, 2]
    assert numbered.schema["part"] == pl.Int32


def test_a_slice_has_the_content_of_its_own_bytes_whatever_else_lies_in_its_bundle(store_url: str) -> None:
    store = Store.open(store_url)
    one, two = bundle(store, (0, (1,)), (1, (2,))), bundle(store, (0, (5,)), (1, (2,)))
    assert one.at(0).content() != two.at(0).content()
    assert one.at(1).content() == two.at(1).content()
    assert one.at(1).pieces[0].object != two.at(1).pieces[0].object
    # As an object of its own it would have the same name.
    assert write_table(store, "numbers", numbers(2), NUMBERS, 1).content == one.at(1).pieces[0].content


def test_without_frames_there_is_no_bundle_and_the_table_is_read_empty(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    empty = bundle(store)
    assert (empty.pieces, store.list("objects")) == ((), [])
    assert read_table(store, empty, numbered=True).columns == ["n", "part"]
    with pytest.raises(StoreError, match="no piece and no schema"):
        read_table(store, Table("numbers"))


@pytest.mark.parametrize("damage", ["a bit", "the end", "all"])
def test_a_damaged_slice_is_reported_and_the_others_are_read(store_url: str, damage: str) -> None:
    store = Store.open(store_url)
    table = bundle(store, (0, (1,)), (1, (2, 3)))
    (piece,) = table.at(1).pieces
    data = bytearray(store.get_object(piece.object))
    start, length = piece.start or 0, piece.length or 0
    data[start + length // 2] ^= 1
    cut = {"a bit": bytes(data), "the end": bytes(data[: start + length // 2]), "all": bytes(data[:start])}[damage]
    store.repair(piece.object, cut)
    with pytest.raises(StoreError, match=r"objects/.*(damaged|InvalidRange|[Rr]ange)"):
        read_table(store, table.at(1))
    assert read_table(store, table.at(0))["n"].to_list() == [1]
    if damage != "a bit":  # as any object that was cut short: the part writes it anew
        assert bundle(store, (0, (1,)), (1, (2, 3))) == table
        assert read_table(store, table.at(1))["n"].to_list() == [2, 3]


def test_a_bundle_in_the_trash_is_read_and_one_that_is_gone_is_told(store_url: str) -> None:
    store = Store.open(store_url)
    table = bundle(store, (0, (1,)))
    key = table.pieces[0].object
    store.move(key, f"trash/{key}")
    assert read_table(store, table)["n"].to_list() == [1]
    store.delete(f"trash/{key}")
    with pytest.raises(StoreError, match=rf"object {key} is missing; rerun its part"):
        read_table(store, table)


@pytest.mark.parametrize("key", ["FORMAT.json", "../outside", "objects/../FORMAT.json"])
def test_a_forged_slice_cannot_name_what_is_no_object(tmp_path: Path, key: str) -> None:
    with pytest.raises(StoreError, match=r"is no object|would leave the store"):
        read_slice(Store.open(str(tmp_path)), key, Slice(0, 1, "0" * 64))


def test_a_bundle_says_where_its_slices_are_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    store, writer = Store.open(str(tmp_path)), BundleWriter()
    made = [writer.add(data) for data in (b"one", b"", b"three")]
    data = store.get_object(writer.put(store))
    assert list(slices_of(data)) == [b"one", b"", b"three"]
    assert [(one.start, one.length) for one in made] == [(0, 3), (3, 0), (3, 5)]
    for broken in (b"", data[:-1], data[1:], b"RENEGBDL"):
        with pytest.raises(ValueError, match="no bundle"):
            list(slices_of(broken))


def test_the_pieces_of_a_part_are_found_by_an_index_that_is_made_once_and_not_sent_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cutting a stage into 10,000 parts looked at 10,000 pieces each time."""
    pieces = tuple(Piece(index % 5000, f"objects/aa/{index:064x}.parquet", 1) for index in range(10_000))
    table, made = Table("numbers", pieces), []
    build = module.Table.__dict__["_by_index"].func
    monkeypatch.setattr(module.Table.__dict__["_by_index"], "func", lambda self: made.append(1) or build(self))
    assert [len(table.at(index).pieces) for index in range(5001)] == [2] * 5000 + [0]
    assert len(made) == 1
    assert table.at(7).pieces == (pieces[7], pieces[5007])
    assert pickle.loads(pickle.dumps(table)) == table
    assert "_by_index" not in pickle.loads(pickle.dumps(table)).__dict__
    assert not can_be_changed(table)


def test_a_table_into_which_a_failed_part_scatters_lacks_rows_at_every_index() -> None:
    whole = Table("numbers", (Piece(0, "objects/aa/a", 1),), frozenset({2}))
    assert [whole.lacks(index) for index in (0, 1, 2)] == [False, False, True]
    partial = Table("numbers", (Piece(0, "objects/aa/a", 1),), partial=True)
    assert partial.lacks(0) and partial.at(0).partial
    assert (whole.incomplete, partial.incomplete, Table("numbers").incomplete) == (True, True, False)


def test_a_manifest_of_before_is_read_and_whole_objects_are_written_as_they_were(tmp_path: Path) -> None:
    piece = {"index": 0, "object": "objects/aa/a.parquet", "rows": 3}
    record = {
        "stage": "s", "version": 1, "part": 0, "key": "k", "attempt": 0, "ingredients": {}, "tables": {"t": [piece]},
        "directories": {}, "stats": {},
    }  # fmt: skip
    data = json.dumps(record, sort_keys=True, indent=1).encode()
    manifest = Manifest.from_json(data)
    assert manifest.tables["t"] == (Piece(0, "objects/aa/a.parquet", 3),)
    assert manifest.to_json() == data
    assert manifest.slices == {}
    store = Store.open(str(tmp_path))
    sliced = Manifest("s", 1, 0, "k", 0, {}, {"t": bundle(store, (0, (1,)), (1, (2,))).pieces}, {}, {})
    assert Manifest.from_json(sliced.to_json()) == sliced
    assert len(sliced.objects) == 1
    assert set(sliced.slices.values()) == sliced.objects
