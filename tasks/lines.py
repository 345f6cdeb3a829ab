"""Read text files line by line within limits. What is over a limit is a problem of one line; the other lines are read.

The files come from other people. A short gzip file can unpack to gigabytes, and a line can be as long as the file.
"""

import codecs
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.packed import BrokenPackingError, TooMuchUnpackedError, Unpacked, open_unpacked

_BOM = b"\xef\xbb\xbf"
_WIDE = (  # marks at the beginning of texts in other encodings; UTF-32 first, since UTF-16's mark begins it
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_RECODED = 2**16  # bytes of UTF-16 that are recoded at a time
_SKIPPED = 2**20  # bytes of an over-long line that are read, and dropped, at a time


class ReadLimits(BaseModel):
    """What is read of files that other people made. The defaults are far above what real collections need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line_bytes: int = Field(32 * 2**20, ge=1, description="a longer line is rejected")
    depth: int = Field(64, ge=1, description="a line with more nested lists and objects is rejected")
    passages: int = Field(10_000, ge=1, description="a row with more passages is rejected")
    unpacked_bytes: int = Field(32 * 2**30, ge=1, description="of one packed file, unpacked; its rest is not read")
    unpacked_ratio: int = Field(
        200,
        ge=1,
        description="likewise, where the lines that are kept are more than 256 MiB and so many times the file's size",
    )
    rejects: int = Field(1_000_000, ge=0, description="listed one by one; the others are counted for each reason")


class UnusableError(ValueError):
    """A field of one line cannot be used. The reader turns it into a `Problem`."""

    def __init__(self, reason: str, detail: str) -> None:
        """Store the reason (a constant in snake case) and the detail (a sentence for people)."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of the input that is left out or changed: one row of `rejects`.

    `key` is `file:line`, or `dataset/id` for a record made of several lines.
    """

    key: str
    reason: str
    detail: str


class Problems:
    """Problems in the order in which they were found; those over a limit are only counted, for each reason."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._listed: list[Problem] = []
        self._more: Counter[str] = Counter()

    def append(self, problem: Problem) -> None:
        """Add a problem."""
        if len(self._listed) < self._most:
            self._listed.append(problem)
        else:
            self._more[problem.reason] += 1

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add several problems."""
        for problem in problems:
            self.append(problem)

    def __iter__(self) -> Iterator[Problem]:
        yield from self._listed
        for reason, count in sorted(self._more.items()):
            yield Problem("more", reason, f"{count} more are not listed (ingest.limits.rejects is {self._most})")


def read_lines(
    path: Path, name: str, limits: ReadLimits, *, blank: bool = False
) -> Iterator[tuple[str, str] | Problem]:
    """Yield `(file:line, text)` for each line of a plain or packed file, without a BOM, and blank lines if wanted.

    Packed are gzip, bzip2, xz and zstd, whatever the file's ending. The text is UTF-8, or UTF-16 or UTF-32 with a mark
    at its beginning. A line that is too long is skipped in pieces, so it is never in memory as a whole.
    """
    number = 0
    with open_unpacked(path) as (stream, packing):
        unpacked = None
        if packing != "none":
            unpacked = Unpacked(path.stat().st_size, limits.unpacked_bytes, limits.unpacked_ratio)
        try:
            lines = split_lines(as_utf8(stream), limits.line_bytes, unpacked)
            for number, (line, size) in enumerate(lines, start=1):
                data = line.removeprefix(_BOM) if number == 1 else line
                if size > limits.line_bytes:
                    yield Problem(f"{name}:{number}", "line_too_long", over_long(size, limits))
                elif blank or data.strip():
                    yield _line(data, f"{name}:{number}")
        except BrokenPackingError as error:
            number += 1
            yield Problem(f"{name}:{number}", error.reason, str(error))
        except TooMuchUnpackedError as error:
            number += 1
            yield Problem(f"{name}:{number}", "too_much_unpacked", str(error))
        except UnicodeDecodeError as error:
            number += 1
            yield Problem(
                f"{name}:{number}", "broken_file", f"the rest of the file is no {error.encoding}: {error.reason}"
            )
    if number == 0:
        yield Problem(f"{name}:1", "empty_file", "the file holds no line")


def read_lines_within(
    path: Path, name: str, limits: ReadLimits, within: range, before: int = 0
) -> Iterator[tuple[str, str] | Problem]:
    """Yield what `read_lines` yields of those lines that begin in a range of bytes, numbered from `before` + 1.

    The file is plain UTF-8. What lies before the range is not read, so their numbers in the file are those only if
    `before` lines are there.
    """
    with path.open("rb") as file:
        _go_to_line(file, within)
        number = before + 1
        lines = split_lines(file, limits.line_bytes)
        while (at := file.tell()) < within.stop and (found := next(lines, None)) is not None:
            line, size = found
            data = line.removeprefix(_BOM) if at == 0 else line
            if size > limits.line_bytes:
                yield Problem(f"{name}:{number}", "line_too_long", over_long(size, limits))
            elif data.strip():
                yield _line(data, f"{name}:{number}")
            number += 1


def count_lines_within(path: Path, within: range) -> int:
    """Count the lines of a plain file that begin in a range of its bytes; nothing else is read."""
    first = max(within.start - 1, 0)
    found, left = int(within.start == 0 < within.stop), within.stop - 1 - first
    with path.open("rb") as file:
        file.seek(first)
        while left > 0 and (piece := file.read(min(left, _SKIPPED))):
            found, left = found + piece.count(b"\n"), left - len(piece)
    return found


def _go_to_line(file: IO[bytes], within: range) -> None:
    """Go to the first line that begins in a range of bytes; if there is none, to the end of the range or behind it."""
    file.seek(max(within.start - 1, 0))
    while within.start and file.tell() < within.stop and (piece := file.readline(_SKIPPED)):
        if piece.endswith(b"\n"):
            break


def is_utf8(path: Path) -> bool:
    """Whether a plain file has no mark of another encoding."""
    with path.open("rb") as file:
        return not file.read(4).startswith(tuple(mark for mark, _ in _WIDE))


def as_utf8(stream: IO[bytes]) -> IO[bytes]:
    """Return a stream's text in UTF-8, if it begins with the mark of UTF-16 or UTF-32; else the stream as it is.

    Reading raises `UnicodeDecodeError` where the text is not in the encoding that its mark names.
    """
    head = stream.peek(4)[:4]  # type: ignore[attr-defined] # of every buffered reader
    encoding = next((name for mark, name in _WIDE if head.startswith(mark)), None)
    return stream if encoding is None else io.BufferedReader(_Recoded(stream, encoding))


class _Recoded(io.RawIOBase):
    """A text in UTF-16 or UTF-32, as UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream, self._decoder, self._rest = stream, codecs.getincrementaldecoder(encoding)(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any buffer
        while not self._rest:
            data = self._stream.read(_RECODED)
            self._rest = self._decoder.decode(data, final=not data).encode()
            if not data:
                break
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def split_lines(stream: IO[bytes], longest: int, unpacked: Unpacked | None = None) -> Iterator[tuple[bytes, int]]:
    """Yield each line with its line end, and its length without it. A line longer than `longest` is yielded empty.

    Args:
        stream: opened for reading.
        longest: bytes of a line that may be in memory.
        unpacked: counts what is read, and ends it.
    """
    while line := stream.readline(longest + 1):
        size, piece = len(line) - line.endswith(b"\n"), line
        if size > longest:
            line = b""
        while size > longest and not piece.endswith(b"\n") and (piece := stream.readline(_SKIPPED)):
            size += len(piece) - piece.endswith(b"\n")
            if unpacked is not None:
                unpacked.add(len(piece), 0)
        if unpacked is not None:
            unpacked.add(longest if not line else len(line), len(line))
        yield line, size


def over_long(size: int, limits: ReadLimits) -> str:
    """Say how long a line is, and how long it may be."""
    return f"the line is {size} bytes long, at most {limits.line_bytes} expected (ingest.limits.line_bytes)"


def parse_object(text: str, depth: int) -> dict[str, object]:
    """Parse a line that holds one JSON object.

    Raises:
        UnusableError: `broken_json`, `too_deep` or `wrong_type`.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UnusableError("broken_json", f"{error.msg} at column {error.colno}") from error
    except ValueError as error:  # a number of thousands of digits
        raise UnusableError("broken_json", str(error)) from error
    except RecursionError as error:
        raise UnusableError("too_deep", _deeper(depth)) from error
    if not isinstance(found, dict):
        raise UnusableError("wrong_type", f"the line holds {kind_of(found)}, expected an object")
    level: list[object] = [found]
    for _ in range(depth):
        level = [inner for value in level for inner in _inside(value) if isinstance(inner, dict | list)]
        if not level:
            return found
    raise UnusableError("too_deep", _deeper(depth))


def kind_of(value: object) -> str:
    """Name the JSON type of a value, for people.

    >>> kind_of([]), kind_of(True), kind_of(None)
    ('a list', 'true or false', 'null')
    """
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _inside(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _deeper(depth: int) -> str:
    return f"more than {depth} nested lists and objects (ingest.limits.depth)"


def _line(data: bytes, where: str) -> tuple[str, str] | Problem:
    try:
        return where, decoded(data).rstrip("\r\n")
    except UnusableError as error:
        return Problem(where, error.reason, error.detail)


def decoded(data: bytes) -> str:
    """Decode UTF-8.

    Raises:
        UnusableError: `not_utf8`, with the byte that is none.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        said = f"byte 0x{data[error.start]:02x} at position {error.start + 1} is not UTF-8"
        raise UnusableError("not_utf8", said) from error
