"""Packed files come back whole, in members as well, and a file that is cut or damaged raises an error."""

from pathlib import Path

import pytest

from tasks import packed
from tasks.packed import BrokenPackingError, TooMuchUnpackedError, Unpacked, open_unpacked, packing_of
from tests.tasks.data.containers.written import PACKINGS

PACKED = sorted(set(PACKINGS) - {"none"})
DATA = b"".join(b"line %d\n" % number for number in range(50_000))
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"


def unpacked(path: Path, data: bytes) -> tuple[bytes, str]:
    path.write_bytes(data)
    with open_unpacked(path) as (stream, packing):
        return stream.read(), packing


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_file_comes_back_whole_whatever_its_name(tmp_path: Path, packing: str) -> None:
    assert unpacked(tmp_path / "a.txt", PACKINGS[packing](DATA)) == (DATA, packing)
    assert unpacked(tmp_path / "a.txt", PACKINGS[packing](b""))[0] == b""


@pytest.mark.parametrize("packing", PACKED)
def test_members_that_follow_each_other_are_all_read(tmp_path: Path, packing: str) -> None:
    pack = PACKINGS[packing]
    assert unpacked(tmp_path / "a", pack(b"one") + pack(b"") + pack(DATA)) == (b"one" + DATA, packing)


def test_what_packers_put_around_the_data_is_passed_over(tmp_path: Path) -> None:
    assert unpacked(tmp_path / "a", SKIPPABLE + PACKINGS["zstd"](DATA)) == (DATA, "zstd")
    assert unpacked(tmp_path / "a", PACKINGS["xz"](b"one") + bytes(8) + PACKINGS["xz"](b"two")) == (b"onetwo", "xz")


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("after", [b"", b"garbage after the end", b"\x00\x01\x02\x03\x04"])
def test_a_cut_or_damaged_file_is_an_error_after_its_last_good_byte(tmp_path: Path, packing: str, after: bytes) -> None:
    data = PACKINGS[packing](DATA)
    whole, cut = b"", data[: len(data) * 2 // 3] if not after else data + after
    (tmp_path / "a").write_bytes(cut)
    with open_unpacked(tmp_path / "a") as (stream, _), pytest.raises(BrokenPackingError) as error:
        while piece := stream.read1(4096):  # type: ignore[attr-defined]
            whole += piece
    assert DATA.startswith(whole)
    assert len(whole) > 100_000 or packing in ("bz2", "xz")  # these have large blocks
    assert error.value.reason == ("broken_gzip" if packing == "gzip" else "broken_file")
    assert str(error.value).startswith("the rest of the file cannot be unpacked: ")


@pytest.mark.parametrize("packing", PACKED)
def test_a_second_member_that_is_damaged_is_an_error_and_no_end(tmp_path: Path, packing: str) -> None:
    pack = PACKINGS[packing]
    with pytest.raises(BrokenPackingError):
        unpacked(tmp_path / "a", pack(DATA) + pack(DATA)[:10])


def test_a_plain_file_is_read_as_it_is(tmp_path: Path) -> None:
    assert unpacked(tmp_path / "a.gz", b"{}\n") == (b"{}\n", "none")
    assert packing_of(b"") == "none"


def test_unpacked_bytes_are_counted_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Unpacked(10, 100, 2)
    counter.add(100, 100)
    with pytest.raises(TooMuchUnpackedError, match="more than 100 bytes"):
        counter.add(1, 0)
    monkeypatch.setattr(packed, "_SMALL", 15)
    counter = Unpacked(10, 100, 2)
    counter.add(50, 20)
    with pytest.raises(TooMuchUnpackedError, match="more than 20 bytes"):
        counter.add(0, 1)
