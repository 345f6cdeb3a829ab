"""Folders for sockets: nobody else may enter them, their paths are short, and a wrong TMPDIR is named."""

import os
from pathlib import Path

import pytest

from infra.private_folders import LONGEST_SOCKET, private_folder, ray_folder


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def test_a_folder_is_its_owners_alone_lies_in_tmpdir_and_is_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp/")
    old = os.umask(0)
    try:
        with ray_folder() as folder:
            assert folder.parent.stat().st_mode & 0o777 == 0o700
            assert (folder.name, folder.parent.parent) == ("ray", Path("/tmp"))
            folder.mkdir(0o777)  # as Ray does
            (folder / "log").touch()
    finally:
        os.umask(old)
    assert not folder.parent.exists()


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_where_the_path_is_too_long_for_a_socket_the_folder_is_in_tmp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    longest = "session_2026-11-28_23-15-39_301312_4194304/sockets/plasma_store"
    monkeypatch.setenv(variable, str(tmp_path))
    short = Path(private_folder("x-", "s"))
    assert short.parent == tmp_path
    deep = tmp_path / "slurm_jobdir_1355700" / "slurm_jobdir_1355700" / "slurm_jobdir_1355700"
    deep.mkdir(parents=True)
    monkeypatch.setenv(variable, str(deep))
    with ray_folder() as folder:
        assert folder.parent.parent == Path("/tmp")
        assert len(os.fsencode(folder / longest)) <= LONGEST_SOCKET
    assert list(deep.iterdir()) == []
    assert not folder.parent.exists()


def test_the_longest_path_that_fits_is_taken_and_one_letter_more_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = LONGEST_SOCKET - len(os.fsencode(tmp_path)) - len("/x-12345678/")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert private_folder("x-", "s" * room).parent == tmp_path
    outside = private_folder("x-", "s" * (room + 1))
    assert outside.parent == Path("/tmp")
    outside.rmdir()
    umlauts = private_folder("x-", "ä" * (room // 2 + 1))  # bytes count, not letters
    assert umlauts.parent == Path("/tmp")
    umlauts.rmdir()


def test_what_lies_below_the_users_own_ray_tmpdir_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path("/tmp") / f"own-{os.getpid()}"
    own.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(own))
    try:
        with ray_folder() as folder:
            folder.mkdir()
            (folder / "log").touch()
        assert (folder / "log").exists()
        assert folder.parent.parent == own
    finally:
        (folder / "log").unlink()
        folder.rmdir()
        folder.parent.rmdir()
        own.rmdir()


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_tmpdir_that_is_not_there_or_cannot_be_written_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    told = rf"{variable}: .* is not a folder that this user can write; create it, or set {variable}=/tmp"
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match=told), ray_folder():
        pass
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    with pytest.raises(OSError, match=told), ray_folder():
        pass
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who is not root
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(OSError, match=told):
        private_folder("x-", "s")


def test_where_neither_fits_a_shorter_folder_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda folder, _: folder != Path("/tmp"))
    with pytest.raises(OSError, match="/tmp cannot be written; set TMPDIR to a shorter folder"):
        private_folder("x-", "s" * 100)
