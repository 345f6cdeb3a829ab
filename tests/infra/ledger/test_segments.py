"""Segments of the ledger: keys, ranges of shelves, columns that older segments lack."""

import hashlib
import io
from pathlib import Path

import polars as pl
import pytest

from infra.ledger import segments as module
from infra.ledger.blocks import Wanted
from infra.ledger.names import SegmentName
from infra.ledger.segments import SCHEMA, DamagedError, Segments, folder_of, is_segment, shelf_of, touches
from infra.storage.store import Store
from tests.infra.ledger.rows import Counted, asked_of, frame_of, hashed

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("key", "shelves", "wanted"),
    [
        (f"ledger/j/new/20-40-{DIGEST}.parquet", {"1f"}, False),
        (f"ledger/j/new/20-40-{DIGEST}.parquet", {"20"}, True),
        (f"ledger/j/new/20-40-{DIGEST}.parquet", {"30"}, True),
        (f"ledger/j/new/20-40-{DIGEST}.parquet", {"40"}, True),
        (f"ledger/j/new/20-40-{DIGEST}.parquet", {"41"}, False),
        (f"ledger/j/new/20-40-{DIGEST}.parquet", {"00", "ff"}, False),
        (f"ledger/j/new/20-40-{DIGEST}.parquet", {"00", "33"}, True),
        (f"ledger/j/20/{DIGEST}.parquet", {"ff"}, True),  # only shelves that are asked for are listed
        ("ledger/j/notes.txt", {"20"}, False),
    ],
)
def test_a_new_segment_is_read_where_its_range_holds_a_shelf_that_is_asked_for(
    key: str, shelves: set[str], wanted: bool
) -> None:
    assert touches(key, shelves) is wanted


HASHES = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(4)]


def rows(*made: tuple[str, int, int]) -> pl.DataFrame:
    """Rows of one entry: payload, at, again."""
    whole = [("entry", HASHES[:2], payload, "", at, again) for payload, at, again in made]
    return pl.DataFrame(whole, schema=SCHEMA, orient="row")


def test_of_one_entry_the_last_asking_counts_and_then_the_smallest_payload(tmp_path: Path) -> None:
    segments = Segments(Store.open(str(tmp_path)))
    key = segments.write("ledger/j/new", rows(("a", 5, 0), ("c", 9, 7), ("b", 8, 7), ("b", 9, 7)))
    found = segments.read(key)
    assert found is not None
    assert found.select("payload", "at", "again").rows() == [("b", 8, 7)]
    assert key.startswith(f"ledger/j/new/{HASHES[0][:2]}-{HASHES[0][:2]}-")
    assert segments.keys("ledger") == [key]


def test_a_segment_from_before_a_column_existed_has_its_default(tmp_path: Path) -> None:
    store, buffer = Store.open(str(tmp_path)), io.BytesIO()
    rows(("a", 5, 7)).select("entry", "subjects", "payload").write_parquet(buffer)
    key = f"ledger/j/{HASHES[0][:2]}/{hashlib.sha256(buffer.getvalue()).hexdigest()}.parquet"
    assert store.create(key, buffer.getvalue())
    found = Segments(store).read(key)
    assert found is not None
    assert found.schema == pl.Schema(SCHEMA)
    assert found.select("origin", "at", "again").rows() == [("", 0, 0)]
    some = Segments(store).read(key, ["entry", "again"])
    assert some is not None
    assert some.rows() == [("entry", 0)]


def test_a_segment_with_other_bytes_than_its_name_says_is_damaged_and_one_that_is_gone_is_none(
    tmp_path: Path,
) -> None:
    store = Store.open(str(tmp_path))
    segments = Segments(store)
    key = f"ledger/j/20/{'0' * 64}.parquet"
    assert segments.read(key) is None
    store.create(key, b"other bytes")
    with pytest.raises(DamagedError):
        segments.read(key)
    assert segments.read_whole(key) is None
    assert segments.damaged == {key}


def test_names_that_are_no_names_are_refused() -> None:
    assert (folder_of("judge"), shelf_of(HASHES[0])) == ("ledger/judge", HASHES[0][:2])
    with pytest.raises(ValueError, match="is no name of a folder"):
        folder_of("../judge")
    with pytest.raises(ValueError, match="is no hash"):
        shelf_of("query 1")
    assert not is_segment("ledger/j/notes.txt")


class Contradicting(Store):
    """A server that refuses to create an object since it was there, and then does not find it."""

    def create(self, key: str, data: bytes) -> bool:
        return super().create(key, data) if key == "FORMAT.json" else False


def test_a_server_that_contradicts_itself_does_not_keep_a_writer_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    Store.open(str(tmp_path))
    segments = Segments(Contradicting(str(tmp_path)))
    key = segments.write("ledger/j/new", rows(("a", 5, 0)))
    assert segments.read(key) is not None
    assert pauses == [0.0, 0.1, 0.5, 2.0]


@pytest.fixture
def large(tmp_path: Path) -> tuple[Counted, str, pl.DataFrame]:
    """A segment of 60 blocks in a store that counts what is read, and its rows."""
    Store.open(str(tmp_path))
    store, held = Counted(str(tmp_path)), frame_of(1920)
    segments = Segments(store)
    segments.block_rows = 32
    return store, segments.write("ledger/j/new", held), held


def test_of_a_large_segment_the_index_is_read_once_and_then_the_blocks_that_may_hold_an_entry(
    large: tuple[Counted, str, pl.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GAP", 0)
    store, key, held = large
    name = SegmentName.parse(key)
    assert name.rows == 1920
    one = held.slice(700, 1)
    found = Segments(store).look_up(key, Wanted.of(asked_of(one)))
    assert found is not None
    assert found.equals(one)
    assert name.length < store.bytes_read < name.length + name.size / 20
    store.bytes_read = 0
    unknown = Wanted.of({"e": "00" * 16})
    found = Segments(Counted(store.url)).look_up(key, unknown)  # the process knows the index
    assert found is not None
    assert (found.height, store.bytes_read) == (0, 0)
    every = Segments(store).look_up(key, Wanted.of(asked_of(held)))
    assert every is not None
    assert every.sort("entry").equals(held.sort("entry"))


def test_of_a_large_segment_only_the_marks_are_read_to_see_whether_it_names_a_text(
    large: tuple[Counted, str, pl.DataFrame],
) -> None:
    store, key, held = large
    assert Segments(store).may_name(key, [held["subjects"][5][1]])
    assert not Segments(store).may_name(key, [hashed("unknown")])
    assert store.bytes_read < SegmentName.parse(key).size / 3
    assert Segments(store).may_name(f"ledger/j/20/{'0' * 64}.parquet", ["a"])  # a small one is read as a whole
    store.delete(key)
    assert not Segments(store).may_name(key, [held["subjects"][5][1]])


@pytest.mark.parametrize("place", ["block", "marks", "index"])
def test_damage_is_noticed_in_whatever_is_read(large: tuple[Counted, str, pl.DataFrame], place: str) -> None:
    store, key, held = large
    name = SegmentName.parse(key)
    data = bytearray(store.read(key) or b"")
    at = {"block": 100, "marks": name.start - 1, "index": name.size - 1}[place]
    data[at] ^= 1
    fresh = Store(f"{store.url}/.")  # a process that has read no index yet
    fresh.repair(key, bytes(data))
    segments = Segments(fresh)
    with pytest.raises(DamagedError):
        segments.may_name(key, ["x"]) if place == "marks" else segments.look_up(key, Wanted.of(asked_of(held)))
    assert segments.damaged == {key}
    assert segments.read_whole(key) is None
