"""Segments of the ledger: their keys, their columns, and reading and writing one of them.

Rows lie in segments that are never changed, with the columns of `SCHEMA`. A segment is named after its bytes:
`ledger/<judge>/<shelf>/<SHA-256>.parquet`. Before it is sorted it is `ledger/<judge>/new/<range>-<SHA-256>.parquet`,
where the range is that of the rows' shelves. A shelf is the first two digits of a row's first subject.
"""

import hashlib
import io
import logging
import re
from collections.abc import Collection, Sequence

import polars as pl

from infra.storage.store import Store

# entry: the row's id. subjects: hashes of all texts that the row is about. origin: digest of what computed it; empty
# where it was not recorded. at: when it was remembered, in seconds since the epoch; 0 where it was not recorded.
# again: the time from which answers counted when it was asked; 0 where it was asked because nothing was known.
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "entry": pl.String,
    "subjects": pl.List(pl.String),
    "payload": pl.String,
    "origin": pl.String,
    "at": pl.Int64,
    "again": pl.Int64,
}
NEW = "new"
_LATER = {
    "origin": pl.lit(""),
    "at": pl.lit(0, dtype=pl.Int64),
    "again": pl.lit(0, dtype=pl.Int64),
}  # columns once absent
_JUDGE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_HASH = re.compile(r"[0-9a-f]{2,}")
_KEY = re.compile(
    r"ledger/(?P<judge>[^/]+)/((?P<shelf>[0-9a-f]{2})/|new/(?P<first>[0-9a-f]{2})-(?P<last>[0-9a-f]{2})-)"
    r"[0-9a-f]{64}\.parquet"
)
_log = logging.getLogger(__name__)


class DamagedError(Exception):
    """A segment's bytes are not those that its name calls for."""


class Segments:
    """The segments of one store; `damaged`: keys of those that could not be read."""

    def __init__(self, store: Store) -> None:
        """Begin with no damaged one."""
        self.store = store
        self.damaged: set[str] = set()

    def keys(self, folder: str) -> list[str]:
        """List the segments below a folder."""
        return [key for key in self.store.list(folder) if is_segment(key)]

    def read(self, key: str, columns: list[str] | None = None) -> pl.DataFrame | None:
        """Read one segment; None where it vanished.

        Raises:
            DamagedError: its digest is not its name, or it is no table of ours.
        """
        data = self.store.read(key)
        if data is None:
            return None
        try:
            if hashlib.sha256(data).hexdigest() != key[-72:-8]:
                raise DamagedError(f"its SHA-256 is not its name ({len(data)} bytes)")
            return _decode(data, columns or list(SCHEMA))
        except (DamagedError, pl.exceptions.PolarsError) as error:
            if key not in self.damaged:
                _log.warning("ledger: segment %s is damaged and skipped; its rows are paid for again: %s", key, error)
            self.damaged.add(key)
            raise DamagedError(key) from error

    def read_whole(self, key: str) -> pl.DataFrame | None:
        """Read one segment; None where it vanished or is damaged."""
        try:
            return self.read(key)
        except DamagedError:
            return None

    def write(self, folder: str, rows: pl.DataFrame) -> str:
        """Make rows durable as one segment and return its key; a damaged object under that key is repaired."""
        data = _encode(rows)
        range_ = ""
        if folder.endswith(f"/{NEW}"):
            shelves = sorted(shelf_of(subject) for subject in rows["subjects"].list.first())
            range_ = f"{shelves[0]}-{shelves[-1]}-"
        key = f"{folder}/{range_}{hashlib.sha256(data).hexdigest()}.parquet"
        while not self.store.create(key, data):
            there = self.store.read(key)
            if there == data:
                break
            if there is not None:
                self.store.repair(key, data)
                break
        return key


def is_segment(key: str) -> bool:
    """Tell whether a key is that of a segment."""
    return _KEY.fullmatch(key) is not None


def folder_of(judge: str) -> str:
    """Return the folder of a judge's segments.

    Raises:
        ValueError: the judge's name is no path component.
    """
    if not _JUDGE.fullmatch(judge):
        raise ValueError(f"ledger: judge {judge!r} is no name of a folder; letters, digits, dot, dash and _ expected")
    return f"ledger/{judge}"


def touches(key: str, shelves: Collection[str]) -> bool:
    """Tell whether a segment may hold rows of these shelves."""
    parts = _KEY.fullmatch(key)
    if parts is None or parts["first"] is None:
        return parts is not None
    return any(parts["first"] <= shelf <= parts["last"] for shelf in shelves)


def shelf_of(subject: str) -> str:
    """Return the shelf of a row's first subject.

    Raises:
        ValueError: it is no hash.
    """
    if not _HASH.fullmatch(subject):
        raise ValueError(f"ledger: subject {subject!r} is no hash; hexadecimal digits in lower case expected")
    return subject[:2]


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
