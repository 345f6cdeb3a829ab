"""Segments of the ledger: their columns, and reading, searching and writing one of them.

Rows lie in segments that are never changed, with the columns of `SCHEMA`. A segment of few rows is one parquet file,
sorted by entry. A larger one is made of blocks (`infra.ledger.blocks`): a reader needs one request for its index, and
then only the blocks that may hold what it looks for. Earlier versions wrote segments of any size as one parquet file;
these are read as they are. Every byte is checked against a digest before it is used: that of the whole segment, or that
of the index, which stands in the name, and those of marks and blocks, which stand in the index.
"""

import hashlib
import io
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from infra.ledger import blocks
from infra.ledger.blocks import BlockWriter, DamagedError, Index, Numbers, Wanted
from infra.ledger.index_cache import IndexCache
from infra.ledger.names import (
    ANSWERS,
    DIGEST,
    NEW,
    VECTORS,
    SegmentName,
    folder_of,
    is_segment,
    shelf_of,
    touches,
)
from infra.storage.store import Store
from infra.storage.tables import read_range

__all__ = ["NEW", "SCHEMA", "DamagedError", "Opened", "Segments", "folder_of", "is_segment", "shelf_of", "touches"]

# entry: the row's id. subjects: hashes of all texts that the row is about. payload: text, or the bytes of a vector.
# origin: digest of what computed it; empty where it was not recorded. at: when it was remembered, in seconds since the
# epoch; 0 where it was not recorded. again: the time from which answers counted when it was asked; 0 where it was asked
# because nothing was known.
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "entry": pl.String,
    "subjects": pl.List(pl.String),
    "payload": pl.String,
    "origin": pl.String,
    "at": pl.Int64,
    "again": pl.Int64,
}
_LATER = {
    "origin": pl.lit(""),
    "at": pl.lit(0, dtype=pl.Int64),
    "again": pl.lit(0, dtype=pl.Int64),
}  # columns once absent
_FEW = 128  # rows of a segment that is one parquet file
_SMALL = 65536  # bytes of a segment that is read whole rather than its index first
_GAP = 65536  # bytes that are read in vain rather than sending another request
_PAUSES = (0.0, 0.1, 0.5, 2.0)  # seconds before a segment that was there and is gone is created again
_log = logging.getLogger(__name__)


class Segments:
    """The segments of one store below one folder; `damaged`: keys of those that could not be read.

    block_rows: how many rows a block has. slice_rows: how many are held in memory at a time while segments are merged.
    """

    def __init__(self, store: Store, root: str = ANSWERS) -> None:
        """Begin with no damaged one."""
        self.store = store
        self.root = root
        self.schema = {**SCHEMA, "payload": pl.Binary} if root == VECTORS else SCHEMA
        self.block_rows = blocks.BLOCK_VECTORS if root == VECTORS else blocks.BLOCK_ROWS
        self.slice_rows = 128 * self.block_rows
        self.damaged: set[str] = set()
        self._indexes = IndexCache.of(store.url)

    def keys(self, folder: str) -> list[str]:
        """List the segments below a folder."""
        return [key for key in self.store.list(folder) if is_segment(key)]

    def open(self, key: str) -> "Opened | None":
        """Read all bytes of a segment; None where it vanished.

        Raises:
            DamagedError: its digest is not its name.
        """
        data = self.store.read(key)
        if data is None:
            return None
        name = SegmentName.parse(key)
        if hashlib.sha256(data).hexdigest() != name.sha256:
            raise self._damage(key, f"its SHA-256 is not its name ({len(data)} bytes)")
        index = None if name.rows is None else Index.parse(data[name.start :])
        return Opened(self, key, data, index)

    def read(self, key: str, columns: list[str] | None = None) -> pl.DataFrame | None:
        """Read one segment; None where it vanished.

        Raises:
            DamagedError: its digest is not its name, or it is no table of ours.
        """
        opened = self.open(key)
        return None if opened is None else opened.rows().select(columns or list(self.schema))

    def open_whole(self, key: str) -> "Opened | None":
        """Read all bytes of a segment; None where it vanished or is damaged."""
        try:
            opened = self.open(key)
            if opened is not None and opened.index is None:
                opened.rows()
        except DamagedError:
            return None
        return opened

    def read_whole(self, key: str) -> pl.DataFrame | None:
        """Read one segment; None where it vanished or is damaged."""
        opened = self.open_whole(key)
        return None if opened is None else opened.rows()

    def look_up(self, key: str, wanted: Wanted) -> pl.DataFrame | None:
        """Read the rows of wanted entries of one segment, and of a large one only the blocks that may hold them.

        Returns:
            The rows; None if the segment vanished.

        Raises:
            DamagedError: what was read of it is damaged.
        """
        index, name = self._indexes.get(key), SegmentName.parse(key)
        if index is None and name.size > _SMALL:
            index = self._read_index(key, name)
            if index is None:
                return None
        if index is not None:
            found = index.candidates(wanted)
            if not found:
                return pl.DataFrame(schema=self.schema)
            if name.rows is not None:
                return self._read_blocks(key, index, found, wanted)
        opened = self.open(key)
        if opened is None:
            return None
        rows = opened.rows()
        self._indexes.put(key, opened.index or Index.of_one(rows, len(opened.data)))
        return _only(rows, wanted)

    def may_name(self, key: str, subjects: Collection[str]) -> bool:
        """Tell whether a segment may name one of these subjects; of one that is made of blocks only marks are read.

        Raises:
            DamagedError: what was read of it is damaged.
        """
        name = SegmentName.parse(key)
        if name.rows is None:
            return True
        index = self._indexes.get(key) or self._read_index(key, name)
        if index is None:
            return False
        start = int(index.starts[-1])
        marks = read_range(self.store, key, start, name.start)
        try:
            return marks is not None and blocks.names_any(marks, index, subjects)
        except DamagedError as error:
            raise self._damage(key, str(error)) from error

    def write(self, folder: str, rows: pl.DataFrame) -> str:
        """Make rows durable as one segment and return its key; a damaged object under that key is repaired."""
        if rows.height <= _FEW:
            return self._write_few(folder, rows)[0]
        return self.write_sorted(folder, [blocks.sort_distinct(blocks.with_places(rows))])[0]

    def write_sorted(self, folder: str, slices: Iterable[pl.DataFrame]) -> tuple[str, int]:
        """Make rows durable as one segment that come in slices, sorted and distinct, with their places.

        Equal rows make the same segment, however they are cut into slices.

        Returns:
            Its key, and how many bytes it has.
        """
        few, writer = blocks.with_places(pl.DataFrame(schema=self.schema)), BlockWriter(self.block_rows)
        for rows in slices:
            if writer.height:
                writer.add(rows)
                continue
            few = pl.concat([few, rows])
            if few.height > _FEW:
                writer.add(few)
        if not writer.height:
            return self._write_few(folder, blocks.without_places(few))
        whole, index = writer.finish()
        shelves, height = writer.shelves, writer.height
        del writer  # it holds the bytes too
        start, digest = len(whole), hashlib.sha256(index).hexdigest()[:DIGEST]
        whole += index
        name = SegmentName(hashlib.sha256(whole).hexdigest(), height, start, len(index), digest)
        return self._create(folder, shelves, str(name), whole), name.size

    def _write_few(self, folder: str, rows: pl.DataFrame) -> tuple[str, int]:
        data = _encode(rows)
        shelves = sorted(shelf_of(subject) for subject in rows["subjects"].list.first()) or [""]
        name = SegmentName(hashlib.sha256(data).hexdigest())
        return self._create(folder, (shelves[0], shelves[-1]), str(name), data), len(data)

    def _create(self, folder: str, shelves: tuple[str, str], name: str, data: bytes | bytearray) -> str:
        key = f"{folder}/{shelves[0]}-{shelves[1]}-{name}" if folder.endswith(f"/{NEW}") else f"{folder}/{name}"
        for pause in _PAUSES:
            if self.store.create(key, data):
                return key
            there = self.store.read(key)
            if there == data:
                return key
            if there is not None:
                break
            time.sleep(pause)  # it was there and is gone: a compactor deleted it, or the server contradicts itself
        self.store.replace(key, bytes(data))  # the key names the bytes, so nothing else can be overwritten
        return key

    def _read_index(self, key: str, name: SegmentName) -> Index | None:
        data = read_range(self.store, key, name.start, name.start + name.length)
        if data is None:
            return None
        if hashlib.sha256(data).hexdigest()[:DIGEST] != name.index:
            raise self._damage(key, f"its index is not the one that its name calls for ({len(data)} bytes)")
        index = Index.parse(data)
        self._indexes.put(key, index)
        return index

    def _read_blocks(self, key: str, index: Index, found: Sequence[int], wanted: Wanted) -> pl.DataFrame | None:
        frames = []
        for together in blocks.neighbours(index, found, _GAP):
            start, end = int(index.starts[together[0]]), int(index.starts[together[-1] + 1])
            data = read_range(self.store, key, start, end)
            if data is None:
                return None
            for block in together:
                at, to = (int(edge) - start for edge in index.starts[block : block + 2])
                try:
                    rows = self.decode(key, blocks.checked(data[at:to], index, block))
                except DamagedError as error:
                    raise self._damage(key, str(error)) from error
                frames.append(_only(rows, wanted))
        return pl.concat(frames)

    def decode(self, key: str, data: bytes) -> pl.DataFrame:
        """Read the rows of a segment's parquet file, or of one of its blocks.

        Raises:
            DamagedError: it is no table of ours.
        """
        try:
            return _decode(data, list(self.schema))
        except pl.exceptions.PolarsError as error:
            raise self._damage(key, str(error)) from error

    def _damage(self, key: str, why: str) -> DamagedError:
        if key not in self.damaged:
            _log.warning("ledger: segment %s is damaged and skipped; its rows are paid for again: %s", key, why)
        self.damaged.add(key)
        return DamagedError(key)


class Opened:
    """The bytes of a segment, of which rows are decoded as they are needed. index: None if it is one parquet file."""

    def __init__(self, segments: Segments, key: str, data: bytes, index: Index | None) -> None:
        """Keep the bytes, whose digest was checked."""
        self.key, self.data, self.index = key, data, index
        self._segments = segments
        self._rows: pl.DataFrame | None = None

    def rows(self) -> pl.DataFrame:
        """Decode all rows.

        Raises:
            DamagedError: it is no table of ours.
        """
        if self.index is not None:
            return self._blocks(0, self.index.blocks)
        if self._rows is None:
            self._rows = self._segments.decode(self.key, self.data)
        return self._rows

    @property
    def edges(self) -> tuple[Numbers, int]:
        """Return places, ascending, at which the rows can be cut, and how many rows there are between two of them."""
        if self.index is None:
            return np.sort(blocks.places_of(self.rows()["subjects"].list.first())), 1
        return self.index.first, self._segments.block_rows

    def between(self, low: int, high: int) -> pl.DataFrame:
        """Decode the rows whose place is at least `low` and less than `high`, with their places."""
        if self.index is None:
            return blocks.between(blocks.with_places(self.rows()), low, high)
        first = int(np.searchsorted(self.index.last, np.uint64(low), "left"))
        end = int(np.searchsorted(self.index.first, np.uint64(high - 1), "right"))
        return blocks.between(blocks.with_places(self._blocks(first, max(first, end))), low, high)

    def _blocks(self, first: int, end: int) -> pl.DataFrame:
        assert self.index is not None
        starts = [int(start) for start in self.index.starts[first : end + 1]]
        pieces = [self._segments.decode(self.key, self.data[at:to]) for at, to in pairwise(starts)]
        return pl.concat([pl.DataFrame(schema=self._segments.schema), *pieces])


def _only(rows: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    return rows.join(wanted.table, on="entry", how="semi")


def _decode(data: bytes, columns: Sequence[str]) -> pl.DataFrame:
    """Read columns of a segment; one that was written before a column existed has its default."""
    there = pl.read_parquet_schema(io.BytesIO(data))
    rows = pl.read_parquet(io.BytesIO(data), columns=[name for name in columns if name in there or name not in _LATER])
    absent = {name: value for name, value in _LATER.items() if name in columns and name not in there}
    return rows.with_columns(**absent).select(*columns)


def _encode(rows: pl.DataFrame) -> bytes:
    """Write rows as parquet, sorted by entry, of each entry the row that counts: equal rows give equal bytes."""
    order = ["entry", "again", "payload", "origin", "at", pl.col("subjects").list.join(",")]
    newest_first = [False, True, False, False, False, False]
    distinct = rows.sort(order, descending=newest_first).unique("entry", keep="first", maintain_order=True)
    buffer = io.BytesIO()
    distinct.rechunk().write_parquet(buffer, compression="zstd", compression_level=3, statistics=True)
    return buffer.getvalue()
