"""Read the objects of a JSON list, or objects that stand over several lines, with one of them in memory at a time."""

import re
from collections.abc import Iterator
from typing import IO

from tasks.data.containers.kinds import HEAD, SourceFile, wrapped_list
from tasks.lines import Problem, ReadLimits, UnusableError, as_utf8, decoded, parse_object
from tasks.packed import BrokenPackingError, TooMuchUnpackedError, Unpacked, open_unpacked

_PIECE = 2**16  # bytes read at a time
_BOM = b"\xef\xbb\xbf"
_BETWEEN = re.compile(rb"[\s,]*")
_COLON = re.compile(rb"\s*:\s*")
# Up to the next bracket, over whole strings. It fails where a string is not complete yet; the marks below go on there.
_RUN = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+([{}\[\]])', re.DOTALL)
_OUTSIDE = re.compile(rb'["{}\[\]]')  # opens or closes a level, or begins a string
_INSIDE = re.compile(rb'["\\]')  # ends a string, or hides the byte after it
_SCALAR = re.compile(rb'[^\s,\[\]{}"]+')
_NAMED = {b"[": "a list", b'"': "a string", b"t": "true or false", b"f": "true or false", b"n": "null"}
_NAMED |= dict.fromkeys((b"}", b"]"), "a bracket that closes nothing")


def read_json(file: SourceFile, limits: ReadLimits) -> Iterator[tuple[str, dict[str, object]] | Problem]:
    """Yield `(file#number, object)` for each object of a list, of an object around a list, or of the file itself.

    A value that is too long, broken or no object becomes a problem; the values after it are read.
    """
    with open_unpacked(file.path) as (stream, packing):
        unpacked = None
        if packing != "none":
            unpacked = Unpacked(file.path.stat().st_size, limits.unpacked_bytes, limits.unpacked_ratio)
        rows = _Rows(file.name, limits)
        try:
            yield from rows.read(_Values(as_utf8(stream), limits.line_bytes, unpacked))
        except _EndsEarlyError:
            yield rows.problem("broken_file", "the file ends in the middle of its JSON; get or write it again")
        except BrokenPackingError as error:
            yield rows.problem(error.reason, str(error))
        except TooMuchUnpackedError as error:
            yield rows.problem("too_much_unpacked", str(error))
        except UnicodeDecodeError as error:
            yield rows.problem("broken_file", f"the rest of the file is no {error.encoding}: {error.reason}")


class _EndsEarlyError(Exception):
    """The file ends where its JSON does not."""


class _Values:
    """The values of a stream of JSON, found by their brackets, so that a broken one costs only itself."""

    def __init__(self, stream: IO[bytes], longest: int, unpacked: Unpacked | None) -> None:
        self._stream, self._longest, self._unpacked = stream, longest, unpacked
        self._held, self._at = b"", 0
        if self.peek(len(_BOM)) == _BOM:
            self.skip(len(_BOM))

    def peek(self, size: int) -> bytes:
        """Return the next bytes, which stay; fewer at the end."""
        while len(self._held) - self._at < size and self._fill():
            pass
        return self._held[self._at : self._at + size]

    def skip(self, size: int) -> None:
        """Pass over bytes that were peeked at."""
        self._at += size

    def next_mark(self) -> bytes:
        """Pass over blanks and commas, and return the byte after them; empty at the end of the file."""
        while True:
            match = _BETWEEN.match(self._held, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._held) or not self._fill():
                return self._held[self._at : self._at + 1]

    def skip_colon(self) -> bool:
        """Pass over a colon and the blanks around it; false if there is none."""
        match = _COLON.match(self.peek(_PIECE))
        self.skip(match.end() if match else 0)
        return match is not None

    def take(self) -> tuple[bytes, int]:
        """Take the value that begins here, and its length in bytes. One over the limit comes empty.

        Raises:
            _EndsEarlyError: the file ends within it.
        """
        if self.next_mark() not in (b"{", b"[", b'"'):
            match = _SCALAR.match(self.peek(_PIECE))
            found = self.peek(match.end() if match else 1)
            self.skip(len(found))
            return found, len(found)
        pieces: list[bytes] = []
        size, depth, inside = 0, 0, False
        while True:
            begin = self._at
            depth, inside, ended = self._scan(depth, inside)
            size += self._at - begin
            pieces = [*pieces, self._held[begin : self._at]] if size <= self._longest else []
            if ended:
                break
            if not self._fill():
                raise _EndsEarlyError
        kept = b"".join(pieces)
        if self._unpacked is not None:
            self._unpacked.add(0, len(kept))
        return kept, size

    def _scan(self, depth: int, inside: bool) -> tuple[int, bool, bool]:
        """Go to the end of the value, or of what is held; return the depth, if in a string, and if the value ended."""
        position = self._at
        while not inside and depth and (match := _RUN.match(self._held, position)):
            depth, position = depth + (1 if match[1] in b"{[" else -1), match.end()
        while depth or inside or position == self._at:
            match = (_INSIDE if inside else _OUTSIDE).search(self._held, position)
            if match is None or (match[0] == b"\\" and match.end() == len(self._held)):
                self._at = match.start() if match else len(self._held)
                return depth, inside, False
            position = match.end()
            if match[0] == b"\\":
                position += 1
            elif match[0] == b'"':
                inside = not inside
            else:
                depth += 1 if match[0] in b"{[" else -1
        self._at = position
        return depth, inside, True

    def _fill(self) -> bool:
        """Read on, and drop what was passed over; false at the end of the file."""
        piece = self._stream.read(_PIECE)
        if self._unpacked is not None:
            self._unpacked.add(len(piece), 0)
        self._held, self._at = self._held[self._at :] + piece, 0
        return bool(piece)


class _Rows:
    """Reads the rows of one file, and counts them."""

    def __init__(self, name: str, limits: ReadLimits) -> None:
        self.name, self.limits, self.count = name, limits, 0

    def problem(self, reason: str, detail: str) -> Problem:
        """Report the row after the last."""
        return Problem(f"{self.name}#{self.count + 1}", reason, detail)

    def read(self, values: _Values) -> Iterator[tuple[str, dict[str, object]] | Problem]:
        """Yield the rows at the top of the file: those of its list, of the list in its object, or its objects."""
        while mark := values.next_mark():
            if mark == b"[":
                yield from self._listed(values)
            elif mark == b"{" and not self.count and (inside := wrapped_list(values.peek(HEAD))):
                yield from self._members(values, inside)
            else:
                yield self._row(values, mark)
        if not self.count:
            yield self.problem("empty_file", "the file holds no object")

    def _listed(self, values: _Values) -> Iterator[tuple[str, dict[str, object]] | Problem]:
        values.skip(1)
        while (mark := values.next_mark()) != b"]":
            if not mark:
                raise _EndsEarlyError
            yield self._row(values, mark)
        values.skip(1)

    def _members(self, values: _Values, inside: str) -> Iterator[tuple[str, dict[str, object]] | Problem]:
        """Yield the rows of the list `inside` of the object that begins here, and a problem for its other members."""
        values.skip(1)
        lost, facts = list[str](), list[str]()
        while (mark := values.next_mark()) != b"}":
            if not mark:
                raise _EndsEarlyError
            name = values.take()[0].decode(errors="replace").strip('"')
            if not values.skip_colon():
                yield self.problem("broken_json", f"no colon after {name[:40]!r}")
            elif name == inside and values.next_mark() == b"[":
                yield from self._listed(values)
            else:
                (lost if values.next_mark() in (b"[", b"{") else facts).append(name[:40])
                values.take()
        values.skip(1)
        for names, reason in ((lost, "not_read"), (facts, "metadata")):
            if names:
                yield Problem(self.name, reason, f"beside the list {inside!r}, the file has {', '.join(names)[:200]}")

    def _row(self, values: _Values, mark: bytes) -> tuple[str, dict[str, object]] | Problem:
        data, size = values.take()
        most, where = self.limits.line_bytes, f"{self.name}#{self.count + 1}"
        self.count += 1
        try:
            if size > most:
                raise UnusableError("row_too_long", f"{size} bytes, at most {most} expected (ingest.limits.line_bytes)")
            if mark != b"{":
                raise UnusableError("wrong_type", f"{_NAMED.get(mark, 'a number')} stands where an object is expected")
            found = parse_object(decoded(data), self.limits.depth)
        except UnusableError as error:
            return Problem(where, error.reason, error.detail)
        return where, found
