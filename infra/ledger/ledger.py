"""The row ledger: remembers what was paid for, row by row, across parts, runs and datasets.

The rows of one call of `remember` become one new segment, all of them or none (`infra.ledger.segments`). Many small
ones of one writer become one large one when it ends. `compact` sorts the rows of new segments into shelves, and merges
segments of like size (`infra.ledger.compaction`). A look-up reads of a large segment its index, once in a process, and
the blocks that may hold what is asked for. Any number of processes may read, write and compact at once.

Why nothing is lost. A compactor deletes a segment only after it has read and checked all of it, and after everything it
holds is durable in a segment with another key. That one is deleted in turn only for a segment that holds all its rows
and more, or the same entry from a later asking or with a smaller payload, or the same rows in blocks where it was one
file. Equal rows always make the same segment, and no segment in blocks is made one file again unless rows were
forgotten. So such a chain has no circle, and it ends in a segment that exists. It makes no difference which segments a
compactor chooses. Two compactors leave two segments with the same rows, and a later one merges them. Only `forget` and
`infra.ledger.forgetting` remove rows, on purpose.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import polars as pl

from infra.ledger.blocks import Wanted, with_places
from infra.ledger.compaction import Compaction, compact, merge
from infra.ledger.names import ANSWERS, NEW, SegmentName, folder_of, is_segment, shelf_of, touches
from infra.ledger.rewriting import count_in, take_out
from infra.ledger.segments import DamagedError, Segments
from infra.storage.background_writes import Background
from infra.storage.store import Store, StoreError

Row = tuple[str, Sequence[str], Any]  # id, subjects, payload: text, or bytes in a ledger of vectors

_CHUNK = 2048  # new segments that a compactor holds in memory at a time
_THREADS = 16  # reads under way at once: a bucket answers in milliseconds, most of them waiting
_REWRITERS = 4  # segments under way at once where rows are taken out, each as a whole in memory
_FEW_SHELVES = 16  # more of them are listed together, by one request for a thousand segments
_MANY = 64  # segments of one writer that become one when it ends
_FOOTER = 65536  # bytes that hold a segment's parquet footer, with its number of rows

__all__ = ["Compaction", "Forgotten", "JudgeStats", "Ledger", "Row"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgeStats:
    """What the ledger holds of one judge; an entry that several segments hold counts in each."""

    segments: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Forgotten:
    """Rows removed (or found, on a dry run), the segments that held them, and damaged segments deleted unread."""

    rows: int = 0
    segments: int = 0
    damaged: int = 0

    def __add__(self, other: "Forgotten") -> "Forgotten":
        return Forgotten(self.rows + other.rows, self.segments + other.segments, self.damaged + other.damaged)


class Ledger:
    """The ledger of one store; fits `tasks.protocols.Ledger`. Use it as a context: leaving it waits for every write.

    origin: the digest of what computes the rows that are remembered. since: in seconds since the epoch; only what a
    ledger with this or a later `since` remembered is recalled; 0 for everything. root: the folder of answers, or that
    of vectors, whose payloads are bytes. damaged: keys of the segments that could not be read; their rows are paid for
    again. recalled: how many rows were recalled, by their origins.
    """

    def __init__(
        self,
        store: Store,
        origin: str = "",
        since: int = 0,
        clock: Callable[[], float] = time.time,
        *,
        root: str = ANSWERS,
    ) -> None:
        self.store = store
        self.origin = origin
        self.since = since
        self._clock = clock
        self._segments = Segments(store, root)
        self.damaged = self._segments.damaged
        self.recalled: Counter[str] = Counter()
        self._background = Background()
        self._written: dict[str, set[str]] = {}  # by judge, the segments that this ledger wrote

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
            self._gather()
        except StoreError:
            if error is None:
                raise
            _log.exception("the ledger could not be written; the error that came first is raised")

    def recall(self, judge: str, entries: Mapping[str, str]) -> dict[str, Any]:
        """Look up entries (id → its first subject); returns id → payload of those that are known and durable.

        One entry may have several payloads, all of them answers to the same question. The one that was asked for again
        last counts, and of those the smallest string, so that every reader takes the same one, whichever segments were
        merged meanwhile.

        Raises:
            ValueError: the judge's name is no path component, or a subject is no hash.
            StoreError: the store cannot be read.
        """
        if not entries:
            return {}
        for subject in entries.values():
            shelf_of(subject)
        wanted = Wanted.of(entries)
        on_shelves = wanted.shelves
        found: dict[str, tuple[int, Any, str]] = {}  # when it was asked again (negative), payload, origin
        seen: set[str] = set()
        with ThreadPoolExecutor(_THREADS, "ledger") as pool:
            while True:
                listed = self._list(judge, on_shelves, pool)
                unread = [key for key in listed if key not in seen]
                seen.update(unread)
                looked_up = list(pool.map(lambda key: self._look_up(key, on_shelves, wanted), unread))
                for entry, again, payload, origin in (row for rows in looked_up for row in rows or ()):
                    found[entry] = min((-again, payload, origin), found.get(entry, (-again, payload, origin)))
                # A listing made while a compactor works may show neither the segments that were merged nor the result.
                if None not in looked_up and (len(unread) <= 1 or len(found) == len(entries)):
                    self.recalled.update(origin for _, _, origin in found.values())
                    return {entry: payload for entry, (_, payload, _) in found.items()}

    def remember(self, judge: str, rows: Iterable[Row]) -> None:
        """Keep rows of (id, subjects, payload); returns at once, and `flush` waits until they are durable.

        The rows of one call become one segment, written by threads in the background. A process that is killed loses at
        most what it handed over since the last flush; of each call all rows or none.

        Raises:
            ValueError: the judge's name is no path component, or a row's first subject is no hash.
        """
        held = [(entry, list(subjects), payload) for entry, subjects, payload in rows]
        for entry, subjects, _ in held:
            if not subjects:
                raise ValueError(f"ledger: entry {entry!r} names no subject; the hash of at least one text expected")
            shelf_of(subjects[0])
        if held:
            folder = f"{folder_of(judge, self._segments.root)}/{NEW}"
            self._background.submit(partial(self._write_rows, folder, held, int(self._clock())))

    def remember_slices(self, judge: str, slices: Callable[[], Iterable[pl.DataFrame]]) -> None:
        """Keep rows that are made a few at a time when they are written; as `remember` otherwise.

        slices: returns, each time from the beginning, frames of `entry`, `subjects` and `payload`, sorted by the first
            subject and the entry; it is called in another thread.

        Raises:
            ValueError: the judge's name is no path component.
        """
        folder = f"{folder_of(judge, self._segments.root)}/{NEW}"
        self._background.submit(partial(self._write_slices, folder, slices, int(self._clock())))

    def flush(self) -> None:
        """Wait until everything remembered is durable.

        Raises:
            StoreError: something could not be written after several attempts; raised once.
        """
        failed = self._background.drain()
        if failed:
            raise StoreError(
                f"ledger: {len(failed)} segments could not be written, their rows are lost and will be paid for again; "
                f"the first said: {failed[0]}"
            ) from failed[0]

    def compact(self, judge: str, *, min_segments: int = 8) -> Compaction:
        """Sort new segments into shelves, and merge segments of like size.

        New segments are sorted when there are at least `min_segments` of them, and a shelf's segments are merged when
        as many, or eight, are of one size. Readers, writers and other compactors may work meanwhile: see the head of
        this file. A damaged segment is left alone. What a killed compactor leaves is merged by the next one.
        """
        return compact(self._segments, judge, min_segments, _CHUNK)

    def forget(self, subjects: Iterable[str], *, dry_run: bool = False) -> Forgotten:
        """Remove every row, of any judge, that names one of these hashes; returns what was (or would be) removed.

        Of a segment of blocks only the marks of its subjects are read, unless they say that it may hold one. The
        segment without these rows is durable before the old one is deleted. A segment of which something is damaged
        that was read is deleted too, because what it holds is unknown. This goes on until a listing shows no new
        segments. A writer or compactor that holds such rows at the same moment may still write them again, so forget
        while nothing runs.
        """
        named = frozenset(subjects)
        clean: set[str] = set()
        total = Forgotten()
        with ThreadPoolExecutor(_REWRITERS, "ledger") as pool:
            while keys := [key for key in self._segments.keys(self._segments.root) if key not in clean]:
                held = list(pool.map(lambda key: self._forget_in(key, named, dry_run), keys))
                total = sum(held, total)
                if dry_run:
                    break
                clean.update(key for key, found in zip(keys, held, strict=True) if found == Forgotten())
        return total

    def stats(self) -> dict[str, JudgeStats]:
        """Count segments, rows and bytes by judge; of a segment that is one file only the footer is read."""
        sizes = {key: size for key, size in self.store.sizes(self._segments.root).items() if is_segment(key)}
        with ThreadPoolExecutor(_THREADS, "ledger") as pool:
            rows = dict(zip(sizes, pool.map(self._count_rows, sizes), strict=True))
        judges: dict[str, list[str]] = {}
        for key in sizes:
            judges.setdefault(key.split("/")[1], []).append(key)
        return {
            judge: JudgeStats(len(keys), sum(rows[k] for k in keys), sum(sizes[k] for k in keys))
            for judge, keys in sorted(judges.items())
        }

    def judges(self) -> list[str]:
        """List the judges of whom something is remembered."""
        return sorted({key.split("/")[1] for key in self._segments.keys(self._segments.root)})

    def _list(self, judge: str, shelves: Collection[str], pool: ThreadPoolExecutor) -> list[str]:
        """List the segments that may hold rows of these shelves."""
        folder = folder_of(judge, self._segments.root)
        # New segments are listed first: a compactor writes their rows to the shelves before it deletes them.
        listed = [key for key in self._segments.keys(f"{folder}/{NEW}") if touches(key, shelves)]
        if len(shelves) > _FEW_SHELVES:
            every = self._segments.keys(folder)
            return listed + [key for key in every if key.split("/")[2] in shelves]
        folders = [f"{folder}/{shelf}" for shelf in sorted(shelves)]
        return listed + [key for keys in pool.map(self._segments.keys, folders) for key in keys]

    def _look_up(
        self, key: str, on_shelves: Mapping[str, Wanted], wanted: Wanted
    ) -> list[tuple[str, int, Any, str]] | None:
        """Read the wanted entries of one segment; None if it vanished, an empty list if it is damaged."""
        try:
            rows = self._segments.look_up(key, on_shelves.get(key.split("/")[2], wanted))
        except DamagedError:
            return []
        if rows is None:
            return None
        return rows.filter(pl.col("again") >= self.since).select("entry", "again", "payload", "origin").rows()

    def _write_rows(self, folder: str, rows: Sequence[Row], at: int) -> None:
        whole = [(*row, self.origin, at, self.since) for row in rows]
        key = self._segments.write(folder, pl.DataFrame(whole, schema=self._segments.schema, orient="row"))
        self._written.setdefault(folder, set()).add(key)

    def _write_slices(self, folder: str, slices: Callable[[], Iterable[pl.DataFrame]], at: int) -> None:
        made = {"origin": pl.lit(self.origin), "at": pl.lit(at, pl.Int64), "again": pl.lit(self.since, pl.Int64)}
        whole = (with_places(rows.with_columns(**made).select(*self._segments.schema)) for rows in slices())
        key, _ = self._segments.write_sorted(folder, whole)
        self._written.setdefault(folder, set()).add(key)

    def _gather(self) -> None:
        """Merge the small segments that this ledger wrote, if they are many: every look-up would read each of them."""
        try:
            for folder, keys in self._written.items():
                if len(keys) >= _MANY:
                    merge(self._segments, folder, sorted(keys))
        except StoreError as error:
            _log.warning("the segments that were written stay as they are; a compaction merges them: %s", error)
        self._written.clear()

    def _forget_in(self, key: str, subjects: frozenset[str], dry_run: bool) -> Forgotten:
        def names(rows: pl.DataFrame) -> pl.Series:
            return rows["subjects"].list.eval(pl.element().is_in(list(subjects))).list.any()

        try:
            if not self._segments.may_name(key, subjects):
                return Forgotten()
            if dry_run:
                count, _ = count_in(self._segments, key, names)
            else:
                count, _ = take_out(self._segments, key, names, self.store.delete)
        except DamagedError:
            if not dry_run:
                self.store.delete(key)
            return Forgotten(damaged=1)
        return Forgotten(count, int(count > 0))

    def _count_rows(self, key: str) -> int:
        import pyarrow
        from pyarrow import parquet

        if (rows := SegmentName.parse(key).rows) is not None:
            return rows
        for size in (_FOOTER, None):
            data = self.store.read(key, last=size)
            if data is None:
                return 0
            try:
                return int(parquet.read_metadata(pyarrow.BufferReader(data)).num_rows)
            except pyarrow.ArrowInvalid:
                continue  # the footer is longer than that, or the segment is damaged
        return 0
