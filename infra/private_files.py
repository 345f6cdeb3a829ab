"""Folders and files that only their user can read."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

_FOLDER, _FILE = 0o700, 0o600


def open_private_folder(path: Path) -> Path:
    """Create a folder that only its user can enter, or take the rights of others away from one that is there.

    A folder of another user stays as it is, and so does one that is shared on purpose, as /tmp is (the sticky bit).
    """
    path.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid == os.getuid() and not found.st_mode & stat.S_ISVTX and stat.S_IMODE(found.st_mode) != _FOLDER:
        path.chmod(_FOLDER)
    return path


def identity(folder: Path) -> str:
    """Return what tells a folder from a copy of it, and stays the same if it is moved.

    Raises:
        OSError: it is not there.
    """
    return str(folder.stat().st_ino)


def make_private(path: Path) -> None:
    """Take the rights of others away from a file of this user; one that is not there, or not ours, stays as it is."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            path.chmod(_FILE)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its user can read; it appears under its name only when it is complete."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # readable by its user only
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def append_private(path: Path) -> IO[bytes]:
    """Open a file that only its user can read, to append to it; it is created if it does not exist."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _FILE)
    make_private(path)
    return os.fdopen(descriptor, "ab")


def keep_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in a file; make it if there is none. Processes that do so at once all get the same one.

    Args:
        path: a file of a folder that exists.
        make: returns a new secret.

    Raises:
        OSError: it cannot be read or written.
    """
    with contextlib.suppress(FileNotFoundError):
        make_private(path)
        return path.read_text().strip()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename, it fails where another process was faster
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path.read_text().strip()
