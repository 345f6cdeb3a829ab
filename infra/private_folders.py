"""Folders for sockets: for their owner alone, and with a path that is short enough for the names of sockets."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_SOCKET = 107  # bytes: the longest name that Linux gives a socket
_RANDOM = "12345678"  # as many letters as `mkdtemp` adds
_SOCKET = "session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"  # the longest that Ray makes in its folder
_DEFAULT = "/tmp"  # noqa: S108 - only the folder above ours, whose name is random and whose mode is 0700


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Make a folder for the files of a local Ray, and delete it at the end.

    It is made below RAY_TMPDIR, else TMPDIR, else /tmp. Where such a path is too long for the names of Ray's sockets,
    it is made in /tmp. Below RAY_TMPDIR it is kept, so that one can read Ray's logs.

    Ray makes its folder writable by everybody. So it gets one inside another that only the owner can enter.

    Raises:
        OSError: no folder can be made; the message names the variable and says what to do.
    """
    private = private_folder("ray-", f"ray/{_SOCKET}")
    try:
        yield private / "ray"
    finally:
        kept = os.environ.get("RAY_TMPDIR")
        if not kept or private.parent != Path(kept).absolute():
            shutil.rmtree(private, ignore_errors=True)


def private_folder(prefix: str, socket: str) -> Path:
    """Make an empty folder of mode 0700 in which a socket may have the relative path `socket`; returns its path.

    Raises:
        OSError: as `ray_folder` says.
    """
    given = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    folder = Path(os.environ[given] if given else _DEFAULT).absolute()
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise OSError(
            f"{given or 'the folder for temporary files'}: {folder} is not a folder that this user can write; create "
            f"it, or set {given or 'TMPDIR'}={_DEFAULT}"
        )
    if _is_too_long(folder, prefix, socket):
        folder = Path(_DEFAULT)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(
                f"{given}: its path is too long for the sockets below it (at most {LONGEST_SOCKET} bytes), and "
                f"{folder} cannot be written; set {given} to a shorter folder that this user can write"
            )
    return Path(tempfile.mkdtemp(prefix=prefix, dir=folder))


def _is_too_long(folder: Path, prefix: str, socket: str) -> bool:
    return len(os.fsencode(folder / f"{prefix}{_RANDOM}" / socket)) > LONGEST_SOCKET
