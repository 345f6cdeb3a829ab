"""Read one file of training rows, or one range of its lines, so that many are read at the same time.

An unchanged file is not read again: the key of a part covers the file, its name and the settings of the reader.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.data.layouts.fields import FieldNames, Format
from tasks.data.pieces.stored import RANGE, RANGES, WHOLE, frame_of
from tasks.data.reading.files import SourceFile, list_files
from tasks.data.reading.objects import parsed, read_objects_of_lines
from tasks.data.reading.records import BATCH_ROWS, Row, batch_of
from tasks.data.reading.rows import RowOptions, RowReader
from tasks.data.reading.source import batches_of_file
from tasks.data.reading.tuples import merged
from tasks.lines import Problem, ReadLimits, count_lines_within, is_utf8
from tasks.schemas import Schema

_MOST_BYTES = 768 * 2**20  # of the rows that a part reads, as frames in memory
# Which range of a file's bytes a part reads, of `count` that are equally long.
PIECE = Schema({"number": pl.UInt32, "count": pl.UInt32}, key=())


class ReadConfig(BaseModel):
    """The settings of ingest that decide how a file is read; the others leave what was read valid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["auto"] | Format = "auto"
    fields: FieldNames = FieldNames()
    positive_from: float | None = None
    limits: ReadLimits = ReadLimits()

    @property
    def options(self) -> RowOptions:
        """What the settings say of rows."""
        form = None if self.format == "auto" else self.format
        return RowOptions(form=form, names=self.fields, positive_from=self.positive_from, limits=self.limits)


class _LeftToIngestError(Exception):
    """A file cannot be read in parts; ingest reads it."""


@dataclass
class _Read:
    """What a part read. kind: `WHOLE` or `RANGE`. lines: how many begin in the range."""

    kind: str
    lines: int | None = None
    frames: list[pl.DataFrame] = field(default_factory=list)
    reader: RowReader | None = None

    def take(self, frames: Iterable[pl.DataFrame]) -> "_Read":
        """Keep frames.

        Raises:
            _LeftToIngestError: they are too large.
        """
        size = 0.0
        for frame in frames:
            self.frames.append(frame)
            size += frame.estimated_size()
            if size > _MOST_BYTES:
                raise _LeftToIngestError
        return self

    def table(self, name: str, number: int, count: int) -> pl.DataFrame:
        """Return a row of `RANGES`."""
        fields = None if self.reader is None or self.reader.fields is None else sorted(self.reader.fields)
        counts = {} if self.reader is None else self.reader.unread.keys
        unread = [{"key": key, "count": times} for key, times in counts.items()]
        of_range = {"file": name, "number": number, "count": count, "read": self.kind, "lines": self.lines}
        return pl.DataFrame([{**of_range, "unread": unread, "fields": fields}], schema=RANGES.columns)

    def given_up(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield the frames and hold none that was taken."""
        self.frames.reverse()
        while self.frames:
            yield 0, self.frames.pop()


def read_source(config: ReadConfig, *, file: Path, piece: pl.DataFrame) -> dict[str, Any]:
    """Read the rows of one file, or of a range of its bytes.

    Only a file with one JSON object a line can be cut: plain UTF-8, whose rows have ids of their queries. Part 0 reads
    any other file as a whole, and its other parts read nothing. What is too large for the memory of a part, and rows
    that the reader joins to one, are left to ingest. Lines are numbered within the range, as what lies before it is not
    read; `ReadApart` adds the lines of the ranges before.

    Args:
        config: how it is read.
        file: a folder that holds this file alone, under its name in the source.
        piece: which range (`PIECE`).

    Returns:
        `read`: frames of `tasks.data.pieces.stored.READ`, all with the index 0. `ranges`: a row of `RANGES`, if
        anything was read.
    """
    number, count = piece.row(0)
    files, _ = list_files(file)
    try:
        found = _read(files[0], config.options, number, count) if files else None
    except _LeftToIngestError:
        found = None
    if found is None:
        return {"ranges": RANGES.empty(), "read": iter(())}
    return {"ranges": found.table(files[0].name, number, count), "read": found.given_up()}


def _read(file: SourceFile, options: RowOptions, number: int, count: int) -> _Read | None:
    size = file.path.stat().st_size
    if count > 1 and size >= count and file.kind == "lines" and file.compression == "none" and is_utf8(file.path):
        _check_first_row(file, options, size // count)
        reader, start, end = RowReader(options), size * number // count, size * (number + 1) // count
        lines = count_lines_within(file.path, range(start, end))
        items = _items(file, reader, (start, end, size), lines)
        return _Read(RANGE, lines, reader=reader).take(
            _frames(merged(items, options.limits.passages), file.name, number)
        )
    if number:
        return None
    return _Read(WHOLE).take(frame_of(batch, file.name) for batch in batches_of_file(file, options))


def _check_first_row(file: SourceFile, options: RowOptions, end: int) -> None:
    """Raise `_LeftToIngestError` if the file's first row, which begins before a byte, has no id of its query."""
    objects = read_objects_of_lines(file, options.limits, range(end))
    for item in parsed(objects, RowReader(options).row):
        if isinstance(_named(item), Row):
            return


def _items(file: SourceFile, reader: RowReader, within: tuple[int, int, int], lines: int) -> Iterator[Row | Problem]:
    """Yield the rows of a range of bytes (start, end, size of the file), with what is left out up to the next row.

    lines: how many begin in the range. They are numbered from 1, and those behind it run on.

    What is left out before the first row goes with the range before, as the reader tells it before that range's last
    row (`merged`).

    Raises:
        _LeftToIngestError: a row may be continued by the next one; or nothing follows, so that the last line of the
            range may be the file's last.
    """
    (start, end, size), limits = within, reader.options.limits
    own = read_objects_of_lines(file, limits, range(start, end))
    begun = start == 0
    while not begun and (entry := next(own, None)) is not None:
        item = _tried(entry, reader, wanted=Row)
        if item is not None:
            begun = True
            yield _named(item)
    if not begun:
        return
    yield from map(_named, parsed(own, reader.row))
    if end == size:
        return
    entry = None
    for entry in read_objects_of_lines(file, limits, range(end, size), lines):
        item = _tried(entry, reader, wanted=Problem)
        if item is None:
            return
        yield item
    if entry is None:
        raise _LeftToIngestError


def _tried(
    entry: tuple[str, dict[str, object]] | Problem, reader: RowReader, wanted: type[Row | Problem]
) -> Row | Problem | None:
    """Parse a row; the reader learns of its fields only if what comes is `wanted`, else None is returned."""
    once = RowReader(reader.options)
    (item,) = parsed(iter([entry]), once.row)
    if not isinstance(item, wanted):
        return None
    reader.learn(once)
    return item


def _named(item: Row | Problem) -> Row | Problem:
    if isinstance(item, Row) and item.unnamed:
        raise _LeftToIngestError
    return item


def _frames(items: Iterable[Row | Problem], name: str, number: int) -> Iterator[pl.DataFrame]:
    """Collect rows and problems of range `number` into frames."""
    rows: list[Row] = []
    problems: list[Problem] = []
    at: list[int] = []
    for item in items:
        told = [item] if isinstance(item, Problem) else item.problems
        problems += told
        at += [len(rows)] * len(told)
        if isinstance(item, Row):
            rows.append(item)
        if len(rows) >= BATCH_ROWS:
            yield frame_of(batch_of(rows, problems), name, at, number)
            rows, problems, at = [], [], []
    if rows or problems:
        yield frame_of(batch_of(rows, problems), name, at, number)
