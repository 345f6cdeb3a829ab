"""Write a table that need not fit in memory as one sorted parquet file."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from tasks.data.on_disk.scratch import Scratch
from tasks.data.on_disk.sorted_rows import SortedRows

_OLDEST = pl.CompatLevel.oldest()


def write_sorted(path: Path, frames: Iterable[pl.DataFrame], by: tuple[str, ...]) -> int:
    """Write the rows of frames of one schema as one parquet file, sorted by all columns; returns how many there are.

    The rows are sorted on disk, a piece at a time.

    Args:
        path: of the file.
        frames: at least one, which may be empty.
        by: the first columns, which hold texts without zero characters.
    """
    ordered, rows = SortedRows(Scratch(), path.stem, by), 0
    for frame in frames:
        ordered.add(frame)
        rows += frame.height
    # Rows that are equal in `by` are in one frame.
    _write(path, (frame.sort(pl.all()) for frame in ordered.frames()), ordered.empty)
    return rows


def _write(path: Path, frames: Iterator[pl.DataFrame], empty: pl.DataFrame) -> None:
    """Write one frame as polars does, and several as row groups of one file."""
    first, second = next(frames, empty), next(frames, None)
    if second is None:
        first.write_parquet(path)
        return
    schema = first.to_arrow(compat_level=_OLDEST).schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for frame in chain((first, second), frames):
            writer.write_table(frame.to_arrow(compat_level=_OLDEST))
