"""The form of large segments: rows in blocks that are read one by one, and an index that says which ones to read.

A segment is: its blocks, each a complete small parquet file; the marks of all subjects; the index. The rows are sorted
by the place of their first subject (its first 16 hexadecimal digits as a number) and by entry. So what was asked about
one query lies in one block or in a few neighbours. The index has, for each block, the range of places, its bytes and
their digest, and for each row a mark of 16 bits of its entry. A block is read only if it may hold a wanted entry: of
entries that are not there, one in about 130 costs a block. The marks of subjects (32 bits each) tell whether a segment
may name one of some texts, so that a purge reads the others' marks only.

Everything is little-endian. Equal rows give equal bytes.
"""

import hashlib
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt
import polars as pl

Numbers = npt.NDArray[Any]

BLOCK_ROWS = 512  # of text; about 30 kB
BLOCK_VECTORS = 32  # of binary payloads; about 50 kB at 384 dimensions
_DIGITS, _SHELF_BITS = 16, 56
_TAG_BITS, _MARK_DIGITS = 16, 8
_DIGEST = 16  # bytes of a SHA-256 that are kept
_HEAD = 4  # numbers before the arrays of the index
_PLACE = "_place"


class DamagedError(Exception):
    """A segment's bytes are not those that its name or its index calls for."""


@dataclass(frozen=True)
class Wanted:
    """Entries that are looked up (`table`, a column `entry`), with their places and marks, in the same order."""

    table: pl.DataFrame
    places: Numbers
    tags: Numbers

    @classmethod
    def of(cls, entries: Mapping[str, str]) -> Self:
        """Take entries with their first subjects."""
        table = pl.DataFrame({"entry": list(entries)}, schema={"entry": pl.String})
        return cls(table, places_of(pl.Series(list(entries.values()), dtype=pl.String)), tags_of(entries))

    @property
    def shelves(self) -> dict[str, "Wanted"]:
        """Return them by the first two digits of their first subjects."""
        shelf_of = self.places >> np.uint64(_SHELF_BITS)
        order = np.argsort(shelf_of, kind="stable")
        numbers, starts = np.unique(shelf_of[order], return_index=True)
        found = {}
        for number, there in zip(numbers, np.split(order, starts[1:]), strict=True):
            found[f"{int(number):02x}"] = type(self)(self.table[there], self.places[there], self.tags[there])
        return found


@dataclass(frozen=True)
class Index:
    """What is known of a segment without reading its blocks.

    starts: where each block begins, and where the last one ends. digests: of the blocks, then of the marks. first,
    last: places of the first and the last row of each block. tags: number of the block and mark of the entry, for each
    row, sorted. marks: how many marks of subjects stand after the blocks.
    """

    starts: Numbers
    digests: bytes
    first: Numbers
    last: Numbers
    tags: Numbers
    marks: int

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return int(self.starts.nbytes + self.first.nbytes + self.last.nbytes + self.tags.nbytes) + len(self.digests)

    @property
    def blocks(self) -> int:
        """How many there are."""
        return len(self.first)

    def candidates(self, wanted: Wanted) -> list[int]:
        """Return the blocks that may hold a wanted entry, ascending."""
        low = np.searchsorted(self.last, wanted.places, "left")
        high = np.searchsorted(self.first, wanted.places, "right")
        found = set[int]()
        for step in range(int((high - low).max(initial=0))):  # a query with many rows is in several blocks
            there = low + step < high
            asked = ((low[there] + step).astype(np.uint32) << np.uint32(_TAG_BITS)) | wanted.tags[there]
            at = np.searchsorted(self.tags, asked)
            hit = asked[(at < len(self.tags)) & (self.tags[np.minimum(at, len(self.tags) - 1)] == asked)]
            found.update((hit >> np.uint32(_TAG_BITS)).tolist())
        return sorted(found)

    def digest(self, block: int) -> bytes:
        """Return the digest of a block; that of the marks follows the last block's."""
        return self.digests[block * _DIGEST : (block + 1) * _DIGEST]

    def to_bytes(self) -> bytes:
        """Write it, as `parse` reads it."""
        head = np.array([self.blocks, len(self.tags), self.marks, 0], dtype="<u8")
        counts = np.bincount(self.tags >> np.uint32(_TAG_BITS), minlength=self.blocks)
        arrays = (head, self.starts.astype("<u8"), self.first.astype("<u8"), self.last.astype("<u8"))
        low = (self.tags & np.uint32(2**_TAG_BITS - 1)).astype("<u2")
        return b"".join(part.tobytes() for part in (*arrays, counts.astype("<u4"), low)) + self.digests

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an index whose digest was checked."""
        blocks, rows, marks, _ = (int(number) for number in np.frombuffer(data, "<u8", _HEAD))
        at = _HEAD * 8
        starts = np.frombuffer(data, "<u8", blocks + 1, at)
        first = np.frombuffer(data, "<u8", blocks, at := at + 8 * (blocks + 1))
        last = np.frombuffer(data, "<u8", blocks, at := at + 8 * blocks)
        counts = np.frombuffer(data, "<u4", blocks, at := at + 8 * blocks)
        low = np.frombuffer(data, "<u2", rows, at := at + 4 * blocks)
        numbers = np.repeat(np.arange(blocks, dtype=np.uint32), counts)
        return cls(starts, data[at + 2 * rows :], first, last, (numbers << np.uint32(_TAG_BITS)) | low, marks)

    @classmethod
    def of_one(cls, rows: pl.DataFrame, size: int) -> Self:
        """Make the index of a segment that is one parquet file of so many bytes."""
        if rows.is_empty():
            none = np.empty(0, np.uint64)
            return cls(np.zeros(1, np.uint64), b"", none, none, np.empty(0, np.uint32), 0)
        places = places_of(rows["subjects"].list.first())
        edges = (np.array([places.min()]), np.array([places.max()]))
        return cls(np.array([0, size], np.uint64), b"", *edges, np.sort(tags_of(rows["entry"])), 0)


class BlockWriter:
    """Makes a segment of sorted rows that come piece by piece; where the pieces are cut makes no difference."""

    def __init__(self, rows: int) -> None:
        """Begin; rows: of one block."""
        self._rows, self._waiting = rows, list[pl.DataFrame]()
        self._data, self._ends, self._digests = bytearray(), [0], bytearray()
        self._first, self._last, self._tags = list[int](), list[int](), list[Numbers]()
        self._marks = list[Numbers]()
        self.height = 0

    @property
    def shelves(self) -> tuple[str, str]:
        """The shelves of the first and the last row, once it is finished."""
        first, last = (f"{place:0{_DIGITS}x}"[:2] for place in (self._first[0], self._last[-1]))
        return first, last

    def add(self, rows: pl.DataFrame) -> None:
        """Append rows, with their places."""
        self.height += rows.height
        self._waiting.append(rows)
        waiting = sum(frame.height for frame in self._waiting)
        if waiting >= self._rows:
            whole = pl.concat(self._waiting)
            full = waiting - waiting % self._rows
            self._waiting = [whole.slice(full)]
            self._write(whole.head(full))

    def finish(self) -> tuple[bytearray, bytes]:
        """Return the blocks with the marks, and the index; together they are the segment. It is not used afterwards."""
        self._write(pl.concat(self._waiting) if self._waiting else pl.DataFrame())
        marks = np.unique(np.concatenate(self._marks)) if self._marks else np.empty(0, np.uint32)
        held = marks.astype("<u4").tobytes()
        index = Index(
            np.array(self._ends, np.uint64),
            bytes(self._digests) + _digest(held),
            np.array(self._first, np.uint64),
            np.array(self._last, np.uint64),
            np.concatenate(self._tags) if self._tags else np.empty(0, np.uint32),
            len(marks),
        )
        self._data += held
        return self._data, index.to_bytes()

    def _write(self, rows: pl.DataFrame) -> None:
        if rows.is_empty():
            return
        places, tags = rows[_PLACE].to_numpy(), tags_of(rows["entry"])
        named = rows["subjects"].explode().unique()
        self._marks.append(marks_of(named))
        plain = rows.drop(_PLACE)
        for start in range(0, rows.height, self._rows):
            end = min(start + self._rows, rows.height)
            data = _encode(plain.slice(start, self._rows))
            self._tags.append(np.sort(tags[start:end]) | np.uint32(len(self._first) << _TAG_BITS))
            self._data += data
            self._digests += _digest(data)
            self._ends.append(len(self._data))
            self._first.append(int(places[start]))
            self._last.append(int(places[end - 1]))


def with_places(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the place of each row's first subject."""
    return rows.with_columns(pl.Series(_PLACE, places_of(rows["subjects"].list.first())))


def without_places(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of a segment alone."""
    return rows.drop(_PLACE)


def between(rows: pl.DataFrame, low: int, high: int) -> pl.DataFrame:
    """Return the rows, with their places, whose place is at least `low` and less than `high`."""
    place = pl.col(_PLACE)
    return rows.filter((place >= pl.lit(low, pl.UInt64)) & (place <= pl.lit(high - 1, pl.UInt64)))


def sort_distinct(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort rows with their places, and keep of each entry the one that counts: the last asked, then the smallest."""
    quickly = rows.sort(_PLACE, "entry")
    follows = (quickly[_PLACE] == quickly[_PLACE].shift()) & (quickly["entry"] == quickly["entry"].shift())
    if not follows.any():
        return quickly
    order = [_PLACE, "entry", "again", "payload", "origin", "at", pl.col("subjects").list.join(",")]
    newest_first = [False, False, True, False, False, False, False]
    return rows.sort(order, descending=newest_first).unique([_PLACE, "entry"], keep="first", maintain_order=True)


def checked(data: bytes, index: Index, block: int) -> bytes:
    """Return the bytes of a block.

    Raises:
        DamagedError: they are not those that were written.
    """
    if _digest(data) != index.digest(block):
        raise DamagedError(f"block {block} of {index.blocks} is damaged")
    return data


def names_any(marks: bytes, index: Index, subjects: Collection[str]) -> bool:
    """Tell whether a segment may name one of some subjects; wrong in one of a hundred thousand at 40,000 marks.

    Raises:
        DamagedError: the marks are not those that were written.
    """
    if _digest(marks) != index.digest(index.blocks):
        raise DamagedError("the marks of the subjects are damaged")
    return bool(np.isin(marks_of(subjects), np.frombuffer(marks, "<u4")).any())


def neighbours(index: Index, found: Iterable[int], gap: int) -> Iterator[list[int]]:
    """Yield the blocks in groups that are read at once: between two of a group there are at most `gap` bytes."""
    together = list[int]()
    for block in found:
        if together and int(index.starts[block]) - int(index.starts[together[-1] + 1]) > gap:
            yield together
            together = []
        together.append(block)
    if together:
        yield together


def places_of(subjects: pl.Series) -> Numbers:
    """Return the place of each subject, as UInt64; a short one counts as if zeros followed."""
    digits = subjects.str.slice(0, _DIGITS).str.pad_end(_DIGITS, "0")
    return digits.str.to_integer(base=16, dtype=pl.UInt64).to_numpy()


def tags_of(entries: Iterable[str]) -> Numbers:
    """Return a mark of 16 bits for each entry."""
    return np.asarray(marks_of(entries) & np.uint32(2**_TAG_BITS - 1))


def marks_of(texts: Iterable[str]) -> Numbers:
    """Return a mark of 32 bits for each text: the last eight digits of a hash, and the CRC-32 of anything else."""
    found = pl.Series("text", texts if isinstance(texts, pl.Series) else list(texts), dtype=pl.String)
    hashed = found.str.contains(r"[0-9a-f]{8}$")
    digits = found.set(~hashed, "0").str.tail(_MARK_DIGITS).str.to_integer(base=16, dtype=pl.UInt32)
    marks = digits.to_numpy().copy()
    for row in np.flatnonzero(~hashed.to_numpy()):
        marks[row] = crc32(found[int(row)].encode())
    return marks


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST]


def _encode(rows: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.rechunk().write_parquet(buffer, compression="zstd", compression_level=3, statistics=False)
    return buffer.getvalue()
