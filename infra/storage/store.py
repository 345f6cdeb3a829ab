"""The artifact store: bytes by key, in a local directory or a bucket. Objects are written once and not overwritten.

The store needs one guarantee: to create an object only if it is absent. In a directory this is done by a temporary file
and a hard link, in a bucket by a conditional PUT. Some S3 servers accept the condition and ignore it; `Store.open`
tests this and refuses such a server.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from infra.confined import is_confined
from infra.names import OBJECTS, digest_of, object_key
from infra.storage.errors import StoreError, store_errors, with_retries
from infra.storage.local_files import (
    copy_checked,
    create_file,
    folder_locked,
    point_link,
    remove_abandoned,
    replace_file,
)

FORMAT = 1
TRASH = "trash"  # the garbage collector moves objects here first; they are still read
_TRASHED = (OBJECTS, "parts/", "models/", "weights/")
_PRECONDITION_CODES = ("PreconditionFailed", "412")
_WRITER = "reneg-writer"  # metadata of an object in a bucket: which call wrote it
# The client repeats a request once; `with_retries` repeats the whole operation. No environment variable changes this.
_S3_CLIENT = {"connect_timeout": 5, "read_timeout": 30, "retries": {"total_max_attempts": 2, "mode": "standard"}}

__all__ = ["FORMAT", "TRASH", "Entry", "Store", "StoreError"]


@dataclass(frozen=True)
class Entry:
    """One object of a listing: its size in bytes, and when it was written, in seconds since the epoch."""

    size: int
    written: float


class Store:
    """Bytes by key below one root; keys are relative paths with `/`."""

    writable = True

    def __init__(self, url: str) -> None:
        """Keep the address of a store; only `Store.open` checks the store."""
        self.url = url
        options = {"config_kwargs": _S3_CLIENT} if url.startswith("s3://") else {}
        try:
            self._fs, root = url_to_fs(url, **options)
        except (ValueError, ImportError) as error:
            raise StoreError(
                f"store {url!r}: not an address this build can use ({error}); give a path or s3://"
            ) from error
        self._root = root.rstrip("/")
        protocol = self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
        self.local = "file" in protocol
        if not self.local:
            self._fs.retries = 1  # attempts of s3fs itself

    @classmethod
    def open(cls, url: str, *, write: bool = True) -> "Store":
        """Open a store and check its format version; for writing, also test create-if-absent.

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
        if key and not is_confined(key):
            raise StoreError(f"store key {key!r} would leave the store; a damaged or forged manifest may name it")
        return f"{self._root}/{key}" if key else self._root

    def read(self, key: str, *, last: int | None = None) -> bytes | None:
        """Read an object, or its `last` bytes only; None where there is none.

        An object in the trash is read from there. The client compares the length of what came with what was announced.
        """
        data = self._read(key, last)
        if data is None and key.startswith(_TRASHED):
            data = self._read(f"{TRASH}/{key}", last)
        return data

    def _read(self, key: str, last: int | None) -> bytes | None:
        path, start = self._path(key), None if last is None else -last
        data: bytes | None = self._attempt("read", key, lambda: self._fs.cat_file(path, start=start), None)
        return data

    def read_json(self, key: str) -> Any:  # noqa: ANN401 - JSON is any
        """Read a JSON object, or None where there is none.

        Raises:
            StoreError: it cannot be read, or is no JSON.
        """
        data = self.read(key)
        try:
            return None if data is None else json.loads(data)
        except ValueError as error:
            raise StoreError(
                f"store {self.url}: {key} is damaged ({error}); restore it from a backup, or delete it"
            ) from error

    def create(self, key: str, data: bytes | bytearray) -> bool:
        """Create an object; True if this call wrote it, False if it was there already (nothing is changed then).

        The answer is right even if a connection breaks after the server has written and the request is repeated: each
        call writes a mark of its own beside the bytes, and compares the mark that is there.
        """
        writer = uuid.uuid4().hex
        if self.local:
            path = Path(self._path(key))
            return bool(self._attempt("write", key, lambda: create_file(path, data, writer, self.url)))
        return bool(self._attempt("write", key, lambda: self._create_object(key, bytes(data), writer)))

    def _create_object(self, key: str, data: bytes, writer: str) -> bool:
        try:
            self._fs.pipe_file(self._path(key), data, mode="create", Metadata={_WRITER: writer})
        except OSError as error:
            # If the answer to a completed multipart upload was lost, the repeated request does not find the upload any
            # more.
            if _is_refusal(error):
                return self._writer_of(key) == writer
            if isinstance(error, FileNotFoundError) and self._writer_of(key) == writer:
                return True
            raise
        return True

    def _writer_of(self, key: str) -> str | None:
        """Return the mark of the call that wrote an object of a bucket; None without an object or a mark."""
        bucket, name, _ = self._fs.split_path(self._path(key))
        try:
            head = self._fs.call_s3("head_object", Bucket=bucket, Key=name)
        except FileNotFoundError:
            return None
        return {str(name).lower(): value for name, value in head["Metadata"].items()}.get(_WRITER)

    def list(self, prefix: str) -> list[str]:
        """List the keys below a prefix (a folder), sorted; the listing is never a cached one."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """List the keys below a prefix with their sizes in bytes."""
        return {key: entry.size for key, entry in self.entries(prefix).items()}

    def entries(self, prefix: str) -> dict[str, Entry]:
        """List the keys below a prefix with their sizes and when they were written."""
        path = self._path(prefix)
        self._fs.invalidate_cache()
        found = self._attempt("list", prefix, lambda: self._fs.find(path, detail=True), {})
        # A listing may name an empty folder. A link to a folder is left out: its files are listed in the folder itself.
        files = {
            path: info
            for path, info in found.items()
            if info.get("type") != "directory" and not (info.get("islink") and self._fs.isdir(path))
        }
        entries = {self._strip(path)[len(self._root) + 1 :]: entry_of(info) for path, info in files.items()}
        return {name: entry for name, entry in entries.items() if not name.endswith(".tmp")}

    def holds(self, prefix: str) -> bool:
        """Tell whether anything is below a prefix (a folder), without listing it all."""
        path = self._path(prefix)
        self._fs.invalidate_cache()
        return bool(self._attempt("list", prefix, lambda: self._fs.ls(path, detail=False), ()))

    def _strip(self, path: str) -> str:
        return str(self._fs._strip_protocol(path))

    @staticmethod
    def key_of(data: bytes, suffix: str) -> str:
        """Return the key of bytes that are stored under their own SHA-256."""
        return object_key(hashlib.sha256(data).hexdigest() + suffix)

    def put_object(self, data: bytes, suffix: str) -> str:
        """Store bytes under their own SHA-256 and return the key; what is there is written again if it is damaged."""
        key = self.key_of(data, suffix)
        found = self._attempt("compare", key, lambda: self._fs.cat_file(self._path(key)), None)
        if found is None:
            self.create(key, data)
        elif found != data:
            self.repair(key, data)
        return key

    def repair(self, key: str, data: bytes) -> None:
        """Overwrite a damaged object with the bytes that its key names; only for content-addressed keys."""
        path = self._path(key)
        write = (lambda: replace_file(Path(path), data)) if self.local else (lambda: self._fs.pipe_file(path, data))
        self._attempt("repair", key, write)

    def delete(self, key: str) -> None:
        """Remove an object; no error if it is gone already. A bucket with versioning keeps the old version."""
        path = self._path(key)
        self._attempt("delete", key, lambda: self._fs.rm_file(path), None)

    def move(self, key: str, target: str) -> bool:
        """Move an object to another key, over what is there, and set its time to now; False if it is gone already.

        A bucket copies and then deletes: a process that is killed in between leaves both.
        """

        def change() -> bool:
            if self.local:
                Path(to).parent.mkdir(parents=True, exist_ok=True)
                os.utime(path)
                Path(path).replace(to)
            else:
                self._fs.cp_file(path, to)
                self._fs.rm_file(path)
            return True

        path, to = self._path(key), self._path(target)
        return bool(self._attempt("move", key, change, False))

    def sweep(self, older: float = 3600.0) -> int:
        """Remove temporary files of killed writers, by age in seconds; only local stores have such files."""
        return remove_abandoned(Path(self._root), older) if self.local else 0

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes without reading it; None where there is none."""
        path = self._path(key)
        self._fs.invalidate_cache()
        found: int | None = self._attempt("look at", key, lambda: self._fs.size(path), None)
        return found

    def find(self, key: str) -> tuple[str, int] | None:
        """Find an object in its place or in the trash; returns the key it has there and its size in bytes."""
        for place in (key, f"{TRASH}/{key}"):
            if (size := self.size(place)) is not None:
                return place, size
        return None

    def find_object(self, key: str) -> tuple[str, int]:
        """Find a content-addressed object, as `find` does.

        Raises:
            StoreError: the key is no object's, or nothing is there.
        """
        self.check_object(key)
        found = self.find(key)
        if found is None:
            raise StoreError(f"store {self.url}: object {key} is missing; rerun its part")
        return found

    def check_object(self, key: str) -> None:
        """Raise StoreError for a key that is no object's."""
        if not key.startswith(OBJECTS):
            raise StoreError(
                f"store {self.url}: {key!r} is no object, though a manifest names it: damaged or forged; rerun its part"
            )

    def exists(self, key: str) -> bool:
        """Tell whether an object is there, without reading it."""
        path = self._path(key)
        self._fs.invalidate_cache()
        return bool(self._attempt("look for", key, lambda: self._fs.exists(path)))

    def get_object(self, key: str) -> bytes:
        """Read a content-addressed object and check its digest.

        Raises:
            StoreError: it is gone, or its bytes are not those that were written.
        """
        self.check_object(key)
        data = self.read(key)
        if data is None:
            raise StoreError(f"store {self.url}: object {key} is missing; rerun its part")
        found = hashlib.sha256(data).hexdigest()
        if found != digest_of(key):
            raise StoreError(f"store {self.url}: object {key} is damaged (SHA-256 {found}); rerun its part")
        return data

    def replace(self, key: str, data: bytes) -> None:
        """Write an object in one step, over one that may be there; only for keys that follow a numbered pointer."""
        if self.local:
            Path(self._path(key)).parent.mkdir(parents=True, exist_ok=True)
        self.repair(key, data)

    def swap(self, key: str, data: bytes, old: bytes | None) -> bool:
        """Replace an object whose content is still `old` (None: that is still absent); False if it is another by now.

        In a directory the caller holds `exclusively`. In a bucket it is one conditional PUT (`If-Match`); a server that
        does not know the condition only compares before it writes.
        """
        if not self.local and old is not None:
            return bool(self._attempt("replace", key, lambda: self._swap_object(key, data, old), False))
        if self.read(key) != old:
            return False
        if old is None:
            return self.create(key, data)
        self.replace(key, data)
        return True

    def _swap_object(self, key: str, data: bytes, old: bytes) -> bool:
        bucket, name, _ = self._fs.split_path(self._path(key))
        tag = self._fs.call_s3("head_object", Bucket=bucket, Key=name)["ETag"]
        if self.read(key) != old:
            return False
        try:
            self._fs.call_s3("put_object", Bucket=bucket, Key=name, Body=data, IfMatch=tag)
        except OSError as error:
            if _is_refusal(error):
                return False
            raise
        return True

    def exclusively(self, prefix: str) -> contextlib.AbstractContextManager[None]:
        """Lock a folder of a local store against the others that do this; a bucket has no locks."""
        return folder_locked(Path(self._path(prefix))) if self.local else contextlib.nullcontext()

    def copy_object(self, key: str, target: str) -> int:
        """Copy a content-addressed object to a plain name, unless one of its size is there; returns its size in bytes.

        It is no link, so that writing into the copy does not change the object. In a bucket the server makes the copy.
        """
        key, size = self.find_object(key)
        if self.size(target) == size:
            return size
        with self._errors("copy", key):
            if not self.local:
                with_retries(lambda: self._fs.cp_file(self._path(key), self._path(target)))
                return size
            if not copy_checked(Path(self._path(key)), Path(self._path(target)), digest_of(key), read_only=True):
                raise StoreError(f"store {self.url}: object {key} is damaged; rerun its part")
        return size

    def link(self, key: str, target: str | None) -> None:
        """Point a symbolic link to a folder beside it in one step, or remove the link; only in local stores."""
        if not self.local:
            return
        with self._errors("link", key):
            point_link(Path(self._path(key)), target)

    def delete_folder(self, prefix: str) -> None:
        """Remove everything below a prefix; no error if it is gone already."""
        with self._errors("delete", prefix), contextlib.suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            self._fs.rm(self._path(prefix), recursive=True)

    def _attempt(self, verb: str, key: str, call: Callable[[], Any], *missing: Any) -> Any:  # noqa: ANN401 - as called
        """Run a call that may safely run twice: repeat it on a bucket's temporary failures, raise others as StoreError.

        missing: what to return if the object does not exist, instead of raising an error.
        """
        with self._errors(verb, key):
            try:
                return call() if self.local else with_retries(call)
            except FileNotFoundError:
                if missing:
                    return missing[0]
                raise

    def _errors(self, verb: str, key: str) -> contextlib.AbstractContextManager[None]:
        return store_errors(self.url, verb, key, local=self.local)


def _is_refusal(error: OSError) -> bool:
    """Tell whether a server refused a conditional write; s3fs raises FileExistsError or EINVAL, by server."""
    response = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") in _PRECONDITION_CODES


def entry_of(info: Mapping[str, Any]) -> Entry:
    """Read what a listing says of an object."""
    written = info.get("LastModified", info.get("mtime", 0.0))
    return Entry(int(info.get("size", 0)), written if isinstance(written, float) else float(written.timestamp()))
