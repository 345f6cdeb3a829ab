"""Rows that are sorted on disk: they may be many times as large as the memory that it takes to read them in order."""

import math
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

import polars as pl

from tasks.data.on_disk.scratch import Scratch, Spill

PIECE_BYTES = 64 * 2**20  # rows that are sorted at a time; a single key may have more
_RANGES = 64  # most files that rows are distributed over at a time
_SAMPLED = 16_384  # keys that are kept, to know where to cut


class SortedRows:
    """Rows of one schema: append them in any order, and read them sorted by some columns, as often as wanted.

    Rows of more than PIECE_BYTES are cut into ranges of their keys, each a file of its own. Where to cut follows from a
    sample of the keys. A range that is still too large is cut again.

    Args:
        scratch: the folder for the files.
        name: of the files; no other table of the folder may have it.
        by: columns of texts without zero characters.
        distinct: keep one row of each key.
    """

    def __init__(self, scratch: Scratch, name: str, by: tuple[str, ...], *, distinct: bool = False) -> None:
        self._scratch, self._name, self._by, self._distinct = scratch, name, by, distinct
        self._spill = Spill(scratch, name)
        self._empty: pl.DataFrame | None = None
        self._sample, self._step, self._rows = [pl.Series("key", [], pl.String)], 1, 0
        self._ranges: list[SortedRows] = []

    @property
    def empty(self) -> pl.DataFrame:
        """A frame of the rows' schema without rows; a frame must have been added, if only an empty one."""
        assert self._empty is not None
        return self._empty

    def add(self, frame: pl.DataFrame) -> None:
        """Append rows. Nothing can be added any more after rows were read."""
        if self._empty is None:
            self._empty = frame.clear()
        self._spill.append(frame)
        first = -self._rows % self._step
        self._sample.append(self._keys(frame).gather_every(self._step, first))
        self._rows += frame.height
        if sum(map(len, self._sample)) > 2 * _SAMPLED:
            self._sample = [pl.concat(self._sample).gather_every(2)]
            self._step *= 2

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, in frames of at most about PIECE_BYTES."""
        if not self._ranges and self._spill.bytes > PIECE_BYTES:
            self._cut()
        if self._ranges:
            for part in self._ranges:
                yield from part.frames()
            return
        rows = pl.concat(self._spill.frames()).sort(self._by) if self._spill.rows else None
        if rows is not None:
            yield rows.unique(self._by, keep="first", maintain_order=True) if self._distinct else rows

    def _keys(self, frame: pl.DataFrame) -> pl.Series:
        """Return one text for each row. The texts stand in the same order as the rows."""
        return frame.select(key=pl.concat_str(self._by, separator="\0")).to_series()

    def _cut(self) -> None:
        """Distribute the rows over ranges, unless all have the same key."""
        sample = pl.concat(self._sample).sort()
        count = min(_RANGES, math.ceil(2 * self._spill.bytes / PIECE_BYTES))
        found = {sample[len(sample) * number // count] for number in range(1, count)}
        bounds = sorted(found - {sample[0]})
        if not bounds:
            return
        parts = [
            SortedRows(self._scratch, f"{self._name}.{number}", self._by, distinct=self._distinct)
            for number in range(len(bounds) + 1)
        ]
        for frame in self._spill.frames():
            ordered = self._keys(frame).to_frame().with_row_index("row").sort("key")
            keys, row = ordered["key"].to_list(), ordered["row"]
            starts = [0, *(bisect_left(keys, bound) for bound in bounds), len(keys)]
            for part, (start, stop) in zip(parts, pairwise(starts), strict=True):
                if stop > start:
                    part.add(frame[row[start:stop]])
        self._spill.remove()
        self._sample, self._ranges = [], parts
