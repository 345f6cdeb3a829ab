"""Tables that a function reads part by part, and whole ones that are given instead."""

from dataclasses import dataclass

import polars as pl

from tasks.protocols import InParts

Rows = pl.DataFrame | InParts


@dataclass(frozen=True)
class Whole:
    """A frame as a table in parts: its one part, whatever it is called."""

    frame: pl.DataFrame
    parts: tuple[int, ...] = (0,)

    def at(self, part: int) -> pl.DataFrame:
        """Return the frame."""
        del part
        return self.frame


def in_parts(table: Rows) -> InParts:
    """Return a table as one in parts."""
    return Whole(table) if isinstance(table, pl.DataFrame) else table
