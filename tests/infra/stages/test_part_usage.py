"""What a part takes: bytes and objects read, and the peak of its process's memory."""

import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from infra.stages import part_usage
from infra.stages.part_usage import CountingStore, peak_memory
from infra.storage.artifacts import Table, materialise, read_table, write_bundle, write_directory, write_table
from infra.storage.store import Store
from tasks.schemas import Schema

NUMBERS = Schema({"n": pl.Int64}, key=("n",))


def frame(start: int) -> pl.DataFrame:
    return pl.DataFrame({"n": range(start, start + 1000)})


def test_every_byte_that_is_read_of_an_object_is_counted_and_the_object_once(store_url: str, tmp_path: Path) -> None:
    store = Store.open(store_url)
    pieces = tuple(write_table(store, "numbers", frame(n * 1000), NUMBERS, n) for n in range(3))
    slices = write_bundle(store, "numbers", ((n, frame(n)) for n in range(4)), NUMBERS)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.txt").write_bytes(b"x" * 777)
    folder = write_directory(store, "given", tmp_path / "given")
    reader = CountingStore(store_url)
    assert reader.counts() == {"read_bytes": 0, "read_objects": 0}
    read_table(reader, Table("numbers", pieces))
    whole = sum(store.size(piece.object) or 0 for piece in pieces)
    assert reader.counts() == {"read_bytes": whole, "read_objects": 3}
    read_table(reader, Table("numbers", (slices[1], slices[3])))
    read = whole + sum(piece.length or 0 for piece in (slices[1], slices[3]))
    assert reader.counts() == {"read_bytes": read, "read_objects": 4}
    assert reader.read("nothing") is None
    materialise(reader, folder, tmp_path / "cache")
    assert reader.counts() == {"read_bytes": read + 777, "read_objects": 5}
    materialise(reader, folder, tmp_path / "cache")  # it lies there already
    assert reader.counts() == {"read_bytes": read + 777, "read_objects": 5}


def test_threads_count_together(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    keys = [store.put_object(bytes([n]) * 100, "") for n in range(20)]
    reader = CountingStore(str(tmp_path))
    threads = [threading.Thread(target=lambda: [reader.get_object(key) for key in keys]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.counts() == {"read_bytes": 10_000, "read_objects": 20}


def _take(megabytes: int) -> int:
    return int(np.ones(megabytes * 2**17).sum())  # freed at the end


def test_the_peak_is_that_of_the_block_and_not_of_what_was_before() -> None:
    with peak_memory() as peak:
        _take(300)
        high = peak()
    with peak_memory() as peak:
        low = peak()
        assert low < high - 0.2
        _take(100)
        assert low + 0.07 < peak() < high


def test_a_part_that_begins_while_another_is_at_work_does_not_take_its_peak_away() -> None:
    with peak_memory() as first:
        _take(300)
        high = first()
        with peak_memory() as second:
            assert second() >= high
        assert first() >= high


def test_where_the_peak_cannot_begin_anew_it_is_the_highest_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_usage, "_SELF", tmp_path / "no proc")
    with peak_memory() as peak:
        assert 0.01 < peak() < 64
