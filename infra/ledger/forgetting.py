"""Forgets answers of a judge, kept aside for a while: rows of segments, and finished parts that used them.

A forgetting has a number. Its record is `forgotten/<number>.json`; what it took away lies below `forgotten/<number>/`,
under the keys it had. Nothing reads it there. `put_back` undoes it, and `drop_old` deletes what is older than a grace
period (`reneg gc`). The record stays.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import polars as pl

from infra.ledger.compaction import slices
from infra.ledger.names import folder_of
from infra.ledger.rewriting import Mask, take_out
from infra.ledger.segments import DamagedError, Segments
from infra.storage.numbered_records import keep_next, numbers, padded, read
from infra.storage.store import Store

FORGOTTEN = "forgotten/"
_AT_ONCE = 8  # segments in memory


def scan(store: Store, judge: str) -> Iterator[pl.DataFrame]:
    """Yield the rows of a judge's segments, some thousands at a time; damaged segments are left out."""
    segments = Segments(store)
    every = segments.keys(folder_of(judge))
    for start in range(0, len(every), _AT_ONCE):
        keys = every[start : start + _AT_ONCE]
        with ThreadPoolExecutor(_AT_ONCE, "ledger") as pool:
            found = list(pool.map(segments.open_whole, keys))
        for opened in found:
            if opened is not None:
                yield from slices([opened], None, segments.slice_rows)


def begin(store: Store, record: dict[str, Any]) -> int:
    """Record a forgetting and return its number; nothing is taken away yet."""
    return keep_next(store, FORGOTTEN, {**record, "at": int(time.time())})


def take_rows(store: Store, number: int, judge: str, chosen: Mask) -> int:
    """Take rows out of a judge's segments; returns how many.

    The segment without these rows is durable before the old one is moved. This goes on until a listing shows nothing
    new. A writer or compactor that holds such rows at the same moment may still write them again, so forget while
    nothing runs.
    """
    segments, clean, taken = Segments(store), set[str](), 0
    while keys := [key for key in segments.keys(folder_of(judge)) if key not in clean]:
        for key in keys:
            clean.add(key)
            with suppress(DamagedError):
                count, kept = take_out(segments, key, chosen, lambda key: _move_aside(store, number, key))
                taken += count
                clean.add(kept)
    return taken


def _move_aside(store: Store, number: int, key: str) -> None:
    store.move(key, _aside(number, key))


def take_parts(store: Store, number: int, manifests: list[str]) -> None:
    """Take the manifests of finished parts away, so that they are computed again."""
    for key in manifests:
        store.move(key, _aside(number, key))


def put_back(store: Store, number: int) -> dict[str, int]:
    """Undo a forgetting; returns how many segments and parts are back, and how many parts were computed meanwhile.

    A part that was computed again meanwhile stays as it is now.
    """
    counts = {"segments_back": 0, "parts_back": 0, "computed_meanwhile": 0}
    for key in store.list(_aside(number, "")[:-1]):
        data, place = store.read(key), key.removeprefix(_aside(number, ""))
        created = data is not None and store.create(place, data)
        kind = "segments_back" if place.startswith("ledger/") else "parts_back" if created else "computed_meanwhile"
        counts[kind] += 1
        store.delete(key)
    return counts


def forgotten(store: Store) -> dict[int, dict[str, Any]]:
    """Return the records of all forgettings, by number; `kept` tells whether what it took can still be put back."""
    held = {key.split("/")[1] for key in store.list(FORGOTTEN[:-1]) if key.count("/") > 1}
    return {n: {**read(store, FORGOTTEN, n), "kept": padded(n) in held} for n in numbers(store, FORGOTTEN)}


def forgotten_at(store: Store, judge: str) -> int:
    """Return when something of a judge was forgotten last, in seconds since the epoch; 0 if nothing was."""
    times = [int(record["at"]) for record in forgotten(store).values() if judge in record.get("folders", ())]
    return max(times, default=0)


def drop_old(store: Store, older: float) -> int:
    """Delete for good what was forgotten at least so many seconds ago; returns how many objects that were."""
    dropped = 0
    for number, record in forgotten(store).items():
        if record["kept"] and time.time() - record["at"] >= older:
            keys = store.list(_aside(number, "")[:-1])
            for key in keys:
                store.delete(key)
            dropped += len(keys)
    return dropped


def _aside(number: int, key: str) -> str:
    """Return where a forgetting keeps what had a key.

    >>> _aside(3, "ledger/j/new/x.parquet")
    'forgotten/000003/ledger/j/new/x.parquet'
    """
    return f"{FORGOTTEN}{padded(number)}/{key}"
