"""Releases: numbered pointers in the store, and a stable path that holds the files of the newest one.

`releases/<name>/HEAD-NNNNNN.json` is a pointer. It is written once and never changed. The pointer with the highest
number is current; going back to an earlier release writes a new pointer. `published/<name>/NNNNNN/` holds a pointer's
files under plain names, and `published/<name>/latest.json` says which number to read. The caller decides what a pointer
holds, except for `exports` (file name to object), `because`, and, for a rollback, `of` (the number it goes back to) and
`left` (see `passed_by`).

A release is written in this order, so that nobody reads half of it: the pointer, the files, `release.json` beside
them, then `latest.json` in one step. If a process dies in between, the pointer is there but not published yet; the next
`publish` completes it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from infra.names import digest_of
from infra.storage import numbered_records
from infra.storage.numbered_records import padded
from infra.storage.store import Store, StoreError

Record = Mapping[str, Any]

ROLLED_BACK = "rolled back"
CURRENT = "current"
LATEST = "latest.json"
RELEASE = "release.json"
_HEAD = "/HEAD"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_THREADS = 8


def numbers(store: Store, name: str) -> list[int]:
    """List the numbers of a name's pointers, oldest first."""
    return numbered_records.numbers(store, _line(name))


def names(store: Store) -> list[str]:
    """List the names that have pointers."""
    found = (numbered_records.parse_key(key) for key in store.list("releases"))
    return sorted({parsed[0].split("/")[1] for parsed in found if parsed and parsed[0].endswith(_HEAD)})


def read_all(store: Store, name: str) -> list[Record]:
    """Read every pointer of a name, oldest first."""
    return _read_all(store, name, numbers(store, name))


def newest(store: Store, name: str) -> Record | None:
    """Read the current pointer of a name; None where there is none."""
    record: Record | None = numbered_records.read_newest(store, _line(name))
    return record


def advance(store: Store, name: str, make: Callable[[list[Record]], Record | None]) -> Record | None:
    """Write the next pointer; if another writer takes its number first, ask `make` again.

    Args:
        store: where the pointers lie.
        name: of the releases.
        make: gets every pointer so far, oldest first, and returns the content of the next one, or None for none.

    Returns:
        The pointer as it was written, with its `number`; None where `make` wanted none.
    """
    written: list[Record | None] = []

    def decide(taken: list[int]) -> Record | None:
        content = make(_read_all(store, name, taken))
        written.append(None if content is None else {"number": numbered_records.next_number(taken), **content})
        return written[-1]

    numbered_records.decide_next(store, _line(name), decide)
    return written[-1]


def publish(store: Store, name: str) -> Record | None:
    """Publish the files of the current pointer; returns what `latest.json` says, None without a pointer.

    Any number of writers may publish at once: a writer that finds a higher number afterwards publishes that one too.

    Raises:
        StoreError: a file of the release is missing or damaged; the path stays as it was.
    """
    while True:
        record = newest(store, name)
        if record is None:
            return None
        number = int(record["number"])
        latest = read_latest(store, name)
        if latest is None or latest["number"] != number:
            laid_out = _lay_out(store, name, record)
            if numbers(store, name)[-1] != number:
                continue
            store.replace(f"published/{name}/{LATEST}", _json(laid_out))
            latest = laid_out
        store.link(f"published/{name}/{CURRENT}", padded(number))
        if numbers(store, name)[-1] == number:
            return latest


def read_latest(store: Store, name: str) -> dict[str, Any] | None:
    """Read which release trainers read now; None where nothing is published."""
    data = store.read(f"published/{_checked(name)}/{LATEST}")
    try:
        found = json.loads(data or b"null")
    except ValueError:
        return None  # cut short by a failing disk; `publish` writes it again
    return found if isinstance(found, dict) and "number" in found else None


def prune_published(store: Store, name: str, keep: int) -> list[str]:
    """Remove the files of all but the newest `keep` releases from the stable path; the current one always stays.

    The pointers stay, and so does what they point to: `rollback` publishes it again under a new number.

    Returns:
        The folders that were removed.
    """
    published = _published(store, name)
    latest = read_latest(store, name)
    kept = {*numbers(store, name)[-max(1, keep) :], latest["number"] if latest else 0}
    gone = [folder for number, folder in sorted(published.items()) if number not in kept]
    for folder in gone:
        _remove(store, folder)
    return gone


def holding(store: Store, digests: Iterable[str]) -> list[str]:
    """Find the published folders that hold a copy of one of these objects (SHA-256 digests)."""
    wanted = set(digests)
    found = []
    for name in names(store):
        published = _published(store, name)
        for record in read_all(store, name):
            if int(record["number"]) in published and {digest_of(key) for key in _files(record).values()} & wanted:
                found.append(published[int(record["number"])])
    return found


def withdraw(store: Store, folders: Iterable[str]) -> None:
    """Remove published folders; if the current release is among them, nothing is published afterwards."""
    for folder in folders:
        _, name, number = folder.split("/")
        latest = read_latest(store, name)
        if latest is not None and latest["number"] == int(number):
            store.delete(f"published/{name}/{LATEST}")
            store.link(f"published/{name}/{CURRENT}", None)
        _remove(store, folder)


def content_of(record: Record) -> str:
    """Return a hash over the names and contents of a pointer's exports; equal hashes mean equal files."""
    lines = [f"{file}={digest_of(key)}" for file, key in sorted(record["exports"].items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def left_behind(known: Sequence[Record]) -> dict[str, int]:
    """Return the contents that rollbacks went back from, with their numbers, as their pointers record in `left`."""
    left: dict[str, int] = {}
    for record in known:
        if record["because"] == ROLLED_BACK:
            left |= record.get("left", {})
        left.pop(content_of(record), None)  # it is current again
    return left


def passed_by(known: Sequence[Record], target: Record) -> dict[str, int]:
    """Return what a rollback to a pointer leaves: the contents of all later pointers, with their numbers."""
    return {content_of(r): int(r["number"]) for r in known if r["number"] > target["number"] and r["of"] is None}


def lost_files(store: Store, record: Record) -> list[str]:
    """List the files of a pointer whose objects are gone: purged, or removed by hand."""
    files = sorted(_files(record).items())
    return [file for file, key in files if store.find(key) is None]


def origin(known: Sequence[Record], record: Record) -> Record:
    """Return the pointer that a rollback went back to; any other pointer is returned as it is."""
    return next((r for r in known if r["number"] == record["of"]), record)


def _lay_out(store: Store, name: str, record: Record) -> dict[str, Any]:
    """Copy a pointer's files to their plain names; files that an earlier attempt copied are kept."""
    folder = f"published/{name}/{padded(int(record['number']))}"
    files = {}
    for file, key in sorted(_files(record).items()):
        if file == RELEASE:
            raise StoreError(
                f"release {record['number']} of {name} has a file {RELEASE}; Reneg writes a file of this name itself"
            )
        files[file] = {"sha256": digest_of(key), "bytes": store.copy_object(key, f"{folder}/{file}")}
    about = {field: record.get(field) for field in ("number", "curation", "treatment", "because", "of", "at")}
    latest = {**about, "prefix": folder, "files": files}
    store.create(f"{folder}/{RELEASE}", _json(latest))
    return latest


def _files(record: Record) -> dict[str, str]:
    """Return the files to publish of a pointer: its exports, and its model if the pointer asks for that."""
    model = (record.get("model") or {}) if record.get("publish_model") else {}
    return {**record["exports"], **{f"model/{file}": key for file, key in model.items()}}


def _published(store: Store, name: str) -> dict[int, str]:
    folders = {key.split("/")[2] for key in store.list(f"published/{_checked(name)}") if key.count("/") > 2}  # noqa: PLR2004 - published/name/number/file
    return {int(number): f"published/{name}/{number}" for number in folders if number.isdigit()}


def _remove(store: Store, folder: str) -> None:
    store.delete(f"{folder}/{RELEASE}")  # first: a folder without it is not taken for a complete release
    store.delete_folder(folder)


def _read_all(store: Store, name: str, taken: Sequence[int]) -> list[Record]:
    with ThreadPoolExecutor(_THREADS, "releases") as pool:
        return list(pool.map(lambda number: numbered_records.read(store, _line(name), number), taken))


def _line(name: str) -> str:
    """Return what the keys of a name's pointers begin with."""
    return f"releases/{_checked(name)}{_HEAD}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreError(f"release name {name!r}: lower-case letters, digits and dashes expected")
    return name


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()
