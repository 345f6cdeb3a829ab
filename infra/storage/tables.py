"""Tables in the store: pieces of parquet, each an object of its own or a slice of a bundle.

A bundle is one object that holds the slices of several parts one after another. A shuffle makes a slice for each pair
of a maker and a reader: 200 parts that write for 200 others make 40,000. As objects of their own these would be 40,000
names and requests to write; in bundles they are 200 objects. A reader fetches its slice by a ranged read and checks it
against the slice's own SHA-256, so nobody reads what belongs to others.

A bundle ends with the lengths of its slices as JSON, the length of this JSON in 8 bytes, and a mark. So a purge can
search the slices of a bundle whose manifest is gone.
"""

import hashlib
import io
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import polars as pl

from infra.names import object_name
from infra.storage.store import TRASH, Store, StoreError
from infra.storage.table_schema import SchemaLike, check_schema

BUNDLE = ".bundle"  # ends the key of a bundle
_MARK = b"RENEGBDL"
_LENGTH = 8  # bytes of the number before the mark
_READERS = 8  # slices of bundles that are read at a time


@dataclass(frozen=True)
class Piece:
    """One parquet file of a table; `index` is the part it belongs to.

    It is a whole object; or, with `start`, a slice of a bundle: `length` bytes of the object from `start`, whose
    SHA-256 is `digest`. In a table whose parts are grouped, `index` is the number of the group, and `part` the part.
    """

    index: int
    object: str
    rows: int
    start: int | None = None
    length: int | None = None
    digest: str | None = None
    part: int | None = None

    @property
    def content(self) -> str:
        """What a key covers of this piece: its own bytes, and not what else lies in a bundle."""
        # Each stage that reads a piece keeps this with its part; interned, they all keep the same string.
        return sys.intern(object_name(self.object) if self.digest is None else f"{self.digest}.parquet")


@dataclass(frozen=True)
class Table:
    """A table: its pieces, and the indexes of the pieces that are missing because their part failed.

    partial: a part that scatters rows over all indexes failed, so rows may be missing at every index.
    schema: with which the table is read where it has no piece.
    """

    name: str
    pieces: tuple[Piece, ...] = ()
    missing: frozenset[int] = frozenset()
    partial: bool = False
    schema: SchemaLike | None = field(default=None, compare=False, repr=False)

    @property
    def indexes(self) -> frozenset[int]:
        """Every part index, present or missing."""
        return frozenset(piece.index for piece in self.pieces) | self.missing

    @property
    def rows(self) -> int:
        """Rows over all pieces."""
        return sum(piece.rows for piece in self.pieces)

    def at(self, index: int) -> "Table":
        """Return the pieces of one part; they are found by an index that is made once."""
        return replace(self, pieces=self._by_index.get(index, ()), missing=self.missing & {index})

    def grouped(self, groups: Sequence[Collection[int]]) -> "Table":
        """Return the same pieces under the numbers of groups of parts: one part of a stage then reads a whole group.

        >>> table = Table("queries", (Piece(0, "a", 1), Piece(1, "b", 1), Piece(2, "c", 1)))
        >>> [(piece.index, piece.part) for piece in table.grouped([range(2), range(2, 3)]).pieces]
        [(0, 0), (0, 1), (1, 2)]
        """
        number = {part: number for number, parts in enumerate(groups) for part in parts}
        pieces = (replace(piece, index=number[piece.index], part=piece.index) for piece in self.pieces)
        return replace(self, pieces=tuple(pieces), missing=frozenset(number[part] for part in self.missing))

    @cached_property
    def _by_index(self) -> Mapping[int, tuple[Piece, ...]]:
        found: dict[int, list[Piece]] = {}
        for piece in self.pieces:
            found.setdefault(piece.index, []).append(piece)
        return {index: tuple(pieces) for index, pieces in found.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the index out of what is sent to other processes."""
        return {name: value for name, value in self.__dict__.items() if name != "_by_index"}

    @property
    def incomplete(self) -> bool:
        """Whether rows are missing at any index."""
        return self.partial or bool(self.missing)

    def lacks(self, index: int) -> bool:
        """Tell whether rows of one index are missing."""
        return self.partial or index in self.missing

    def content(self) -> list[str]:
        """Return what a key covers of this table: the digests of its pieces, in order."""
        return [piece.content for piece in self.pieces]


def write_table(store: Store, name: str, frame: pl.DataFrame, schema: SchemaLike, index: int) -> Piece:
    """Check a frame against its schema and write it as one piece (parquet, zstd); equal frames give equal bytes."""
    return Piece(index, store.put_object(_as_parquet(name, frame, schema), ".parquet"), frame.height)


def write_bundle(
    store: Store, name: str, frames: Iterable[tuple[int, pl.DataFrame]], schema: SchemaLike
) -> tuple[Piece, ...]:
    """Write frames with the indexes they are for as slices of one object; without frames nothing is written."""
    bundle = BundleWriter()
    found = []
    for index, frame in frames:
        found.append((index, frame.height, bundle.add(_as_parquet(name, frame, schema))))
        del frame
    if not found:
        return ()
    key = bundle.put(store)
    return tuple(Piece(index, key, rows, made.start, made.length, made.digest) for index, rows, made in found)


def _as_parquet(name: str, frame: pl.DataFrame, schema: SchemaLike) -> bytes:
    check_schema(name, frame, schema)
    buffer = io.BytesIO()
    frame.rechunk().write_parquet(buffer, compression="zstd", compression_level=3, statistics=True)
    return buffer.getvalue()


def read_table(
    store: Store,
    table: Table,
    schema: SchemaLike | None = None,
    *,
    numbered: bool = False,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Read all pieces of a table, in order; an empty table needs a schema, its own or this one, to have columns.

    Args:
        store: that holds the pieces.
        table: what is read.
        schema: with which a table without pieces is read.
        numbered: add the column `part` (Int32), the index of the piece that a row came from.
        columns: those that are put into memory, in this order; None for all. The bytes of a piece are read and checked
            as a whole in any case.

    Raises:
        StoreError: a piece is gone, damaged, or no parquet file, or lacks a column.
    """
    schema = schema or table.schema
    frames = list(_read_pieces(store, table, numbered, columns))
    frames = [frame for frame in frames if frame.height] or frames[:1]
    if frames:
        return pl.concat(frames)
    if schema is None:
        raise StoreError(f"table {table.name} has no piece and no schema was given to read it empty")
    empty = pl.DataFrame(schema=dict(schema.columns))
    empty = empty if columns is None else empty.select(columns)
    return _numbered(empty, 0) if numbered else empty


@dataclass(frozen=True)
class Stream:
    """The pieces of a table as frames, in order. Each is read when it is asked for, and nothing is kept.

    Reading raises StoreError where a piece is gone, damaged, or no parquet file.
    """

    store: Store
    table: Table
    columns: Sequence[str] | None = None

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Begin with the first piece."""
        return (_read_piece(self.store, self.table, piece, self.columns) for piece in self.table.pieces)

    def __getitem__(self, place: int) -> pl.DataFrame:
        """Read one piece, by its place from 0."""
        return _read_piece(self.store, self.table, self.table.pieces[place], self.columns)

    @property
    def parts(self) -> list[int]:
        """The numbers of the parts, in order."""
        return sorted(self.table.indexes)

    def at(self, part: int) -> pl.DataFrame:
        """Read all pieces of one part; without any it is a frame without rows."""
        found = self.table.at(part)
        if found.pieces or found.schema is not None:
            return read_table(self.store, found, columns=self.columns)
        return _read_piece(self.store, self.table, self.table.pieces[0], self.columns).clear()

    @property
    def height(self) -> int:
        """Rows of all pieces."""
        return self.table.rows


def _read_pieces(store: Store, table: Table, numbered: bool, columns: Sequence[str] | None) -> Iterator[pl.DataFrame]:
    """Read the pieces one by one; slices of bundles, and all pieces in a bucket, a few at a time.

    Slices are small and many, and a bucket takes its time for each answer.
    """

    def read(piece: Piece) -> pl.DataFrame:
        frame = _read_piece(store, table, piece, columns)
        return _numbered(frame, piece.index if piece.part is None else piece.part) if numbered else frame

    if store.local and not any(piece.digest for piece in table.pieces[1:]):
        yield from map(read, table.pieces)
        return
    with ThreadPoolExecutor(min(_READERS, max(1, len(table.pieces))), "pieces") as pool:
        yield from pool.map(read, table.pieces)


def _numbered(frame: pl.DataFrame, index: int) -> pl.DataFrame:
    return frame.with_columns(part=pl.lit(index, pl.Int32))


def _bytes_of(store: Store, piece: Piece) -> bytes:
    if piece.start is None or piece.length is None or piece.digest is None:
        return store.get_object(piece.object)
    return read_slice(store, piece.object, Slice(piece.start, piece.length, piece.digest))


def _read_piece(store: Store, table: Table, piece: Piece, columns: Sequence[str] | None) -> pl.DataFrame:
    data = _bytes_of(store, piece)
    try:
        return pl.read_parquet(data, columns=None if columns is None else list(columns))
    except pl.exceptions.ColumnNotFoundError as error:
        raise StoreError(
            f"table {table.name}: {piece.object} lacks a column ({error}); another version made it: rerun its part"
        ) from error
    except pl.exceptions.PolarsError as error:
        raise StoreError(
            f"table {table.name}: {piece.object} is no parquet file ({error}), and nothing else is read; rerun its part"
        ) from error


@dataclass(frozen=True)
class Slice:
    """Where a slice lies in its bundle, in bytes, and the SHA-256 of its bytes."""

    start: int
    length: int
    digest: str


class BundleWriter:
    """Collects slices in memory and stores them as one object.

    >>> writer = BundleWriter()
    >>> writer.add(b"one"), writer.add(b"three").start
    (Slice(start=0, length=3, digest='7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed'), 3)
    """

    def __init__(self) -> None:
        """Begin without slices."""
        self._data = bytearray()
        self._lengths: list[int] = []

    def add(self, data: bytes) -> Slice:
        """Append a slice."""
        made = Slice(len(self._data), len(data), hashlib.sha256(data).hexdigest())
        self._data += data
        self._lengths.append(len(data))
        return made

    def put(self, store: Store) -> str:
        """Store the bundle under its own SHA-256 and return its key; nothing can be added afterwards."""
        index = json.dumps(self._lengths, separators=(",", ":")).encode()
        self._data += index + len(index).to_bytes(_LENGTH, "big") + _MARK
        return store.put_object(bytes(self._data), BUNDLE)


def read_slice(store: Store, key: str, at: Slice) -> bytes:
    """Read one slice of a bundle, also from the trash, and check its digest.

    Raises:
        StoreError: the bundle is gone, or the bytes are not those that were written.
    """
    store.check_object(key)
    end = at.start + at.length
    data: bytes | None = None
    for place in (key, f"{TRASH}/{key}"):
        data = read_range(store, place, at.start, end)
        if data is not None:
            break
    if data is None:
        raise StoreError(f"store {store.url}: object {key} is missing; rerun its part")
    came = hashlib.sha256(data).hexdigest()
    if came != at.digest:
        raise StoreError(
            f"store {store.url}: object {key} is damaged between bytes {at.start} and {end} (SHA-256 {came}); "
            "rerun its part"
        )
    return data


def read_range(store: Store, key: str, start: int, end: int) -> bytes | None:
    """Read bytes `start` to `end` of what lies under a key; None where there is nothing."""
    path = store._path(key)
    data: bytes | None = store._attempt("read", key, lambda: store._fs.cat_file(path, start=start, end=end), None)
    return data


def slices_of(data: bytes) -> Iterator[bytes]:
    """Yield the slices of a whole bundle, in order.

    Raises:
        ValueError: the bytes are no bundle, or are cut short.
    """
    tail = len(_MARK) + _LENGTH
    if len(data) < tail or not data.endswith(_MARK):
        raise ValueError("no bundle: the mark at its end is missing")
    size = int.from_bytes(data[-tail : -len(_MARK)], "big")
    index = len(data) - tail - size
    lengths = json.loads(data[max(index, 0) : len(data) - tail])
    if sum(lengths) != index:
        raise ValueError(f"no bundle: slices of {sum(lengths)} bytes expected, {index} came")
    start = 0
    for length in lengths:
        yield data[start : start + length]
        start += length
