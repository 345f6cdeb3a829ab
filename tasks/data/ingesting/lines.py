"""Where each record stands in the source. Only rejects name these places, so they are kept on disk."""

import numpy as np
import polars as pl

from tasks.data.on_disk.scratch import Scratch, Spill


class Lines:
    """Places (`file:line`) of records, numbered from 0."""

    def __init__(self, scratch: Scratch) -> None:
        self._spill = Spill(scratch, "lines")

    @property
    def count(self) -> int:
        """How many there are: the number of the next one."""
        return self._spill.rows

    def add(self, places: pl.Series) -> pl.Series:
        """Number some places; returns their numbers."""
        first = self.count
        self._spill.append(pl.DataFrame({"where": places}, schema={"where": pl.String}))
        return pl.Series("line", np.arange(first, self.count, dtype=np.uint32))

    def names(self, numbers: pl.Series) -> pl.Series:
        """Return the places of some numbers."""
        wanted = np.unique(numbers.cast(pl.UInt32).to_numpy())
        found = [pl.DataFrame(schema={"line": pl.UInt32, "where": pl.String})]
        if wanted.size:
            start = 0
            for frame in self._spill.frames():
                low, high = np.searchsorted(wanted, [start, start + frame.height])
                here = wanted[low:high]
                found.append(pl.DataFrame({"line": here, "where": frame["where"].gather(here - start)}))
                start += frame.height
        asked = pl.DataFrame({"line": numbers.cast(pl.UInt32)})
        return asked.join(pl.concat(found), on="line", how="left", maintain_order="left")["where"]
