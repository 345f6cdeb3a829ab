"""Who can read what is written into a home, and that two processes never make two secrets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.private_files import append_private, keep_secret, make_private, open_private_folder, write_private


def mode(path: Path) -> str:
    return oct(path.stat().st_mode)[-3:]


def test_a_new_folder_is_private_and_an_open_one_is_tightened(tmp_path: Path) -> None:
    assert mode(open_private_folder(tmp_path / "a" / "new")) == "700"
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(0o755)
    assert mode(open_private_folder(tmp_path / "old")) == "700"


def test_a_folder_that_is_shared_on_purpose_stays_open(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    assert mode(open_private_folder(tmp_path / "tmp")) == "777"


def test_a_folder_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs").chmod(0o755)
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path.stat().st_uid) + 1)
    assert mode(open_private_folder(tmp_path / "theirs")) == "755"


def test_records_and_logs_are_private_whatever_was_there(tmp_path: Path) -> None:
    for name in ("record", "log"):
        (tmp_path / name).write_text("old ")
        (tmp_path / name).chmod(0o644)
    write_private(tmp_path / "record", "new")
    with append_private(tmp_path / "log") as log:
        log.write(b"new")
    assert (mode(tmp_path / "record"), (tmp_path / "record").read_text()) == ("600", "new")
    assert (mode(tmp_path / "log"), (tmp_path / "log").read_text()) == ("600", "old new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "record"]


def test_a_record_that_cannot_be_written_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "record").mkdir()
    with pytest.raises(OSError, match="record"):
        write_private(tmp_path / "record", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


def test_what_is_no_file_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("folder", "link", "nothing"):
        make_private(tmp_path / name)
    assert mode(tmp_path / "folder") == "755"


def test_a_secret_is_made_once_and_is_private_again_after_it_was_copied(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    assert keep_secret(file, lambda: "first") == "first"
    file.chmod(0o644)
    assert keep_secret(file, lambda: "second") == "first"
    assert mode(file) == "600"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_secret_that_another_process_makes_at_the_same_moment_is_taken(tmp_path: Path) -> None:
    def make() -> str:
        (tmp_path / "secret").write_text("of the other\n")
        return "ours"

    assert keep_secret(tmp_path / "secret", make) == "of the other"


def test_many_processes_at_once_get_one_secret(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from infra.private_files import keep_secret; "
    code += "print(keep_secret(Path(sys.argv[1]), lambda: str(os.getpid())))"
    command = [sys.executable, "-c", code, str(tmp_path / "secret")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1
