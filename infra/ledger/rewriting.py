"""Takes rows out of a segment: what stays is durable in another segment before the old one is removed."""

from collections.abc import Callable

import polars as pl

from infra.ledger.compaction import slices
from infra.ledger.segments import Opened, Segments

Mask = Callable[[pl.DataFrame], pl.Series]


def count_in(segments: Segments, key: str, chosen: Mask) -> tuple[int, int]:
    """Count the chosen rows of a segment, and all its rows; both are 0 where it vanished.

    Raises:
        DamagedError: it cannot be read.
    """
    opened = segments.open(key)
    return (0, 0) if opened is None else _count(segments, opened, chosen)


def take_out(segments: Segments, key: str, chosen: Mask, remove: Callable[[str], None]) -> tuple[int, str]:
    """Take the chosen rows out of a segment; it is read once, and a slice of its rows is decoded at a time.

    remove: called with the key once the other rows are durable.

    Returns:
        How many rows that were, and the key of the segment with the others; "" if there is none.

    Raises:
        DamagedError: it cannot be read.
    """
    opened = segments.open(key)
    found, rows = (0, 0) if opened is None else _count(segments, opened, chosen)
    if opened is None or not found:
        return 0, ""
    kept = ""
    if found < rows:
        others = (held.filter(~chosen(held)) for held in slices([opened], None, segments.slice_rows))
        kept, _ = segments.write_sorted(key.rpartition("/")[0], others)
    remove(key)
    return found, kept


def _count(segments: Segments, opened: Opened, chosen: Mask) -> tuple[int, int]:
    found = rows = 0
    for held in slices([opened], None, segments.slice_rows):
        found += int(chosen(held).sum())
        rows += held.height
    return found, rows
