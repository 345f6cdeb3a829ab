"""Tell what kind of file another person's file is. Its first bytes decide, not its ending."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.lines import as_utf8
from tasks.packed import BrokenPackingError, Packing, open_unpacked, packing_of

Kind = Literal["lines", "json", "parquet", "arrow", "csv", "tsv", "columns"]
HEAD = 2**16  # bytes of a file, unpacked, that are looked at
_COLUMNS = range(3, 7)  # of qrels and runs
_NAMES = 2**20  # bytes of a zip file in which names of members are looked for
_SAMPLE = 20  # lines that must look alike
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_POINTER = "version https://git-lfs.github.com/spec/"
_WRAPPERS = b"data|rows|items|examples|instances|records|samples|entries|train"
# Steps through JSON: a list of objects with one of these names, another string, a bracket.
_STEPS = re.compile(rb'"(?P<list>' + _WRAPPERS + rb')"\s*:\s*\[(?=\s*\{)|"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
# What a file begins with (a regular expression), what that is, and what to do.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (rb"%PDF-", "a PDF document; give the texts as JSON lines"),
    (rb"SQLite format 3\0", "an SQLite database; export its table as CSV or parquet"),
    (rb"\x93NUMPY", "a NumPy array; give texts as JSON lines or parquet"),
    (rb"\x89HDF\r\n", "an HDF5 file; save it as parquet"),
    (rb"\x80[\x02-\x05]", "a Python pickle, which can run programs; save it as parquet or JSON lines"),
    (rb"FEA1", "a Feather file of version 1; save it as parquet"),
    (rb"ORC[^ -~]", "an ORC file; save it as parquet"),
    (rb"Obj\x01", "an Avro file; save it as parquet"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (rb"Rar!\x1a\x07", "a RAR archive; unpack it"),
    (rb"\x04\x22\x4d\x18", "packed with lz4; unpack it, or pack it with gzip or zstd"),
    (rb"\xff\x06\x00\x00sNaPpY", "packed with snappy; unpack it, or pack it with gzip or zstd"),
    (rb"\xd0\xcf\x11\xe0", "an old Office document; save the table as CSV"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8[79]a", "an image"),
)
_ZIPS: tuple[tuple[bytes, str], ...] = (  # names inside, what the file is
    (rb"xl/", "an Excel workbook; save the table as CSV"),
    (rb"word/", "a Word document; give the texts as JSON lines"),
    (rb"\.npy", "an archive of NumPy arrays; give texts as JSON lines or parquet"),
    (rb"data\.pkl", "a PyTorch checkpoint; give texts as JSON lines or parquet"),
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source that can be read.

    Attributes:
        path: where it is.
        name: its path below the source's folder, with `/`.
        kind: `lines` (one JSON object a line), `json` (a JSON list, or objects over several lines), `parquet`,
            `arrow` (file or stream), `csv`, `tsv` (with or without a header), `columns` (lines of three to six
            columns between blanks, such as qrels and runs).
        compression: how it is packed; that of parquet and Arrow is inside, so they have `none`.
    """

    path: Path
    name: str
    kind: Kind
    compression: Packing = "none"


class NotReadableError(ValueError):
    """A file is of a kind that is not read. The message says what it is and what to do, after "this is".

    archive: `zip` or `tar` if it is an archive of files.
    """

    def __init__(self, message: str, archive: str | None = None) -> None:
        super().__init__(message)
        self.archive = archive


def source_file(path: Path, name: str | None = None) -> SourceFile:
    """Look into a file and tell its kind.

    An empty file has the kind `lines`, and so has a text in which nothing is recognised but whose ending is `.jsonl`,
    `.ndjson` or `.json`: its reader reports each line.

    Raises:
        NotReadableError: it is of a kind that is not read.
    """
    shown = path.name if name is None else name
    with path.open("rb") as file:
        first = file.read(HEAD)
        if first.startswith(b"PAR1"):
            return SourceFile(path, shown, "parquet")
        if first.startswith((b"ARROW1\0\0", b"\xff\xff\xff\xff")):
            return SourceFile(path, shown, "arrow")
    _refuse(first, path)
    with open_unpacked(path) as (stream, packing):
        try:
            text = as_utf8(stream)
            head = text.read(HEAD) if packing == "none" else _read_some(text)
        except (BrokenPackingError, UnicodeDecodeError):
            return SourceFile(path, shown, "lines", packing)  # its reader reports what is broken
    if packing != "none":
        if head.startswith((b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff")):
            raise NotReadableError(f"a parquet or Arrow file that was packed with {packing} as a whole; unpack it")
        _refuse(head, path, packed=True)
    return SourceFile(path, shown, kind_of_text(head, path.name), packing)


def _read_some(stream: object) -> bytes:
    """Read the head of a packed file, up to where it breaks: what comes before is read, so its kind must be known."""
    head = b""
    try:
        while len(head) < HEAD and (piece := stream.read1(HEAD - len(head))):  # type: ignore[attr-defined]
            head += piece
    except BrokenPackingError:
        if not head:
            raise
    return head


def kind_of_text(head: bytes, name: str) -> Kind:
    """Tell the kind of a text from its first 64 KiB.

    Raises:
        NotReadableError: nothing that is read was recognised.
    """
    whole = len(head) < HEAD
    text = head.decode(errors="replace").removeprefix("\ufeff")
    lines = [line for line in text.split("\n")[: None if whole or "\n" not in text else -1] if line.strip()]
    start = text.lstrip()
    if not start:
        return "lines"
    if start.startswith("["):
        return "json"
    if start.startswith("{"):
        return _json_kind(lines, start)
    table = _table_kind(lines, whole=whole)
    if table is not None:
        return table
    if any(line.lstrip().startswith("{") for line in lines) or re.search(r"\.(jsonl?|ndjson)\b", name.lower()):
        return "lines"
    raise NotReadableError(
        "a text that is neither JSON nor a table with a header; give JSON lines, a JSON list, CSV, TSV, parquet or "
        f"Arrow. It begins with {start[:40]!r}"
    )


def _json_kind(lines: Sequence[str], start: str) -> Kind:
    """Tell one object a line from objects over several lines, and from one object around a list of rows."""
    over_lines = len(lines) > 1 and not _is_object(lines[0]) and not lines[1].lstrip().startswith("{")
    around = (len(lines) == 1 or not any(map(_is_object, lines[:_SAMPLE]))) and wrapped_list(start.encode())
    return "json" if over_lines or around else "lines"


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def wrapped_list(head: bytes) -> str | None:
    """Return the name of the list of rows that an object holds; None if the object is a row itself.

    The list has one of a few names, and holds objects. It must begin within `head`.

    >>> wrapped_list(b'{"version": 1, "data": [{"query": "q"}]}'), wrapped_list(b'{"query": "q", "pos": [{}]}')
    ('data', None)
    """
    depth = 0
    for match in _STEPS.finditer(head):
        if match["list"] and depth == 1:
            return match["list"].decode()
        depth += 1 if match["list"] or match[0] in b"{[" else -1 if match[0] in b"}]" else 0
    return None


def delimiter_of(header: str) -> str:
    """Return what separates the columns of a header: a tab, a comma or a semicolon."""
    return "\t" if "\t" in header else max(",;", key=header.count)


def _table_kind(lines: Sequence[str], *, whole: bool) -> Kind | None:
    """Tell tables: tabs, commas or semicolons below a header, or three to six columns between blanks."""
    sample = lines[:_SAMPLE]
    if not sample:
        return None
    if all("\t" in line for line in sample):
        return "tsv"
    widths = {len(line.split()) for line in sample}
    if len(widths) == 1 and widths.pop() in _COLUMNS and all(_has_number(line) for line in sample[1:] or sample):
        return "columns"
    delimiter = delimiter_of(sample[0])
    if delimiter not in sample[0]:
        return None
    try:
        records = list(csv.reader([f"{line}\n" for line in lines], delimiter=delimiter))
    except csv.Error:
        return None
    records = records if whole else records[:-1] or records
    header = records[0]
    names = all(re.fullmatch(r"[^\W\d][\w .\-]{0,60}", name.strip()) for name in header) and len(set(header)) > 1
    alike = 2 * sum(len(one) == len(header) for one in records) > len(records)
    return "csv" if (names or all(_has_number(line, delimiter) for line in sample)) and alike else None


def _has_number(line: str, delimiter: str | None = None) -> bool:
    return any(re.fullmatch(r'"?[+-]?\d+(\.\d+)?(e[+-]?\d+)?"?', field.strip()) for field in line.split(delimiter))


def _refuse(head: bytes, path: Path, *, packed: bool = False) -> None:
    """Refuse what is no data, by its first bytes.

    Raises:
        NotReadableError: with what it is, and what to do.
    """
    text = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").decode(errors="replace").lower()
    if text.startswith(_POINTER):
        raise NotReadableError("a Git LFS pointer, not the file; run `git lfs pull`")
    if text.startswith("/annex/objects/"):
        raise NotReadableError("a git-annex pointer, not the file; run `git annex get`")
    if text.startswith(("<!doctype html", "<html", "<head", "<body")):
        raise NotReadableError("an HTML page, perhaps of an error or a login; download the file itself")
    if text.startswith("<?xml"):
        raise NotReadableError("XML; give the rows as JSON lines or CSV")
    _refuse_archive(head, path)
    for magic, what in _MAGIC:
        if re.match(magic, head):
            raise NotReadableError(what)
    plain = packed or packing_of(head) == "none"
    if plain and not head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")) and _CONTROL.search(head):
        raise NotReadableError("a binary file of an unknown kind; give JSON lines, CSV, parquet or Arrow")


def _refuse_archive(head: bytes, path: Path) -> None:
    if head[257:262] == b"ustar":
        raise NotReadableError("a tar archive; unpack it, or set source.path to tar://::<path of the archive>", "tar")
    if not head.startswith(b"PK\x03\x04"):
        return
    with path.open("rb") as file:
        names = file.read(_NAMES)
    what = next((what for mark, what in _ZIPS if re.search(mark, names)), None)
    if what:
        raise NotReadableError(what)
    raise NotReadableError("a zip archive; unpack it, or set source.path to zip://::<path of the archive>", "zip")
