"""Opens packed files by what they begin with, and turns UTF-16 and UTF-32 into UTF-8, as sources may be any of them."""

import bz2
import gzip
import io
import lzma

import pyarrow as pa

UTF32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
MARKS = (*UTF32, b"\xff\xfe", b"\xfe\xff")  # what a text in UTF-32 or UTF-16 begins with


def open_packed(data: bytes) -> io.BufferedIOBase | None:
    """Open a file that is packed with gzip, bzip2, xz or zstd; None if it is not.

    `read1` raises OSError, EOFError, ValueError, zlib.error or lzma.LZMAError where it is damaged or ends early.
    """
    if data.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=io.BytesIO(data))
    if data.startswith(b"BZh"):
        return bz2.BZ2File(io.BytesIO(data))
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(io.BytesIO(data))
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return io.BufferedReader(pa.CompressedInputStream(pa.BufferReader(data), "zstd"))
    return None


def as_utf8(data: bytes) -> bytes:
    """Return a text in UTF-16 or UTF-32 with a mark as UTF-8; other data as it is."""
    if not data.startswith(MARKS):
        return data
    return data.decode("utf-32" if data.startswith(UTF32) else "utf-16", errors="replace").encode()
