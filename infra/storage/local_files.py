"""Files of a local store: checked copies, links, locks, and what killed writers left."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from infra.storage.errors import NO_LINKS, StoreError

_PIECE = 2**20  # one buffer of this size serves a whole copy: fresh memory for each piece costs more than its SHA-256
_LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.02


def copy_hashed(source: Path, target: Path, *, durable: bool = True) -> str:
    """Copy a file over what may be there, and return the SHA-256 of what was copied.

    durable: the bytes are on the disk when this returns.

    Raises:
        OSError: it cannot be read or written.
    """
    copied, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with source.open("rb", buffering=0) as original, target.open("wb") as file:
        while size := original.readinto(buffer):
            copied.update(buffer[:size])
            file.write(buffer[:size])
        file.flush()
        if durable:
            os.fsync(file.fileno())
    return copied.hexdigest()


def copy_checked(source: Path, target: Path, digest: str, *, read_only: bool = False) -> bool:
    """Copy a file whose SHA-256 is known; returns False and copies nothing if the file has another one.

    The target appears under its name only when it is complete.

    Raises:
        OSError: it cannot be read or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        if copy_hashed(source, temporary) != digest:
            return False
        if read_only:
            temporary.chmod(0o444)
        temporary.replace(target)  # what may be there has the same bytes, or was cut short
    finally:
        temporary.unlink(missing_ok=True)
    return True


def link_file(source: Path, target: Path) -> bool:
    """Make a durable file appear under a second name, over what may be there; False where that is not possible.

    Both names are the same file afterwards, so nobody may write into it. It gets the rights and the time of a file that
    is made now: some writers make theirs for their owner alone, and `gc` spares what is young. A file system without
    hard links, or another one than that of the source, cannot do this.

    Raises:
        OSError: it cannot be read or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.hardlink_to(source)
    except OSError as error:
        if error.errno in (*NO_LINKS, errno.EXDEV):
            return False
        raise
    try:
        temporary.chmod(0o666 & ~_umask())
        os.utime(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _umask() -> int:
    """Read this process's umask; asking by setting it would open the files that other threads make meanwhile."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077


def create_file(path: Path, data: bytes | bytearray, writer: str, url: str) -> bool:
    """Create a file whole and only if it is absent; False if it was there. `writer` names this call, `url` the store.

    Raises:
        StoreError: the file system has no hard links.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{writer}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in NO_LINKS:
                raise StoreError(
                    f"store {url}: this file system has no hard links ({error.strerror}), by which a file is created "
                    "whole and only if absent; give a path on another file system, or s3://"
                ) from error
            raise
        return True
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step, over one that may be there: a reader sees the old bytes or the new ones.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Lock a folder against the other users of this function, on this machine; the folder is created if it is absent.

    The system ends the lock of a process that dies. A process that is paused keeps it: after ten seconds the caller
    goes on without the lock. So the lock makes a race rare, and whoever needs more must check the result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)
            except OSError:  # this file system has no locks
                break
        yield
    finally:
        os.close(handle)


def point_link(path: Path, target: str | None) -> None:
    """Point a symbolic link to a target in one step, or remove it; a link that is right already is left alone.

    Raises:
        OSError: it cannot be written.
    """
    if target is None:
        path.unlink(missing_ok=True)
    elif not path.is_symlink() or str(path.readlink()) != target:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        temporary.symlink_to(target)
        temporary.replace(path)


def remove_abandoned(root: Path, older: float) -> int:
    """Remove the temporary files of killed writers below a folder, by age in seconds; returns how many."""
    removed = 0
    for path in root.rglob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # its writer is alive and has just renamed it
            if time.time() - path.lstat().st_mtime > older:
                path.unlink()
                removed += 1
    return removed


def remove_abandoned_folders(cache: Path, older: float) -> int:
    """Remove the folders of a cache that killed processes left half-written, by age in seconds; returns how many."""
    removed = 0
    for path in [*cache.glob(".*"), *cache.glob("weights/.*.tmp")]:
        with contextlib.suppress(OSError):  # another process removed or renamed it
            if path.is_dir() and time.time() - path.stat().st_mtime > older:
                shutil.rmtree(path)
                removed += 1
    return removed
