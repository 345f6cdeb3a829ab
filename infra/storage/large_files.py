"""Files into a store and out of it, piece by piece: weights are larger than what a node can hold in memory.

The keys are those of `Store.put_object`: the same bytes are one object, however they came there.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from infra.models.wheels import sha256_of
from infra.storage.local_files import copy_checked
from infra.storage.store import TRASH, Store, StoreError, digest_of

_PIECE = 16 * 2**20
_PIECES = 4  # of an upload at a time


def put_file(store: Store, path: Path, suffix: str = "") -> str:
    """Store a file under its own SHA-256 and return the key; a few pieces of it at most are in memory.

    Raises:
        StoreError: it could not be written.
    """
    digest, size = sha256_of(path), path.stat().st_size
    key = f"objects/{digest[:2]}/{digest}{suffix}"
    if store.size(key) == size:
        return key
    if store.local:
        with store._errors("write", key):
            if not copy_checked(path, Path(store._path(key)), digest):
                raise StoreError(f"{path} was changed while it was stored; leave it alone and try again")
    else:
        remote = store._path(key)
        # The name says what belongs here: whatever is written over it is the same, or was cut short.
        store._attempt(
            "write", key, lambda: store._fs.put_file(str(path), remote, chunksize=_PIECE, max_concurrency=_PIECES)
        )
    return key


def get_file(store: Store, key: str, path: Path) -> None:
    """Write a content-addressed object to a new file, checking its SHA-256 on the way.

    Each piece is asked for again where a connection breaks. A wrong file is removed.

    Raises:
        StoreError: the object is gone, cannot be read, or is damaged.
    """
    expected = digest_of(key)
    found = key if store.exists(key) else f"{TRASH}/{key}"
    if found != key and not store.exists(found):
        raise StoreError(f"store {store.url}: object {key} is missing")
    remote, size, digest = store._path(found), store._size(found), hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            piece = _read(store, remote, key, (start, min(start + _PIECE, size)))
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != expected:
        path.unlink()
        raise StoreError(f"store {store.url}: object {key} is damaged (SHA-256 {digest.hexdigest()}); delete it")


def _read(store: Store, remote: str, key: str, piece: tuple[int, int]) -> bytes:
    start, end = piece
    data: Any = store._attempt("read", key, lambda: store._fs.cat_file(remote, start=start, end=end))
    return bytes(data)
