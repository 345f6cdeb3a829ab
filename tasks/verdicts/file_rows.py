"""Cut the rows of a file of verdicts into those of each query part, so that a part need not read the whole file."""

import math
from collections.abc import Iterator, Sequence

import polars as pl

ROWS_AT_ONCE = 1_000_000  # rows of the file in memory, and about as many that are kept of it


def cut_rows(table: pl.LazyFrame, names: pl.DataFrame, key: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the rows of each part, with its number; a part without a row is left out.

    Args:
        table: the file.
        names: the columns of `key`, `part` (Int32), and columns that are added to the rows. A row of the file comes
            once for each row of `names` with its key, so a row whose key is not there belongs to no part.
        key: the columns by which rows are found.

    Yields:
        Part numbers, rising, each with the columns of the file and those of `names` without `part`. The order of its
        rows is that of the file.
    """
    passes = math.ceil(table.select(pl.len()).collect().item() / ROWS_AT_ONCE)
    parts = names["part"].unique().sort()
    width = max(1, math.ceil(parts.len() / max(1, passes)))
    for begin in range(0, parts.len(), width):
        wanted = names.filter(pl.col("part").is_in(parts.slice(begin, width).implode()))
        found = pl.concat(rows.join(wanted, on=key, maintain_order="left_right") for rows in slices(table))
        for (part,), rows in sorted(found.partition_by("part", as_dict=True, maintain_order=True).items()):
            yield part, rows.drop("part")


def slices(table: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield a file in pieces of `ROWS_AT_ONCE` rows; at least one, which may be empty."""
    count = table.select(pl.len()).collect().item()
    for begin in range(0, max(1, count), ROWS_AT_ONCE):
        yield table.slice(begin, ROWS_AT_ONCE).collect()
