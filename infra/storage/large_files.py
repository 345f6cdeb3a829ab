"""Storing files and writing them out again, in pieces: a model may be larger than the memory of a node.

The keys are those of `Store.put_object`: the same bytes are one object, whoever stored them.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from infra.confined import is_confined
from infra.models.wheels import sha256_of
from infra.names import digest_of, object_key
from infra.storage.local_files import copy_checked
from infra.storage.store import Store, StoreError

_PIECE = 16 * 2**20
_PIECES = 4  # of an upload at a time


def put_file(store: Store, path: Path, suffix: str = "") -> str:
    """Store a file under its own SHA-256 and return the key; a few pieces of it at most are in memory.

    Raises:
        StoreError: it could not be written, or the store is a snapshot that may only be read.
    """
    if not store.writable:
        raise StoreError(f"store {store.url}: {path} would be stored while the store is only looked at")
    digest, size = sha256_of(path), path.stat().st_size
    key = object_key(digest + suffix)
    if store.size(key) == size:
        return key
    if store.local:
        with store._errors("write", key):
            if not copy_checked(path, Path(store._path(key)), digest):
                raise StoreError(f"{path} was changed while it was stored; leave it alone and try again")
    else:
        remote = store._path(key)
        # Overwriting is safe: the key is the content's hash, so what lies there is the same or was cut short.
        store._attempt(
            "write", key, lambda: store._fs.put_file(str(path), remote, chunksize=_PIECE, max_concurrency=_PIECES)
        )
    return key


def get_file(store: Store, key: str, path: Path) -> None:
    """Write a content-addressed object to a new file and check its SHA-256.

    If a connection breaks, only the piece is requested again. A file with another SHA-256 is removed.

    Raises:
        StoreError: the object is gone, cannot be read, or is damaged.
    """
    place, size = store.find_object(key)
    remote, digest = store._path(place), hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            piece = _read(store, remote, key, (start, min(start + _PIECE, size)))
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != digest_of(key):
        path.unlink()
        raise StoreError(f"store {store.url}: object {key} is damaged (SHA-256 {digest.hexdigest()}); delete it")


def get_files(store: Store, files: Mapping[str, str], folder: Path, what: str) -> None:
    """Write objects to files below a new folder.

    Args:
        store: that holds the objects.
        files: the files' names, relative to the folder, and the objects' keys.
        folder: where they are written.
        what: named in errors, such as `directory model`.

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
        get_file(store, key, folder / name)


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
