"""Unpack files that are packed with gzip, bzip2, xz or zstd, found by their first bytes, within limits.

A file that ends early or is damaged raises an error after its last good byte. It never looks like a shorter file.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa

Packing = Literal["none", "gzip", "bz2", "xz", "zstd"]
_MAGIC: tuple[tuple[bytes, Packing], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_SKIPPABLE = (b"\x2a\x4d\x18", 0x50, 0x5F)  # zstd: frames without data, that parallel packers write first
_SMALL = 256 * 2**20  # bytes; a file that unpacks to no more may be packed as tightly as it likes
_XZ_MEMORY = 256 * 2**20  # bytes that xz may ask for
_PIECE = 2**18  # packed bytes read at a time
_ZSTD_PIECE = 2**12  # unpacked bytes asked of Arrow at a time: where the file breaks, it drops what it was asked for


class BrokenPackingError(ValueError):
    """A packed file is damaged or ends early."""

    def __init__(self, packing: Packing, why: object) -> None:
        super().__init__(f"the rest of the file cannot be unpacked: {why}")
        self.reason = "broken_gzip" if packing == "gzip" else "broken_file"


class TooMuchUnpackedError(Exception):
    """A packed file unpacks to more than is read of it."""


class Unpacked:
    """Counts what a packed file unpacks to: all bytes, and those of the lines that are kept.

    Args:
        size: bytes of the packed file.
        most: unpacked bytes that are read.
        ratio: how many times the file's size the kept lines may have, where they are more than 256 MiB.
    """

    def __init__(self, size: int, most: int, ratio: int) -> None:
        self.most, self.most_kept = most, max(_SMALL, ratio * size)
        self.total = self.kept = 0

    def add(self, count: int, kept: int) -> None:
        """Count bytes that came, and how many of them are kept.

        Raises:
            TooMuchUnpackedError: they are too many.
        """
        self.total, self.kept = self.total + count, self.kept + kept
        if self.total > self.most or self.kept > self.most_kept:
            raise TooMuchUnpackedError(
                f"the file unpacks to more than {self.most if self.total > self.most else self.most_kept} bytes; its "
                "rest is not read (ingest.limits.unpacked_bytes, ingest.limits.unpacked_ratio)"
            )


def packing_of(head: bytes) -> Packing:
    """Tell from the first bytes of a file how it is packed.

    >>> packing_of(b"BZh91AY"), packing_of(b"{}")
    ('bz2', 'none')
    """
    tail, first, last = _SKIPPABLE
    if head[1:4] == tail and first <= head[0] <= last:
        return "zstd"
    return next((packing for magic, packing in _MAGIC if head.startswith(magic)), "none")


@contextmanager
def open_unpacked(path: Path) -> Iterator[tuple[IO[bytes], Packing]]:
    """Open a file for reading what is packed in it; with how it is packed.

    Reading raises `BrokenPackingError` where the file is damaged or ends early.
    """
    with path.open("rb") as raw:
        packing = packing_of(raw.read(8))
        raw.seek(0)
        yield (raw if packing == "none" else io.BufferedReader(_Unpacking(raw, packing), _PIECE)), packing


class _Unpacking(io.RawIOBase):
    """The bytes that a packed stream holds."""

    def __init__(self, raw: IO[bytes], packing: Packing) -> None:
        self._packing = packing
        self._read: Callable[[int], bytes]
        if packing == "gzip":
            self._read = gzip.GzipFile(fileobj=raw).read1
        elif packing == "zstd":
            stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
            self._read = lambda size: stream.read(min(size, _ZSTD_PIECE))
        else:
            self._read = _Members(raw, packing).read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any buffer
        try:
            data = self._read(len(buffer))
        except (EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise BrokenPackingError(self._packing, error) from error
        except OSError as error:
            if error.errno is not None:  # the disk failed, not the file
                raise
            raise BrokenPackingError(self._packing, error) from error
        buffer[: len(data)] = data
        return len(data)


class _Members:
    """Reads bzip2 and xz files of several members. Python's own readers end in silence at the first damaged one."""

    def __init__(self, raw: IO[bytes], packing: Packing) -> None:
        self._raw, self._packing = raw, packing
        self._member: Any = self._new()
        self._begun, self._rest = False, b""

    def _new(self) -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
        return bz2.BZ2Decompressor() if self._packing == "bz2" else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def read(self, size: int) -> bytes:
        while True:
            if self._member.eof:
                self._rest, self._member, self._begun = self._member.unused_data, self._new(), False
            if not self._begun and self._packing == "xz":
                self._rest = self._rest.lstrip(b"\0")  # members may be padded
            if not self._rest and self._member.needs_input:
                self._rest = self._raw.read(_PIECE)
                if not self._rest:
                    if self._begun:
                        raise EOFError("the file ends before the end of the packed data")
                    return b""
                continue
            packed, self._rest = self._rest, b""
            self._begun = True
            if found := self._member.decompress(packed, size):
                return bytes(found)
