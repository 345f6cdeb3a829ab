"""One store for everything: a local directory or a bucket, written once, never overwritten (DESIGN section 4).

The only condition asked of a store is *create if absent*: local files by a temporary file and a hard link, objects by a
conditional PUT. Some S3 servers accept the condition and ignore it; `Store.open` finds out and refuses them.
"""

import contextlib
import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

FORMAT = 1
_PRECONDITION_CODES = ("PreconditionFailed", "412", "ConditionalRequestConflict")
# A bucket that does not answer must be an error within seconds, not minutes.
_S3_OPTIONS: dict[str, Any] = {
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3, "mode": "standard"}}
}


class StoreError(Exception):
    """The store cannot be used: what was tried, what came, what to do."""


class Store:
    """Bytes by key below one root; keys are relative paths with `/`."""

    def __init__(self, url: str) -> None:
        """Address a store without touching it; use `Store.open` to check it first."""
        self.url = url
        options = _S3_OPTIONS if url.startswith("s3://") else {}
        try:
            self._fs, root = url_to_fs(url, **options)
        except (ValueError, ImportError) as error:
            raise StoreError(
                f"store {url!r}: not an address this build can use ({error}); give a path or s3://"
            ) from error
        self._root = root.rstrip("/")
        protocol = self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
        self.local = "file" in protocol

    @classmethod
    def open(cls, url: str, *, write: bool = True) -> "Store":
        """Open a store and check its format version; for writing, also probe the condition it must honour.

        Raises:
            StoreError: it cannot be reached or written, ignores create-if-absent, or has another format.
        """
        store = cls(url)
        written = store.read_json("FORMAT.json")
        if write or written is None:
            store._probe()
        if written is None:
            store.create("FORMAT.json", json.dumps({"format": FORMAT}).encode())
            written = store.read_json("FORMAT.json")
        if not isinstance(written, dict) or written.get("format") != FORMAT:
            found = written.get("format") if isinstance(written, dict) else written
            raise StoreError(
                f"store {url}: format {found!r} found, this version reads {FORMAT}; use another store path"
            )
        return store

    def _probe(self) -> None:
        key = f"probe/{uuid.uuid4().hex}"
        first, second = self.create(key, b"1"), self.create(key, b"2")
        with contextlib.suppress(OSError, StoreError):
            self._fs.rm(self._path(key))
        if not first or second:
            raise StoreError(
                f"store {self.url}: the server accepted the same object twice although it was asked to create it only "
                "if absent (If-None-Match); two writers would corrupt each other. Use a server that honours the "
                "condition (AWS S3, SeaweedFS, …)"
            )

    def _path(self, key: str) -> str:
        if key.startswith("/") or ".." in key.split("/"):
            raise StoreError(f"store key {key!r} would leave the store")
        return f"{self._root}/{key}"

    def read(self, key: str, *, last: int | None = None) -> bytes | None:
        """Read an object, or its `last` bytes only; None where there is none."""
        start = None if last is None else -last
        with self._errors("read", key):
            try:
                data: bytes = self._fs.cat_file(self._path(key), start=start)
            except FileNotFoundError:
                return None
            return data

    def read_json(self, key: str) -> Any:  # noqa: ANN401 - JSON is any
        """Read a JSON object, or None where there is none."""
        data = self.read(key)
        return None if data is None else json.loads(data)

    def create(self, key: str, data: bytes) -> bool:
        """Create an object; True if this call wrote it, False if it was there already (nothing is changed then)."""
        with self._errors("write", key):
            return self._create_file(key, data) if self.local else self._create_object(key, data)

    def _create_file(self, key: str, data: bytes) -> bool:
        path = Path(self._path(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
            return True
        finally:
            temporary.unlink(missing_ok=True)

    def _create_object(self, key: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._path(key), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # s3fs maps the refusal to FileExistsError for some servers only; others arrive as EINVAL.
            response = getattr(error.__cause__, "response", None) or {}
            if response.get("Error", {}).get("Code") in _PRECONDITION_CODES:
                return False
            raise
        return True

    def list(self, prefix: str) -> list[str]:
        """List the keys below a prefix (a folder), sorted; never a stale listing."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """List the keys below a prefix with their sizes in bytes."""
        with self._errors("list", prefix):
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(self._path(prefix), detail=True)
            except FileNotFoundError:
                return {}
        sizes = {self._strip(path)[len(self._root) + 1 :]: int(info.get("size", 0)) for path, info in found.items()}
        return {name: size for name, size in sizes.items() if not name.endswith(".tmp")}

    def holds(self, prefix: str) -> bool:
        """Tell whether anything is below a prefix (a folder), without listing it all."""
        with self._errors("list", prefix):
            self._fs.invalidate_cache()
            try:
                return bool(self._fs.ls(self._path(prefix), detail=False))
            except FileNotFoundError:
                return False

    def _strip(self, path: str) -> str:
        return str(self._fs._strip_protocol(path))

    def put_object(self, data: bytes, suffix: str) -> str:
        """Store bytes under their own SHA-256 and return the key; the same bytes are stored once."""
        digest = hashlib.sha256(data).hexdigest()
        key = f"objects/{digest[:2]}/{digest}{suffix}"
        if not self.exists(key):
            self.create(key, data)
        elif self._size(key) != len(data):
            self.repair(key, data)  # cut short by a failing disk or server; the name says what belongs here
        return key

    def repair(self, key: str, data: bytes) -> None:
        """Write the bytes that the key's name calls for over whatever lies there: for content-addressed keys only."""
        with self._errors("repair", key):
            if not self.local:
                self._fs.pipe_file(self._path(key), data)
                return
            path = Path(self._path(key))
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            try:
                temporary.write_bytes(data)
                temporary.replace(path)  # a reader sees the old bytes or the new ones, never half
            finally:
                temporary.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone already is no error.

        Only the ledger's compaction and the purge remove anything; a bucket with versions keeps the old ones itself.
        """
        with self._errors("delete", key), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def sweep(self, older: float = 3600.0) -> int:
        """Remove what killed writers left half-written, by age in seconds; only local stores have such files."""
        if not self.local:
            return 0
        left = [p for p in Path(self._root).rglob(".*.tmp") if time.time() - p.stat().st_mtime > older]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _size(self, key: str) -> int:
        with self._errors("look at", key):
            return int(self._fs.size(self._path(key)))

    def exists(self, key: str) -> bool:
        """Tell whether an object is there, without reading it."""
        with self._errors("look for", key):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path(key)))

    def get_object(self, key: str) -> bytes:
        """Read a content-addressed object and check its digest.

        Raises:
            StoreError: it is gone, or its bytes are not those that were written.
        """
        data = self.read(key)
        if data is None:
            raise StoreError(f"store {self.url}: object {key} is missing though a manifest names it; rerun its part")
        expected = key.rsplit("/", 1)[-1].split(".", maxsplit=1)[0]
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise StoreError(f"store {self.url}: object {key} is damaged (SHA-256 {found}); rerun its part")
        return data

    @contextlib.contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"store {self.url}: cannot {verb} {key}: {_reason(error)}") from error
        except Exception as error:
            # botocore raises its own classes for a bucket that does not answer; anything else is a defect of ours.
            if type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp"):
                raise StoreError(
                    f"store {self.url}: cannot {verb} {key}: {error}; check the address, AWS_ENDPOINT_URL and the keys"
                ) from error
            raise


def _reason(error: OSError) -> str:
    remedies: Mapping[int, str] = {
        errno.ENOSPC: "the disk is full; nothing half-written was kept. Free space, then run again",
        errno.EACCES: "permission denied; give a path this user may write",
        errno.EPERM: "permission denied; give a path this user may write",
        errno.EROFS: "the file system is read-only; give another path",
        errno.ENOTDIR: "a file stands where a folder is needed; give another path",
    }
    return remedies.get(error.errno or 0, f"{type(error).__name__}: {error}")
