"""Files are copied whole and checked, and names that would leave their folder are known."""

import hashlib
from pathlib import Path

import pytest

from infra.storage import local_files
from infra.storage.local_files import copy_checked, is_confined


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_of_the_expected_digest_is_copied_over_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    target = tmp_path / "deep" / "er" / "target"
    assert copy_checked(tmp_path / "source", target, sha(b"content")) is True
    assert target.read_bytes() == b"content"
    target.write_bytes(b"cut")
    assert copy_checked(tmp_path / "source", target, sha(b"content")) is True
    assert target.read_bytes() == b"content"
    assert list(target.parent.iterdir()) == [target]


def test_a_file_of_another_digest_is_not_copied_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    (tmp_path / "target").write_bytes(b"before")
    assert copy_checked(tmp_path / "source", tmp_path / "target", sha(b"other")) is False
    assert (tmp_path / "target").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_a_copy_is_read_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"")
    copy_checked(tmp_path / "source", tmp_path / "writable", sha(b""))
    copy_checked(tmp_path / "source", tmp_path / "protected", sha(b""), read_only=True)
    assert (tmp_path / "writable").stat().st_mode & 0o222
    assert (tmp_path / "protected").stat().st_mode & 0o777 == 0o444


def test_a_file_longer_than_a_piece_is_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_files, "_PIECE", 4)
    (tmp_path / "source").write_bytes(b"0123456789")
    assert copy_checked(tmp_path / "source", tmp_path / "target", sha(b"0123456789"))
    assert (tmp_path / "target").read_bytes() == b"0123456789"


@pytest.mark.parametrize("name", ["a", "a/b.json", "100%.txt", "a b", "a..b/.hidden", "é/日本", "C", "ab:c"])
def test_a_name_below_its_folder_is_confined(name: str) -> None:
    assert is_confined(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/a", "a%00", "a/", "a//b", "a/./b", "a/..", "a\\b", "a\0b", "a\nb", "a\x1fb", "C:/a", "x/C:a",
     "a/%2e%2E/b", "%252e%252e", "..%2fa", "a%2f%2fb", "a%5cb"],
)  # fmt: skip
def test_a_name_that_might_leave_its_folder_somewhere_is_not_confined(name: str) -> None:
    assert not is_confined(name)
