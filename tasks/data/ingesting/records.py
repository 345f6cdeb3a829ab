"""What is read of a source: queries and passages by number, references between them, and how rejects are sorted."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from tasks.data.ingesting.lines import Lines
from tasks.data.ingesting.rejects import Rejects
from tasks.data.on_disk.scratch import Spill
from tasks.lines import Problem

# Queries (one for each id): `line` of the first record, `rows`: how many records have it. `named`: the last split whose
# judgements name it, or null.
QUERIES = {
    "number": pl.UInt32,
    "dataset": pl.String,
    "id": pl.String,
    "text": pl.String,
    "text_hash": pl.String,
    "line": pl.UInt32,
    "rows": pl.UInt32,
    "named": pl.String,
}
# Passages (one for each id): `place` is the row of the scratch file that holds its text.
PASSAGES = {
    "number": pl.UInt32,
    "dataset": pl.Categorical,
    "id": pl.String,
    "high": pl.UInt64,
    "low": pl.UInt64,
    "line": pl.UInt32,
    "place": pl.UInt32,
}
# A reference from a query to a passage. `value`: a relevance, or a score (null where there is none).
PAIRS = {"query": pl.UInt32, "passage": pl.UInt32, "line": pl.UInt32, "value": pl.Float64}
# A judgement of a passage that the corpus does not hold.
ABSENT = {"query": pl.UInt32, "doc_id": pl.String, "value": pl.Float64}
EXTRAS = {"query": pl.UInt32, "name": pl.String, "value": pl.String}
# Rejects found while reading: sorted by `line`, then `step`, then `at`.
_FOUND = {
    "line": pl.UInt32,
    "step": pl.Int8,
    "at": pl.UInt32,
    "key": pl.String,
    "reason": pl.String,
    "detail": pl.String,
}
READER, QUERY_ID, POSITIVE, NO_POSITIVE, QUERY, NEGATIVE = range(-1, 5)  # steps of one record


@dataclass
class Records:
    """A source, read: each text under its first id, references as numbers.

    corpus: passages came without rows. absent: by split, judgements of passages that the corpus does not hold.
    """

    lines: Lines
    texts: Spill
    rejects: Rejects
    queries: pl.DataFrame
    passages: pl.DataFrame
    labels: Mapping[str, pl.DataFrame]
    negatives: pl.DataFrame
    known: pl.DataFrame
    scores: pl.DataFrame
    extras: pl.DataFrame
    corpus: bool
    facts: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[str, pl.DataFrame] = field(default_factory=dict)


def empty(schema: Mapping[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    """Return a frame without rows."""
    return pl.DataFrame(schema=dict(schema))


class Found:
    """Rejects that are found while reading, put into the order of the records at the end."""

    def __init__(self, lines: Lines, rejects: Rejects) -> None:
        self._lines, self._rejects = lines, rejects
        self._frames = [empty(_FOUND)]
        self._problems = 0

    def problems(self, problems: list[Problem]) -> None:
        """Add what the reader left out before the next line."""
        room = max(0, self._rejects.room - self._problems)
        for problem in problems[room:]:
            self._rejects.count_only(problem.reason, 1)
        rows = [(self._lines.count, READER, n, p.key, p.reason, p.detail) for n, p in enumerate(problems[:room])]
        self._problems += len(rows)
        if rows:
            self._frames.append(pl.DataFrame(rows, schema=_FOUND, orient="row"))

    def add(self, frame: pl.DataFrame, step: int | pl.Expr, reason: str, detail: pl.Expr) -> None:
        """Add rows with `line`; and, where they are there, `at` and `key` (else the place of the line)."""
        if frame.is_empty():
            return
        if "key" not in frame.columns:
            frame = frame.with_columns(key=self._lines.names(frame["line"]))
        at = pl.col("at") if "at" in frame.columns else pl.lit(0)
        step = pl.lit(step) if isinstance(step, int) else step
        made = frame.select("line", step=step, at=at, key="key", reason=pl.lit(reason), detail=detail)
        self._frames.append(made.cast(pl.Schema(_FOUND)))

    def conflicts(self, frame: pl.DataFrame, step: int | pl.Expr) -> None:
        """Add records (`line`, `id`) whose id has another text on the line `first`."""
        if not frame.is_empty():
            frame = frame.with_columns(first=self._lines.names(frame["first"]))
            says = pl.format("id {} has another text at {}, which is kept", "id", "first")
            self.add(frame, step, "id_conflict", says)

    def cuts(self, frame: pl.DataFrame, step: int | pl.Expr, reason: str, longest: int) -> None:
        """Add texts (`line`, `dataset`, `id`) whose `length` is not null: they were cut."""
        frame = frame.filter(pl.col("length").is_not_null())
        frame = frame.with_columns(key=pl.format("{}/{}", pl.col("dataset").cast(pl.String), "id"))
        self.add(frame, step, reason, pl.format("{} characters long, cut to {}", "length", pl.lit(longest)))

    def finish(self) -> None:
        """Hand all of them over, in order."""
        every = pl.concat(self._frames).sort("line", "step", "at", maintain_order=True)
        self._rejects.add(every)
