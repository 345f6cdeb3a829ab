"""Read the rows of CSV and TSV files below a header, each as an object of strings."""

import csv
from collections.abc import Iterator

from tasks.data.containers.kinds import SourceFile, delimiter_of
from tasks.lines import Problem, ReadLimits, read_lines

_QUOTE = '"'


def read_delimited(file: SourceFile, limits: ReadLimits) -> Iterator[tuple[str, dict[str, object]] | Problem]:
    """Yield `(file:line, object)` for each record; the line is its first. A record that does not fit is a problem.

    CSV has commas or semicolons, and fields in quotation marks may hold line breaks. In TSV a record is a line, and
    quotation marks count only around a whole field.
    """
    header: list[str] | None = None
    for item in _records(file, limits):
        if isinstance(item, Problem):
            yield item
            continue
        where, fields = item
        if header is None:
            header = [name.strip() for name in fields]
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                yield Problem(where, "bad_header", f"column {twice!r} comes twice; the last one is read")
        elif [name.strip() for name in fields] == header:
            yield Problem(where, "header_again", "the header comes again, as where files were put together; left out")
        elif len(fields) != len(header):
            detail = f"{len(fields)} columns, expected {len(header)} as in the header ({', '.join(header)})"
            yield Problem(where, "wrong_columns", detail[:300])
        else:
            yield where, dict(zip(header, fields, strict=True))


def _records(file: SourceFile, limits: ReadLimits) -> Iterator[tuple[str, list[str]] | Problem]:
    lines = read_lines(file.path, file.name, limits, blank=file.kind == "csv")
    if file.kind == "tsv":
        for item in lines:
            yield item if isinstance(item, Problem) else (item[0], [_unquoted(field) for field in item[1].split("\t")])
        return
    delimiter, pieces, size, where = "", list[str](), 0, ""
    for item in lines:
        if isinstance(item, Problem):
            yield item
            continue
        if not pieces and not item[1].strip():
            continue
        delimiter = delimiter or delimiter_of(item[1])
        where = where if pieces else item[0]
        pieces.append(item[1])
        size += len(item[1])
        if size > limits.line_bytes:
            detail = f"over {limits.line_bytes} characters up to here; a quotation mark is not closed"
            yield Problem(where, "row_too_long", detail)
            pieces, size = [], 0
        elif item[1].count(_QUOTE) % 2 == 0 if len(pieces) == 1 else item[1].count(_QUOTE) % 2:
            yield from _parsed(where, pieces, delimiter)
            pieces, size = [], 0
    if pieces:
        yield Problem(where, "broken_file", "a quotation mark that begins here is not closed up to the end of the file")


def _parsed(where: str, pieces: list[str], delimiter: str) -> Iterator[tuple[str, list[str]] | Problem]:
    csv.field_size_limit(max(csv.field_size_limit(), sum(map(len, pieces)) + len(pieces)))
    try:
        for fields in csv.reader([f"{piece}\n" for piece in pieces], delimiter=delimiter, strict=True):
            yield where, fields
    except csv.Error as error:
        yield Problem(where, "broken_row", str(error))


def _unquoted(field: str) -> str:
    """Take the quotation marks off a field that stands in them as a whole."""
    inner = field[1:-1]
    if len(field) > 1 and field[0] == field[-1] == _QUOTE and _QUOTE not in inner.replace(_QUOTE * 2, ""):
        return inner.replace(_QUOTE * 2, _QUOTE)
    return field
