"""The row ledger: remembers what was paid for, row by row, across parts, runs and datasets.

The rows of one call of `remember` become one new segment, all of them or none (`infra.ledger.segments`). Whoever asks
in the order of the first subjects' hashes reads few segments. `compact` sorts the rows of new segments into shelves.
Any number of processes may read, write and compact at once.

Why nothing is lost. A compactor deletes a segment only after it has read all of it, and after everything it holds is
durable in segments with other keys. Those are deleted in turn only for segments that hold all their rows and more, or
the same entry from a later asking or with a smaller payload. Such a chain has no circle, so it ends in a segment that
exists. Two compactors leave two segments with the same rows, and the next one merges them. Only `forget` and
`infra.ledger.forgetting` remove rows, on purpose.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import polars as pl

from infra.ledger.segments import NEW, SCHEMA, DamagedError, Segments, folder_of, is_segment, shelf_of, touches
from infra.storage.background_writes import Background
from infra.storage.store import Store, StoreError

Row = tuple[str, Sequence[str], str]

_CHUNK = 2048  # new segments that a compactor holds in memory at a time
_THREADS = 16  # reads under way at once: a bucket answers in milliseconds, most of them waiting
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

    def __add__(self, other: "Compaction") -> "Compaction":
        return Compaction(self.merged + other.merged, self.into + other.into)


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
    ledger with this or a later `since` remembered is recalled; 0 for everything. damaged: keys of the segments that
    could not be read; their rows are paid for again. recalled: how many rows were recalled, by their origins.
    """

    def __init__(self, store: Store, origin: str = "", since: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self.origin = origin
        self.since = since
        self._clock = clock
        self._segments = Segments(store)
        self.damaged = self._segments.damaged
        self.recalled: Counter[str] = Counter()
        self._background = Background()

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

        One entry may have several payloads, all of them answers to the same question. The one that was asked for again
        last counts, and of those the smallest string, so that every reader takes the same one, whichever segments were
        merged meanwhile.

        Raises:
            ValueError: the judge's name is no path component, or a subject is no hash.
            StoreError: the store cannot be read.
        """
        if not entries:
            return {}
        shelves = {shelf_of(subject) for subject in entries.values()}
        folders = [f"{folder_of(judge)}/{name}" for name in sorted(shelves)]
        wanted = pl.DataFrame({"entry": list(entries)}, schema={"entry": pl.String})
        found: dict[str, tuple[int, str, str]] = {}  # when it was asked again (negative), payload, origin
        seen: set[str] = set()
        with ThreadPoolExecutor(_THREADS, "ledger") as pool:
            while True:
                # New segments are listed first: a compactor writes their rows to the shelves before it deletes them.
                listed = self._segments.keys(f"{folder_of(judge)}/{NEW}")
                listed += [key for keys in pool.map(self._segments.keys, folders) for key in keys]
                unread = [key for key in listed if key not in seen and touches(key, shelves)]
                seen.update(unread)
                looked_up = list(pool.map(lambda key: self._look_up(key, wanted), unread))
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
            at = int(self._clock())
            self._background.submit(partial(self._write_rows, f"{folder_of(judge)}/{NEW}", held, at))

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
        """Sort new segments into shelves, and merge each shelf's segments into one.

        New segments are sorted when there are at least `min_segments` of them, and a shelf is merged when it holds as
        many. Readers, writers and other compactors may work meanwhile: see the head of this file. A damaged segment is
        left alone. What a killed compactor leaves is merged by the next one.
        """
        shelves: dict[str, list[str]] = {}
        for key in self._segments.keys(folder_of(judge)):
            shelves.setdefault(key.split("/")[2], []).append(key)
        new = shelves.pop(NEW, [])
        done = Compaction(0, 0)
        with ThreadPoolExecutor(_THREADS, "ledger") as pool:
            if len(new) >= max(min_segments, 1):
                for start in range(0, len(new), _CHUNK):
                    done += self._shelve(judge, new[start : start + _CHUNK], shelves, pool)
            for shelf, keys in shelves.items():
                if len(keys) >= max(min_segments, 2):
                    done += self._merge(f"{folder_of(judge)}/{shelf}", keys, [], pool)[0]
        return done

    def _shelve(
        self, judge: str, new: Sequence[str], shelves: dict[str, list[str]], pool: ThreadPoolExecutor
    ) -> Compaction:
        """Sort the rows of new segments into their shelves, and merge each with what the shelf holds."""
        read = {
            key: rows
            for key, rows in zip(new, pool.map(self._segments.read_whole, new), strict=True)
            if rows is not None
        }
        if not read:
            return Compaction(0, 0)
        rows = pl.concat(read.values()).with_columns(_shelf=pl.col("subjects").list.first().str.head(2))
        done = Compaction(len(read), 0)
        for (shelf,), held in rows.partition_by("_shelf", as_dict=True, include_key=False).items():
            folder = f"{folder_of(judge)}/{shelf}"
            merged, result = self._merge(folder, shelves.get(str(shelf), []), [held], pool)
            shelves[str(shelf)] = [result]
            done += merged
        list(pool.map(self.store.delete, read))
        return done

    def _merge(
        self, folder: str, keys: Sequence[str], more: Sequence[pl.DataFrame], pool: ThreadPoolExecutor
    ) -> tuple[Compaction, str]:
        """Write one segment of everything in these and of further rows, then delete these; returns the result's key."""
        read = {
            key: rows
            for key, rows in zip(keys, pool.map(self._segments.read_whole, keys), strict=True)
            if rows is not None
        }
        frames = [*read.values(), *more]
        if len(frames) == 1 and read:
            return Compaction(0, 0), next(iter(read))
        result = self._segments.write(folder, pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA))
        list(pool.map(self.store.delete, [key for key in read if key != result]))
        return Compaction(len(read), 1), result

    def forget(self, subjects: Iterable[str], *, dry_run: bool = False) -> Forgotten:
        """Remove every row, of any judge, that names one of these hashes; returns what was (or would be) removed.

        The segment without these rows is durable before the old one is deleted. A damaged segment is deleted too,
        because what it holds is unknown. This goes on until a listing shows no new segments. A writer or compactor that
        holds such rows at the same moment may still write them again, so forget while nothing runs.
        """
        named = frozenset(subjects)
        clean: set[str] = set()
        total = Forgotten()
        with ThreadPoolExecutor(_THREADS, "ledger") as pool:
            while keys := [key for key in self._segments.keys("ledger") if key not in clean]:
                held = list(pool.map(lambda key: self._forget_in(key, named, dry_run), keys))
                total = sum(held, total)
                if dry_run:
                    break
                clean.update(key for key, found in zip(keys, held, strict=True) if found == Forgotten())
        return total

    def stats(self) -> dict[str, JudgeStats]:
        """Count segments, rows and bytes by judge; of each segment only the footer is read."""
        sizes = {key: size for key, size in self.store.sizes("ledger").items() if is_segment(key)}
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
        return sorted({key.split("/")[1] for key in self._segments.keys("ledger")})

    def _look_up(self, key: str, wanted: pl.DataFrame) -> list[tuple[str, int, str, str]] | None:
        """Read the wanted entries of one segment; None if it vanished, an empty list if it is damaged."""
        try:
            rows = self._segments.read(key, ["entry", "again", "payload", "origin"])
        except DamagedError:
            return []
        if rows is None:
            return None
        return rows.filter(pl.col("again") >= self.since).join(wanted, on="entry", how="semi").rows()

    def _write_rows(self, folder: str, rows: Sequence[Row], at: int) -> None:
        whole = [(*row, self.origin, at, self.since) for row in rows]
        self._segments.write(folder, pl.DataFrame(whole, schema=SCHEMA, orient="row"))

    def _forget_in(self, key: str, subjects: frozenset[str], dry_run: bool) -> Forgotten:
        try:
            rows = self._segments.read(key)
        except DamagedError:
            if not dry_run:
                self.store.delete(key)
            return Forgotten(damaged=1)
        if rows is None:
            return Forgotten()
        names = rows["subjects"].list.eval(pl.element().is_in(list(subjects))).list.any()
        count = int(names.sum())
        if count and not dry_run:
            if count < rows.height:
                self._segments.write(key.rpartition("/")[0], rows.filter(~names))
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
