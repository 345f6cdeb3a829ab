"""Files are copied whole and checked."""

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from infra.storage import local_files
from infra.storage.errors import StoreError
from infra.storage.local_files import (
    copy_checked,
    copy_hashed,
    create_file,
    folder_locked,
    link_file,
    point_link,
    remove_abandoned,
    remove_abandoned_folders,
    replace_file,
)


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


def test_a_long_copy_takes_the_memory_of_one_piece(tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as file:
        file.truncate(64 * 2**20)
    tracemalloc.start()
    digest = copy_hashed(tmp_path / "source", tmp_path / "target")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert digest == sha(bytes(64 * 2**20))
    assert (tmp_path / "target").stat().st_size == 64 * 2**20
    assert peak < 2 * 2**20


def test_a_file_is_created_once_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    assert create_file(path, b"1", "a", "store") is True
    assert create_file(path, b"2", "b", "store") is False
    assert path.read_bytes() == b"1"
    replace_file(path, b"3")
    assert path.read_bytes() == b"3"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "none" / "file", b"1")


def test_a_file_system_without_hard_links_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(StoreError, match=r"store here: this file system has no hard links \(not permitted\)"):
        create_file(tmp_path / "file", b"1", "a", "here")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_kept_by_one_and_ends_with_the_process_that_had_it(tmp_path: Path) -> None:
    held = (
        "import fcntl, os, sys; handle = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(handle, fcntl.LOCK_EX)\n"
        "print(1, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == "1\n"
    entered = threading.Event()

    def enter() -> None:
        with folder_locked(tmp_path):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.2)
    child.kill()
    assert entered.wait(60)
    thread.join()
    child.communicate()


def test_a_lock_that_is_kept_for_too_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_files, "_LOCK_SECONDS", 0.05)
    with folder_locked(tmp_path / "new"), folder_locked(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()


def test_a_file_system_without_locks_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    began = time.monotonic()
    with folder_locked(tmp_path):
        assert time.monotonic() - began < 5


def test_a_file_gets_a_second_name_over_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    target = tmp_path / "new" / "name"
    assert link_file(tmp_path / "file", target)
    assert link_file(tmp_path / "file", target)  # the same file already
    target.unlink()
    target.write_bytes(b"cut")
    assert link_file(tmp_path / "file", target)
    assert target.samefile(tmp_path / "file")
    assert [path.name for path in target.parent.iterdir()] == ["name"]


def test_a_linked_file_has_the_rights_and_the_time_of_a_new_one(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"content")
    source.chmod(0o600)  # as the writers of safetensors make theirs
    os.utime(source, (1, 1))
    (tmp_path / "new").touch()
    assert link_file(source, tmp_path / "name")
    made, new = ((tmp_path / name).stat() for name in ("name", "new"))
    assert stat.S_IMODE(made.st_mode) == stat.S_IMODE(new.st_mode)
    assert abs(made.st_mtime - new.st_mtime) < 60


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])
def test_a_file_system_that_cannot_link_is_told_from_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(code, "no")

    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError):
        link_file(tmp_path / "none", tmp_path / "name")
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert not link_file(tmp_path / "file", tmp_path / "name")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_pointed_elsewhere_left_or_removed(tmp_path: Path) -> None:
    link = tmp_path / "current"
    for target in ("000001", "000002", "000002"):
        point_link(link, target)
        assert str(link.readlink()) == target
    point_link(link, None)
    point_link(link, None)
    assert list(tmp_path.iterdir()) == []


def test_only_old_temporary_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in (".old.tmp", "a/.old.tmp", ".new.tmp", "file.tmp"):
        (tmp_path / name).touch()
        if "old" in name or name == "file.tmp":
            os.utime(tmp_path / name, (1, 1))
    (tmp_path / ".link.tmp").symlink_to("nowhere")
    assert remove_abandoned(tmp_path, 60) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".link.tmp", ".new.tmp", "a", "file.tmp"]


def test_only_old_half_written_folders_of_a_cache_are_removed(tmp_path: Path) -> None:
    names = [".dead.1", ".alive.2", "whole/.hidden", "weights/.dead.tmp", "weights/whole"]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
        if "alive" not in name:
            os.utime(tmp_path / name, (1, 1))
    assert remove_abandoned_folders(tmp_path, 60) == 2
    assert [name for name in names if (tmp_path / name).exists()] == [".alive.2", "whole/.hidden", "weights/whole"]
    assert remove_abandoned_folders(tmp_path / "none", 60) == 0
