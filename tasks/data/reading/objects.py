"""Read the objects of a file, one at a time, whatever kind of file holds them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tasks.data.containers.delimited import read_delimited
from tasks.data.containers.json_values import read_json
from tasks.data.containers.kinds import NotReadableError, SourceFile, source_file
from tasks.data.containers.tables import read_frames, read_table
from tasks.lines import Problem, ReadLimits, UnusableError, parse_object, read_lines, read_lines_within

__all__ = ["parsed", "read_frames", "read_objects", "read_objects_of_lines"]
_LIMITS = ReadLimits()
_Value = TypeVar("_Value")
_Record = TypeVar("_Record")


def read_objects(
    file: SourceFile | Path, limits: ReadLimits = _LIMITS
) -> Iterator[tuple[str, dict[str, object]] | Problem]:
    """Yield `(where, object)` for each object of a file.

    `where` is `file:line` for lines of text, and `file#row` (from 1) for JSON lists, parquet and Arrow. Values are
    those of JSON: strings, numbers, true and false, null, lists and objects.

    Args:
        file: one of `list_files`; or a path, whose kind is found out.
        limits: what is over them becomes a problem.
    """
    if isinstance(file, Path):
        try:
            file = source_file(file)
        except NotReadableError as error:
            yield Problem(file.name, "not_read", f"this is {error}")
            return
    if file.kind == "lines":
        yield from read_objects_of_lines(file, limits)
    elif file.kind == "json":
        yield from read_json(file, limits)
    elif file.kind in ("parquet", "arrow"):
        yield from read_table(file, limits)
    elif file.kind in ("csv", "tsv"):
        yield from read_delimited(file, limits)
    else:
        yield Problem(file.name, "not_read", "lines of columns between blanks, without names; objects are expected")


def read_objects_of_lines(
    file: SourceFile, limits: ReadLimits, within: range | None = None, before: int = 0
) -> Iterator[tuple[str, dict[str, object]] | Problem]:
    """Yield the objects of the lines. A broken last line without a line end says that the file was cut.

    within: bytes of the file; only the lines that begin there are read, numbered from `before` + 1. None: all.
    """
    if within is None:
        lines = read_lines(file.path, file.name, limits)
    else:
        lines = read_lines_within(file.path, file.name, limits, within, before)
    last: Problem | None = None
    for item in parsed(lines, lambda where, text: (where, parse_object(text, limits.depth))):
        if last is not None:
            yield last
        last = item if isinstance(item, Problem) and item.reason == "broken_json" else None
        if last is None:
            yield item
    if last is not None:
        is_end = within is None or within.stop >= file.path.stat().st_size
        cut = is_end and file.compression == "none" and not _ends_with_line_end(file.path)
        detail = f"the file ends in the middle of this line ({last.detail}); get or write it again"
        yield Problem(last.key, "broken_file", detail) if cut else last


def _ends_with_line_end(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2))  # two bytes, for UTF-16
        return b"\n" in file.read()


def parsed(
    items: Iterator[tuple[str, _Value] | Problem], parse: Callable[[str, _Value], _Record]
) -> Iterator[_Record | Problem]:
    """Parse the value of each line. A line that `parse` cannot use becomes a problem."""
    for item in items:
        if isinstance(item, Problem):
            yield item
            continue
        try:
            yield parse(*item)
        except UnusableError as error:
            yield Problem(item[0], error.reason, error.detail)
