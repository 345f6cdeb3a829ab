"""The search for a text in whatever a file of a store may be: tables, packed files, plain files.

A text is found by content: the hash or the text in any column of strings, however deep; in packed files and in plain
files as it is, or escaped as in JSON, HTML or CSV.
"""

import html
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import polars as pl
import pyarrow as pa

from infra.packed import MARKS, as_utf8, open_packed

_SHORT = 24  # characters; a shorter text is sought as a whole value only: it may occur in many others
_EXCERPT = 200  # characters of a text by which a copy that was cut is recognised
_PIECE = 16 * 2**20  # bytes of an unpacked file that are searched at a time
_READ = 2**16  # bytes that are unpacked at a time
LINE = "line"  # the name of columns that hold lines of JSON
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ARROW = (b"ARROW1\0\0", b"\xff\xff\xff\xff")  # what a file and a stream begin with
_OF_TEXT = ("String", "Categorical", "Enum", "Binary")  # types of columns, also inside of others


@dataclass(frozen=True)
class Target:
    """What is to be removed: the hashes of texts, and the texts as far as they are known."""

    hashes: frozenset[str]
    texts: frozenset[str]

    def __post_init__(self) -> None:
        """Refuse an empty target: it would be found everywhere."""
        if not self.hashes | self.texts or "" in self.hashes | self.texts:
            raise ValueError("purge: at least one hash or text expected, none of them empty")

    def excerpt(self) -> "Target":
        """Return the same with every text cut to its beginning."""
        return Target(self.hashes, frozenset(text[:_EXCERPT] for text in self.texts))


class Seeker:
    """Finds a target in tables and files."""

    def __init__(self, target: Target) -> None:
        whole = {text for text in target.texts if len(text) < _SHORT}
        self._whole = sorted(whole)
        self._parts = sorted(target.hashes | (target.texts - whole))
        self._needles = sorted({needle for part in self._parts for needle in _spellings(part)})
        self._short_needles = sorted({needle for text in whole for needle in _spellings(text)})
        short = b"|".join(re.escape(needle) for needle in self._short_needles)
        self._short = re.compile(rb"(?<![^\"\r\n\t,>])(?:" + short + rb")(?![^\"\r\n\t,<])") if short else None

    def in_bytes(self, data: bytes) -> bool:
        """Tell whether a file holds the target, whatever kind of file it is."""
        if data.startswith(b"PAR1"):
            return self._in_parquet(data)
        if data.startswith(_ARROW):
            return self._in_arrow(data)
        if (file := open_packed(data)) is not None:
            return any(self._in_text_file(piece) for piece in self._unpacked(file)) or self._in_plain(data)
        return self._in_text_file(data)

    def _unpacked(self, packed: io.BufferedIOBase) -> Iterator[bytes]:
        """Unpack a file in overlapping pieces, which end with lines as far as lines are short; UTF-16 as UTF-8.

        Of a file that is damaged or ends early, what comes before that place is searched too: ingest reads it.
        """
        overlap = max(len(needle) for needle in [*self._needles, *self._short_needles])
        before, piece = b"", bytearray()
        for data in _as_utf8(_until_damage(packed)):
            piece += data
            if len(piece) >= _PIECE and (b"\n" in data or len(piece) >= 2 * _PIECE):
                end = piece.rfind(b"\n") + 1 or len(piece)
                whole = before + piece[:end]
                yield whole
                before = b"\1" + whole[-overlap:]  # the sign stands for the rest: no value begins there
                del piece[:end]
        if piece:
            yield before + piece

    def _in_text_file(self, data: bytes) -> bool:
        data = as_utf8(data)
        return self._in_plain(data) or (b"\\" in data and b"\0" not in data and self._in_json(data))

    def in_frame(self, frame: pl.DataFrame) -> bool:
        """Tell whether any column holds the target: strings, or lists and structs of them, however deep.

        A column named `line` is searched as the file of lines that it becomes: texts are escaped there.
        """
        return any(self._in_series(series) for series in frame.iter_columns())

    def _in_parquet(self, data: bytes) -> bool:
        try:
            schema = pl.read_parquet_schema(io.BytesIO(data))
            columns = [name for name, dtype in schema.items() if any(kind in str(dtype) for kind in _OF_TEXT)]
            return bool(columns) and self.in_frame(pl.read_parquet(io.BytesIO(data), columns=columns))
        except pl.exceptions.PolarsError:
            return self._in_plain(data)

    def _in_arrow(self, data: bytes) -> bool:
        opened = pa.ipc.open_file if data.startswith(_ARROW[0]) else pa.ipc.open_stream
        try:
            return self.in_frame(pl.DataFrame(pl.from_arrow(opened(pa.BufferReader(data)).read_all())))
        except (pa.ArrowException, OSError, pl.exceptions.PolarsError):
            return self._in_plain(data)

    def _in_series(self, series: pl.Series) -> bool:
        while isinstance(series.dtype, pl.List | pl.Array):
            series = series.explode()
        if isinstance(series.dtype, pl.Struct):
            return self.in_frame(series.struct.unnest())
        if series.dtype in (pl.Categorical, pl.Enum, pl.Binary):
            series = series.cast(pl.String, strict=False)
        if series.dtype != pl.String:
            return False
        if series.name == LINE and any(self._in_text_file(line.encode()) for line in series.drop_nulls()):
            return True
        found = series.is_in(self._whole).any() if self._whole else False
        return bool(found or (self._parts and series.str.contains_any(self._parts).any()))

    def _in_plain(self, data: bytes) -> bool:
        return any(needle in data for needle in self._needles) or bool(self._short and self._short.search(data))

    def _in_json(self, data: bytes) -> bool:
        """Look into JSON lines (or one JSON document) whose strings are escaped in another way than ours."""
        lines = [line for line in data.split(b"\n") if b"\\" in line]
        values = [_parse(line) for line in lines]
        if any(value is None for value in values):
            values.append(_parse(data))
        return any(self._in_text(_CONTROL.sub(" ", text)) for value in values for text in strings_of(value))

    def _in_text(self, text: str) -> bool:
        return text.strip() in self._whole or any(part in text for part in self._parts)


def _until_damage(packed: io.BufferedIOBase) -> Iterator[bytes]:
    """Yield what a file unpacks to, up to its end or to the place where it is damaged."""
    with packed, suppress(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        while data := packed.read1(min(_PIECE, _READ)):
            yield data


def _as_utf8(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a text in UTF-16 or UTF-32 with a mark as UTF-8, in one piece; others as they come."""
    first = next(pieces, b"")
    yield from [as_utf8(b"".join([first, *pieces]))] if first.startswith(MARKS) else chain([first], pieces)


def _spellings(text: str) -> set[bytes]:
    """Return a text as files may hold it: as it is, and escaped as in JSON, HTML (two ways) and CSV."""
    escaped = html.escape(text)
    spellings = (
        text,
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        escaped,
        escaped.replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
        text.replace('"', '""'),
    )
    return {spelling.encode(errors="surrogatepass") for spelling in spellings}


def _parse(data: bytes) -> Any:  # noqa: ANN401 - JSON is any
    """Read JSON, or None where it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def strings_of(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON is any
    """Yield every string of a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from strings_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings_of(inner)
