"""Storing files and writing them out again, in pieces: a model may be larger than the memory of a node.

The keys are those of `Store.put_object`: the same bytes are one object, whoever stored them.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from infra.confined import is_confined
from infra.models.wheels import sha256_of
from infra.names import digest_of, object_key
from infra.storage.local_files import copy_checked, copy_hashed, link_file
from infra.storage.store import Store, StoreError, entry_of

_PIECE = 16 * 2**20
_PIECES = 4  # of an upload at a time
_SAME_TIME = 0.001  # seconds; less than between two writes of a file by people


def put_file(store: Store, path: Path, suffix: str = "", *, ours: bool = False) -> str:
    """Store a file under its own SHA-256 and return the key; a few pieces of it at most are in memory.

    ours: nobody writes into the file any more, so that a local store can take the file itself and need not copy it.

    Raises:
        StoreError: it could not be written, or the store is a snapshot that may only be read.
    """
    if not store.writable:
        raise StoreError(f"store {store.url}: {path} would be stored while the store is only looked at")
    digest, size = sha256_of(path), path.stat().st_size
    key = object_key(digest + suffix)
    if store.size(key) == size:
        return key
    # Overwriting is safe: the key is the content's hash, so what lies there is the same or was cut short.
    if ours and store.local:
        with store._errors("write", key):
            if link_file(path, Path(store._path(key))):
                return key
    upload(store, path, key, digest)
    return key


def upload(store: Store, path: Path, key: str, digest: str) -> None:
    """Write a file whose SHA-256 is known to a key, over what may be there.

    Raises:
        StoreError: it could not be written, or the file was changed meanwhile.
    """
    if store.local:
        with store._errors("write", key):
            if not copy_checked(path, Path(store._path(key)), digest):
                raise StoreError(f"{path} was changed while it was stored; leave it alone and try again")
        return
    remote = store._path(key)
    store._attempt(
        "write", key, lambda: store._fs.put_file(str(path), remote, chunksize=_PIECE, max_concurrency=_PIECES)
    )


def get_file(store: Store, key: str, path: Path) -> None:
    """Write a content-addressed object to a new file and check its SHA-256.

    If a connection breaks, only the piece is requested again. A file with another SHA-256 is removed.

    Raises:
        StoreError: the object is gone, cannot be read, or is damaged.
    """
    place, size = store.find_object(key)
    download(store, place, size, path, digest_of(key))


def download(store: Store, key: str, size: int, path: Path, wanted: str, *, durable: bool = True) -> None:
    """Write an object of `size` bytes to a new file and check that its SHA-256 is the wanted one, as `get_file` does.

    durable: the bytes are on the disk when this returns.

    Raises:
        StoreError: the object is gone, cannot be read, or is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if store.local:
        found = store._attempt("copy", key, lambda: copy_hashed(Path(store._path(key)), path, durable=durable))
    else:
        found = _fetch(store, key, size, path, durable=durable)
    if found != wanted:
        path.unlink()
        raise StoreError(f"store {store.url}: object {key} is damaged (SHA-256 {found}); delete it")


def _fetch(store: Store, key: str, size: int, path: Path, *, durable: bool) -> str:
    """Write an object of a bucket to a file, piece by piece, and return the SHA-256 of what came."""
    remote, digest = store._path(key), hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            piece = _read(store, remote, key, (start, min(start + _PIECE, size)))
            digest.update(piece)
            file.write(piece)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    return digest.hexdigest()


def place_file(store: Store, key: str, path: Path) -> bool:
    """Write a content-addressed object to a file, over one that may be there, in one step; False if it lies there.

    A file that was placed has the time of its object. So it lies there already if size and time are those of the
    object, and nobody has written into it since; it is not read for that.

    Nothing waits until its bytes are on the disk: it is a copy, and the object is on the disk. After a power failure a
    file that was cut short has another size, and is placed again.

    Raises:
        StoreError: the object is gone, cannot be read, or is damaged.
    """
    place, size = store.find_object(key)
    written = _written(store, place)
    if path.is_file() and not path.is_symlink():
        there = path.stat()
        if there.st_size == size and abs(there.st_mtime - written) < _SAME_TIME:
            return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        download(store, place, size, temporary, digest_of(key), durable=False)
        os.utime(temporary, (written, written))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _written(store: Store, key: str) -> float:
    """Return when an object was written, in seconds since the epoch."""
    store._fs.invalidate_cache()
    return entry_of(store._attempt("look at", key, lambda: store._fs.info(store._path(key)))).written


def get_files(
    store: Store,
    files: Mapping[str, str],
    folder: Path,
    what: str,
    nearby: Callable[[str, str], Path | None] = lambda name, key: None,
) -> None:
    """Write objects to files below a new folder.

    Args:
        store: that holds the objects.
        files: the files' names, relative to the folder, and the objects' keys.
        folder: where they are written.
        what: named in errors, such as `directory model`.
        nearby: returns where a file, given by name and object, lies on this disk already, checked when it was written;
            it is linked and not copied.

    Raises:
        StoreError: an object is gone or damaged, a name would leave the folder, or names a file below a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, key in files.items():
        if not is_confined(name):
            raise StoreError(
                f"{what}: file name {name!r} would leave its folder; the record that holds it is damaged or forged"
            )
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(f"{what}: {name!r} lies below another file; rerun its part") from error
        if (folder / name).exists():
            raise StoreError(
                f"{what}: {name!r} is the same file as another name on this file system; set RENEG_CACHE to another one"
            )
        found = nearby(name, key)
        if found is None or not _linked(folder / name, found):
            get_file(store, key, folder / name)


def _linked(path: Path, target: Path) -> bool:
    """Make a path a second name of a file; False where that is not possible."""
    try:
        path.hardlink_to(target)
    except OSError:
        return False
    return True


def end_uploads(store: Store, older: float) -> int:
    """End the uploads in pieces that killed writers left in a bucket, by age in seconds; returns how many.

    Where the server or the user's rights do not allow it, they stay; so a bucket should have a rule for them.
    """
    if store.local:
        return 0
    bucket, prefix, _ = store._fs.split_path(store._path(""))
    call = store._fs.call_s3
    ended = 0
    with contextlib.suppress(StoreError):
        below = f"{prefix}/" if prefix else ""
        listed = store._attempt("list", "uploads", lambda: call("list_multipart_uploads", Bucket=bucket, Prefix=below))
        for upload in listed.get("Uploads") or ():
            if time.time() - upload["Initiated"].timestamp() > older:
                named = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                end = partial(call, "abort_multipart_upload", **named)
                store._attempt("end", "an upload", end, None)
                ended += 1
    return ended


def _read(store: Store, remote: str, key: str, piece: tuple[int, int]) -> bytes:
    start, end = piece
    data: Any = store._attempt("read", key, lambda: store._fs.cat_file(remote, start=start, end=end))
    return bytes(data)
