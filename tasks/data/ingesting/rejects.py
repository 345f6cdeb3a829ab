"""The rejects of ingest, listed up to a limit; those beyond it are counted for each reason."""

from collections import Counter

import polars as pl

from tasks import schemas

_NAMED = dict.fromkeys(("key", "reason", "detail"), pl.String)


class Rejects:
    """Rows of `rejects` in the order in which they are added.

    counts: how many there are for each reason, listed or not.
    """

    def __init__(self, most: int) -> None:
        self.counts: Counter[str] = Counter()
        self._most = most
        self._listed = 0
        self._frames = [pl.DataFrame(schema=_NAMED)]
        self._more: Counter[str] = Counter()

    @property
    def room(self) -> int:
        """How many more are listed."""
        return self._most - self._listed

    def add(self, frame: pl.DataFrame) -> None:
        """Add rows with `key`, `reason` and `detail`."""
        self._count(frame["reason"])
        listed = frame.head(self.room).select(*_NAMED)
        self._frames.append(listed)
        self._listed += listed.height
        self._leave_out(frame["reason"].slice(listed.height))

    def count_only(self, reason: str, count: int) -> None:
        """Count rejects that there is no room to list."""
        if count:
            self.counts[reason] += count
            self._more[reason] += count

    def frame(self) -> pl.DataFrame:
        """Return the table: what is listed, then one row for each reason with more."""
        says = f"more are not listed (ingest.limits.rejects is {self._most})"
        rows = [("more", reason, f"{count} {says}") for reason, count in sorted(self._more.items())]
        every = pl.concat([*self._frames, pl.DataFrame(rows, schema=_NAMED, orient="row")])
        return every.select(stage=pl.lit("ingest"), **{name: pl.col(name) for name in _NAMED}).select(
            *schemas.REJECTS.columns
        )

    def _count(self, reasons: pl.Series) -> None:
        self.counts.update(dict(reasons.value_counts().iter_rows()))

    def _leave_out(self, reasons: pl.Series) -> None:
        self._more.update(dict(reasons.value_counts().iter_rows()))
