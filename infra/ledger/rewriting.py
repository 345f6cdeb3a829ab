"""Takes rows out of a segment: what stays is durable in another segment before the old one is removed."""

from collections.abc import Callable

import polars as pl

from infra.ledger.compaction import slices
from infra.ledger.segments import Segments

Mask = Callable[[pl.DataFrame], pl.Series]


def count_in(segments: Segments, key: str, chosen: Mask) -> tuple[int, int]:
    """Count the chosen rows of a segment, and all its rows; both are 0 where it vanished.

    Raises:
        DamagedError: it cannot be read.
    """
    opened, found, rows = segments.open(key), 0, 0
    if opened is not None:
        for held in slices([opened], None, segments.slice_rows):
            found += int(chosen(held).sum())
            rows += held.height
    return found, rows


def take_out(segments: Segments, key: str, chosen: Mask, remove: Callable[[str], None]) -> tuple[int, str]:
    """Take the chosen rows out of a segment; a slice of the rows is in memory at a time.

    remove: called with the key once the other rows are durable.

    Returns:
        How many rows that were, and the key of the segment with the others; "" if there is none.

    Raises:
        DamagedError: it cannot be read.
    """
    found, rows = count_in(segments, key, chosen)
    if not found:
        return 0, ""
    kept = "" if found == rows else _write_others(segments, key, chosen)
    remove(key)
    return found, kept


def _write_others(segments: Segments, key: str, chosen: Mask) -> str:
    opened = segments.open(key)
    if opened is None:
        return ""  # another process took it away meanwhile, with its own copy of the rest
    left = (held.filter(~chosen(held)) for held in slices([opened], None, segments.slice_rows))
    return segments.write_sorted(key.rpartition("/")[0], left)[0]
