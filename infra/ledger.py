"""The row ledger: what was paid for, row by row, remembered across parts, runs and datasets (DESIGN section 4).

Rows lie in immutable segments, `ledger/<judge>/<shelf>/<SHA-256 of the content>.parquet`, with the columns `entry` (the
row's id), `subjects` (hashes of all texts it speaks of) and `payload`. The shelf is the first two digits of the row's
first subject, so that whoever knows the subject reads one shelf of 256. A segment is created or not there, never
changed; so any number of processes may read, write and compact at once.

Why nothing is lost. Order segments by what they remember: more entries, or a smaller payload for the same entry, is
more. A segment is deleted only by a compactor that has read it whole and then saw a segment durable that remembers at
least as much and has another key, hence strictly more. What took its place goes only for something strictly more
again: such a chain has no circle and ends in a segment that is there. Two compactors of one shelf leave two results,
which hold the same rows and are merged by the next. `forget` is the one exception, and means it.
"""

import hashlib
import io
import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import polars as pl

from infra.store import Store, StoreError

Row = tuple[str, Sequence[str], str]

_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "entry": pl.String,
    "subjects": pl.List(pl.String),
    "payload": pl.String,
}
_JUDGE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_HASH = re.compile(r"[0-9a-f]{2,}")
_KEY = re.compile(r"ledger/(?P<judge>[^/]+)/[0-9a-f]{2}/(?P<digest>[0-9a-f]{64})\.parquet")
_THREADS = 16  # reads under way at once: a bucket answers in milliseconds, most of them waiting
_WRITERS = 4
_QUEUE = 4096  # segments that wait to be written before `remember` waits too
_PAUSES = (0.2, 1.0, 3.0)  # seconds before each further attempt to write
_FOOTER = 65536  # bytes that hold a segment's parquet footer, with its number of rows

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgeStats:
    """What the ledger holds of one judge; an entry that several segments hold counts in each."""

    segments: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Compaction:
    """Segments merged, and the segments they became."""

    merged: int
    into: int


@dataclass(frozen=True)
class Forgotten:
    """Rows removed (or found, on a dry run), the segments that held them, and damaged segments deleted unread."""

    rows: int = 0
    segments: int = 0
    damaged: int = 0

    def __add__(self, other: "Forgotten") -> "Forgotten":
        return Forgotten(self.rows + other.rows, self.segments + other.segments, self.damaged + other.damaged)


class _Damaged(Exception):
    """A segment's bytes are not those its name calls for."""


class Ledger:
    """The ledger of one store; fits `tasks.protocols.Ledger`. Use it as a context: leaving it waits for every write.

    damaged: keys of the segments that could not be read; their rows are paid for again.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.damaged: set[str] = set()
        self._background = _Background()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except StoreError:
            if error is None:
                raise
            _log.exception("the ledger could not be written; the error that came first is raised")

    def recall(self, judge: str, entries: Mapping[str, str]) -> dict[str, str]:
        """Look up entries (id → its first subject); returns id → payload of those that are known and durable.

        Of several payloads for one entry, which are all answers to the same question, the smallest string counts: every
        reader takes the same one, whichever segments were merged meanwhile.

        Raises:
            ValueError: the judge's name is no path component, or a subject is no hash.
            StoreError: the store cannot be read.
        """
        asked: dict[str, list[str]] = {}
        for entry, subject in entries.items():
            asked.setdefault(f"{_folder(judge)}/{_shelf(subject)}", []).append(entry)
        wanted = {shelf: pl.DataFrame({"entry": ids}, schema={"entry": pl.String}) for shelf, ids in asked.items()}
        found: dict[str, str] = {}
        seen: set[str] = set()
        open_ = list(wanted)
        with ThreadPoolExecutor(_THREADS, "ledger") as pool:
            while open_:
                listed = zip(open_, pool.map(self._segments, open_), strict=True)
                new = [(shelf, key) for shelf, keys in listed for key in keys if key not in seen]
                seen.update(key for _, key in new)
                again = set()
                looked_up = pool.map(lambda item: self._look_up(item[1], wanted[item[0]]), new)
                for (shelf, _), rows in zip(new, looked_up, strict=True):
                    if rows is None:
                        again.add(shelf)
                    for entry, payload in rows or ():
                        found[entry] = min(payload, found.get(entry, payload))
                # A listing taken while a compactor works may show neither what was merged nor the result.
                several = [shelf for shelf, count in Counter(shelf for shelf, _ in new).items() if count > 1]
                again.update(shelf for shelf in several if not all(entry in found for entry in asked[shelf]))
                open_ = sorted(again)
        return found

    def remember(self, judge: str, rows: Iterable[Row]) -> None:
        """Keep rows of (id, subjects, payload); returns at once, and `flush` says whether they are durable.

        One segment is written per call and shelf, by threads in the background. A process that is killed loses at most
        what was handed over since the last flush, and never leaves half a segment.

        Raises:
            ValueError: the judge's name is no path component, or a row's first subject is no hash.
        """
        shelves: dict[str, list[Row]] = {}
        for entry, subjects, payload in rows:
            if not subjects:
                raise ValueError(f"ledger: entry {entry!r} names no subject; the hash of at least one text expected")
            shelf = f"{_folder(judge)}/{_shelf(subjects[0])}"
            shelves.setdefault(shelf, []).append((entry, list(subjects), payload))
        for shelf, held in sorted(shelves.items()):
            self._background.submit(partial(self._write_rows, shelf, held))

    def flush(self) -> None:
        """Wait until everything remembered is durable.

        Raises:
            StoreError: something could not be written after several attempts; told once.
        """
        failed = self._background.drain()
        if failed:
            raise StoreError(
                f"ledger: {len(failed)} segments could not be written, their rows are lost and will be paid for again; "
                f"the first said: {failed[0]}"
            ) from failed[0]

    def compact(self, judge: str, *, min_segments: int = 8) -> Compaction:
        """Merge each shelf's segments into one, where there are at least `min_segments` (and two).

        Safe beside any number of readers, writers and other compactors: see the head of this file. A damaged segment is
        left alone. What a killed compactor leaves is merged by the next one.
        """
        shelves: dict[str, list[str]] = {}
        for key in self._segments(_folder(judge)):
            shelves.setdefault(key.rpartition("/")[0], []).append(key)
        merged = into = 0
        with ThreadPoolExecutor(_THREADS, "ledger") as pool:
            for shelf, keys in shelves.items():
                if len(keys) < max(min_segments, 2):
                    continue
                read = {key: rows for key, rows in zip(keys, pool.map(self._read_whole, keys), strict=True)}
                frames = {key: rows for key, rows in read.items() if rows is not None}
                if len(frames) > 1:
                    result = self._write(shelf, pl.concat(frames.values()))
                    list(pool.map(self.store.delete, [key for key in frames if key != result]))
                    merged, into = merged + len(frames), into + 1
        return Compaction(merged, into)

    def forget(self, subjects: Iterable[str], *, dry_run: bool = False) -> Forgotten:
        """Remove every row, of any judge, that names one of these hashes; returns what was (or would be) removed.

        The segment without these rows is durable before the old one goes. A damaged segment is deleted too: nobody can
        say what it holds. New segments are looked for until a listing shows none; but a writer or compactor that works
        on such rows at the same moment may bring them back, so forget while nothing runs.
        """
        named = frozenset(subjects)
        clean: set[str] = set()
        total = Forgotten()
        with ThreadPoolExecutor(_THREADS, "ledger") as pool:
            while keys := [key for key in self._segments("ledger") if key not in clean]:
                held = list(pool.map(lambda key: self._forget_in(key, named, dry_run), keys))
                total = sum(held, total)
                if dry_run:
                    break
                clean.update(key for key, found in zip(keys, held, strict=True) if found == Forgotten())
        return total

    def stats(self) -> dict[str, JudgeStats]:
        """Count segments, rows and bytes by judge; of each segment only the footer is read."""
        sizes = {key: size for key, size in self.store.sizes("ledger").items() if _KEY.fullmatch(key)}
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
        return sorted({key.split("/")[1] for key in self._segments("ledger")})

    def _segments(self, folder: str) -> list[str]:
        return [key for key in self.store.list(folder) if _KEY.fullmatch(key)]

    def _look_up(self, key: str, wanted: pl.DataFrame) -> list[tuple[str, str]] | None:
        """Read what one segment says of the wanted entries; None where it vanished, nothing where it is damaged."""
        try:
            rows = self._read(key, ["entry", "payload"])
        except _Damaged:
            return []
        return None if rows is None else rows.join(wanted, on="entry", how="semi").rows()

    def _read_whole(self, key: str) -> pl.DataFrame | None:
        try:
            return self._read(key)
        except _Damaged:
            return None

    def _read(self, key: str, columns: list[str] | None = None) -> pl.DataFrame | None:
        """Read one segment; None where it vanished.

        Raises:
            _Damaged: its digest is not its name, or it is no table of ours.
        """
        data = self.store.read(key)
        if data is None:
            return None
        try:
            if hashlib.sha256(data).hexdigest() != key[-72:-8]:
                raise _Damaged(f"its SHA-256 is not its name ({len(data)} bytes)")
            return pl.read_parquet(io.BytesIO(data), columns=columns or list(_SCHEMA))
        except (_Damaged, pl.exceptions.PolarsError) as error:
            if key not in self.damaged:
                _log.warning("ledger: segment %s is damaged and skipped; its rows are paid for again: %s", key, error)
            self.damaged.add(key)
            raise _Damaged(key) from error

    def _write_rows(self, shelf: str, rows: Sequence[Row]) -> None:
        self._write(shelf, pl.DataFrame(rows, schema=_SCHEMA, orient="row"))

    def _write(self, shelf: str, rows: pl.DataFrame) -> str:
        """Make rows durable as one segment and return its key; a damaged object under that key is repaired."""
        data = _encode(rows)
        key = f"{shelf}/{hashlib.sha256(data).hexdigest()}.parquet"
        while not self.store.create(key, data):
            there = self.store.read(key)
            if there == data:
                break
            if there is not None:
                self.store.repair(key, data)
                break
        return key

    def _forget_in(self, key: str, subjects: frozenset[str], dry_run: bool) -> Forgotten:
        try:
            rows = self._read(key)
        except _Damaged:
            if not dry_run:
                self.store.delete(key)
            return Forgotten(damaged=1)
        if rows is None:
            return Forgotten()
        names = rows["subjects"].list.eval(pl.element().is_in(list(subjects))).list.any()
        count = int(names.sum())
        if count and not dry_run:
            if count < rows.height:
                self._write(key.rpartition("/")[0], rows.filter(~names))
            self.store.delete(key)
        return Forgotten(count, int(count > 0))

    def _count_rows(self, key: str) -> int:
        import pyarrow
        from pyarrow import parquet

        for size in (_FOOTER, None):
            data = self.store.read(key, last=size)
            if data is None:
                return 0
            try:
                return int(parquet.read_metadata(pyarrow.BufferReader(data)).num_rows)
            except pyarrow.ArrowInvalid:
                continue  # the footer is longer than that, or the segment is damaged
        return 0


class _Background:
    """Runs writes on a few daemon threads, which live only while there is work, and keeps the failures."""

    def __init__(self) -> None:
        self._writes: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._failed: list[Exception] = []

    def submit(self, write: Callable[[], None]) -> None:
        """Queue a write; waits only where thousands are queued already."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._writes) < _QUEUE)
            self._writes.append(write)
            if self._threads < _WRITERS:
                threading.Thread(target=self._work, name="ledger-writer", daemon=True).start()
                self._threads += 1

    def drain(self) -> list[Exception]:
        """Wait until nothing is queued or under way; returns the failures since the last time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._threads)
            failed, self._failed = self._failed, []
        return failed

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.notify_all()
                if not self._writes:
                    self._threads -= 1
                    return
                write = self._writes.popleft()
            self._attempt(write)

    def _attempt(self, write: Callable[[], None]) -> None:
        """Try a few times; once a write has failed for good, the others are tried once, so that an end comes."""
        for pause in (*_PAUSES, None):
            try:
                return write()
            except Exception as error:
                if pause is None or self._failed:
                    self._failed.append(error)
                    return None
                _log.warning("ledger: a write failed and is tried again in %s s: %s", pause, error)
                time.sleep(pause)
        return None


def _folder(judge: str) -> str:
    if not _JUDGE.fullmatch(judge):
        raise ValueError(f"ledger: judge {judge!r} is no name of a folder; letters, digits, dot, dash and _ expected")
    return f"ledger/{judge}"


def _shelf(subject: str) -> str:
    if not _HASH.fullmatch(subject):
        raise ValueError(f"ledger: subject {subject!r} is no hash; hexadecimal digits in lower case expected")
    return subject[:2]


def _encode(rows: pl.DataFrame) -> bytes:
    """Write rows as parquet, sorted by entry, of each entry the smallest payload: equal rows give equal bytes."""
    order = ["entry", "payload", pl.col("subjects").list.join(",")]
    distinct = rows.sort(order).unique("entry", keep="first", maintain_order=True)
    buffer = io.BytesIO()
    distinct.rechunk().write_parquet(buffer, compression="zstd", compression_level=3, statistics=True)
    return buffer.getvalue()
