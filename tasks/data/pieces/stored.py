"""Batches of rows as frames in the store: written where a file is read, and read by ingest in the same order.

Ingest gets the very batches that it would get from the file, so what it makes of them is equal to the byte. A frame
holds a line for each row and one for each problem. Of a file that one part read, a frame is a batch. Of a file whose
ranges were read by several parts, batches are cut anew: they follow from the number of the rows before. Its lines are
numbered within each range, and get their numbers in the file from the lines of the ranges before.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain

import polars as pl

from tasks.data.layouts.fields import Unread
from tasks.data.reading.records import BATCH_ROWS, EXTRAS, PASSAGES, ROWS, Batch, batch_of
from tasks.data.reading.rows import RowOptions, problems_of_fields
from tasks.lines import Problem
from tasks.schemas import Schema

_PASSAGE = pl.Struct({name: dtype for name, dtype in PASSAGES.items() if name != "row"})
_EXTRA = pl.Struct({name: dtype for name, dtype in EXTRAS.items() if name != "row"})
_PROBLEM = pl.Struct(dict.fromkeys(("key", "reason", "detail"), pl.String))
_COUNT = pl.Struct({"key": pl.String, "count": pl.UInt32})
# A line with a `problem` is no row; `at` is the row of the frame with whose batch it goes, or the row's own number.
# `number` is that of the range.
READ = Schema(
    {
        "file": pl.String,
        "number": pl.UInt32,
        "at": pl.UInt32,
        **{name: dtype for name, dtype in ROWS.items() if name != "row"},
        "passages": pl.List(_PASSAGE),
        "extras": pl.List(_EXTRA),
        "repeats": pl.List(pl.String),
        "problem": _PROBLEM,
    },
    key=(),
    nullable=frozenset({"where", "dataset", "query_id", "query", "passages", "extras", "repeats", "problem"}),
)
# What was read of one range of a file, of `count`; a `range` that was read apart, or the `whole` file. A file of which
# any range is missing is not taken from here. `lines` begin in a range; null for a whole file. `unread` counts fields
# that nobody reads; `fields` are those of its rows.
RANGES = Schema(
    {
        "file": pl.String,
        "number": pl.UInt32,
        "count": pl.UInt32,
        "read": pl.String,
        "lines": pl.UInt32,
        "unread": pl.List(_COUNT),
        "fields": pl.List(pl.String),
    },
    key=("file", "number"),
    nullable=frozenset({"lines", "fields"}),
)
WHOLE, RANGE = "whole", "range"


def frame_of(batch: Batch, name: str, at: Sequence[int] | None = None, number: int = 0) -> pl.DataFrame:
    """Return a batch of a file, or of its range `number`, as a frame of `READ`; `at` is that of each problem."""
    rows = batch.rows.select(*ROWS)
    for listed in (_listed(batch.passages, "passages"), _listed(batch.extras, "extras")):
        rows = rows.join(listed, "row", how="left", maintain_order="left")
    repeats = [batch.repeats.get(number) for number in rows["row"].to_list()]
    rows = rows.with_columns(repeats=pl.Series(repeats, dtype=pl.List(pl.String)), problem=pl.lit(None, _PROBLEM))
    problems = [{"key": one.key, "reason": one.reason, "detail": one.detail} for one in batch.problems]
    places = pl.Series([0] * len(problems) if at is None else at, dtype=pl.UInt32)
    said = pl.DataFrame({"at": places, "problem": pl.Series(problems, dtype=_PROBLEM)})
    every = pl.concat([rows.rename({"row": "at"}), said], how="diagonal")
    return every.with_columns(file=pl.lit(name), number=pl.lit(number, pl.UInt32)).select(*READ.columns)


def batch_of_frame(frame: pl.DataFrame) -> Batch:
    """Return the batch that a frame of `READ` holds: the opposite of `frame_of`."""
    rows = frame.filter(~_is_problem()).with_row_index("row")
    problems = frame.filter(_is_problem())["problem"].struct.unnest()
    repeats = rows.filter(pl.col("repeats").is_not_null()).select("row", "repeats")
    return Batch(
        rows=rows.select(*ROWS),
        passages=_exploded(rows, "passages").select(*PASSAGES),
        extras=_exploded(rows, "extras").select(*EXTRAS),
        problems=[Problem(*said) for said in problems.select("key", "reason", "detail").iter_rows()],
        repeats=dict(repeats.iter_rows()),
    )


class ReadApart:
    """The batches of files that were read before, to be taken file by file, in the order of the files.

    files: how many files were taken.
    """

    def __init__(self, ranges: pl.DataFrame, frames: Iterable[pl.DataFrame], options: RowOptions) -> None:
        """Begin; nothing is read yet.

        Args:
            ranges: of all files, as `RANGES`.
            frames: of all files, as `READ`, in the order of the files and their ranges; each is read when it is needed.
            options: with which the files were read.
        """
        self.files = 0
        self._ranges, self._options = ranges.sort("file", "number"), options
        self._frames = iter(frames)
        self._next: pl.DataFrame | None = None
        self._begun = False

    def batches(self, name: str) -> Iterator[Batch] | None:
        """Return the batches of the file `name`; None if it was not read before. Files before it are passed over."""
        ranges = self._ranges.filter(file=name)
        kinds = set(ranges["read"])
        if ranges.is_empty() or kinds not in ({WHOLE}, {RANGE}) or (kinds == {RANGE} and not _is_complete(ranges)):
            return None
        self.files += 1
        frames = self._of_file(name)
        return map(batch_of_frame, frames if kinds == {WHOLE} else self._cut_anew(name, frames, ranges))

    def _of_file(self, name: str) -> Iterator[pl.DataFrame]:
        wanted = name.split("/")
        if not self._begun:
            self._begun = True
            self._go_on()
        while self._next is not None and _name_of(self._next).split("/") < wanted:
            self._go_on()
        while self._next is not None and _name_of(self._next) == name:
            yield self._next
            self._go_on()

    def _go_on(self) -> None:
        self._next = next(self._frames, None)

    def _cut_anew(self, name: str, frames: Iterator[pl.DataFrame], ranges: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Put the frames of all ranges of a file together to batches, with what is told at the end of the file."""
        before = number = 0
        kept: list[pl.DataFrame] = []
        lines = list(accumulate(ranges["lines"], initial=0))  # before each range
        numbered = (_moved(frame, name, lines[frame["number"][0]]) for frame in frames)
        for frame in chain(numbered, [self._end(name, ranges)]):
            marked = frame.with_columns(batch=(pl.col("at") + before) // BATCH_ROWS)
            before += frame.filter(~_is_problem()).height
            for batch in marked["batch"].unique().sort():
                if kept and batch != number:
                    yield pl.concat(kept)
                    kept = []
                number = batch
                kept.append(marked.filter(batch=batch).drop("batch"))
        if kept:
            yield pl.concat(kept)

    def _end(self, name: str, ranges: pl.DataFrame) -> pl.DataFrame:
        """Return what is told at the end of a file: fields that are not read, or that the settings name in vain."""
        unread = Unread()
        for counts in ranges["unread"]:
            for count in counts:
                unread.keys[count["key"]] += count["count"]
        known = ranges["fields"].drop_nulls()
        there = {field for fields in known for field in fields} if len(known) else None
        problems = list(problems_of_fields(name, unread, there, self._options.names))
        return frame_of(batch_of([], problems), name)


def _moved(frame: pl.DataFrame, name: str, lines: int) -> pl.DataFrame:
    """Raise the numbers of lines in the places of rows and problems. Rows of ranges are not joined: none repeats."""
    key = _raised(pl.col("problem").struct.field("key"), name, lines).alias("key")
    return frame.with_columns(
        where=_raised(pl.col("where"), name, lines), problem=pl.col("problem").struct.with_fields(key)
    )


def _raised(place: pl.Expr, name: str, lines: int) -> pl.Expr:
    """Raise the number in `name:number`; other text stays."""
    line = place.str.strip_prefix(f"{name}:")
    raised = pl.format("{}:{}", pl.lit(name), line.cast(pl.UInt64, strict=False) + lines)
    return pl.when(place.str.starts_with(f"{name}:") & line.str.contains(r"^\d+$")).then(raised).otherwise(place)


def _is_complete(ranges: pl.DataFrame) -> bool:
    return ranges["number"].to_list() == list(range(ranges["count"][0]))


def _is_problem() -> pl.Expr:
    return pl.col("problem").struct.field("key").is_not_null()


def _name_of(frame: pl.DataFrame) -> str:
    return str(frame["file"][0])


def _listed(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return one list of structs for each row that has any."""
    fields = [field for field in frame.columns if field != "row"]
    return frame.group_by("row", maintain_order=True).agg(pl.struct(*fields).alias(name))


def _exploded(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the structs of all rows, each with the number of its row."""
    return rows.select("row", name).filter(pl.col(name).list.len() > 0).explode(name).unnest(name)
