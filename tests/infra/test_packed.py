"""Opening packed files by their first bytes."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

import pyarrow as pa
import pytest

from infra.packed import MARKS, as_utf8, open_packed

ZSTD = pa.Codec("zstd")
PACKERS: list[Callable[[bytes], bytes]] = [
    gzip.compress,
    bz2.compress,
    lzma.compress,
    lambda data: bytes(ZSTD.compress(data, asbytes=True)),
]


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz", "zstd"])
def test_a_packed_file_is_read_over_all_its_members(pack: Callable[[bytes], bytes]) -> None:
    opened = open_packed(pack(b"one\ntwo\n") + pack(b"three\n"))
    assert isinstance(opened, io.BufferedIOBase)
    assert opened.peek(1)[:1] == b"o"  # type: ignore[attr-defined]
    assert opened.readline() == b"one\n"
    assert opened.read() == b"two\nthree\n"
    cut = open_packed(pack(b"one two three " * 50)[:-12])
    assert cut is not None
    with pytest.raises((OSError, EOFError, ValueError, lzma.LZMAError)):
        assert cut.read() == b"one two three " * 50


def test_other_files_are_not_packed() -> None:
    assert [open_packed(data) for data in (b"", b"{}", b"PAR1", "text".encode("utf-16"))] == [None] * 4


def test_utf16_and_utf32_become_utf8_and_nothing_else_changes() -> None:
    for encoding in ("utf-16", "utf-32"):
        assert as_utf8("Málaga".encode(encoding)).decode() == "Málaga"
    assert as_utf8(MARKS[1] + "Málaga".encode("utf-32-be")).decode() == "Málaga"
    assert as_utf8(MARKS[3] + "Málaga".encode("utf-16-be")).decode() == "Málaga"
    assert as_utf8("Málaga".encode()) == "Málaga".encode()
