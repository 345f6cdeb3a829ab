"""Releases: numbered pointers in the store, and a stable path that holds the files of the newest one.

`releases/<name>/HEAD-NNNNNN.json` is a pointer. It is written once and never changed. The pointer with the highest
number is current; going back to an earlier release writes a new pointer. `published/<name>/NNNNNN/` holds a pointer's
files under plain names, and `release.json` beside them, which is written last: it is the record that says that the
folder is complete. Trainers read the complete release with the highest number. The caller decides what a pointer holds,
except for `exports` (file name to object), `because`, and, for a rollback, `of` (the number it goes back to) and `left`
(see `passed_by`).

`latest.json` and the link `current` repeat the highest record for readers that know only one path. They are written
after it. A process that dies in between, or that is slow, leaves them behind the records; `heal` makes them follow
again, and everybody who looks at releases calls it. A release that was withdrawn keeps a record that says so: it is not
published again, and no older release takes its place.
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
WITHDRAWN = "withdrawn"
_HEAD = "/HEAD"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_THREADS = 8
_SWAPS = 5  # refused ones in a row, after which a server is taken for one that refuses all


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
    """Publish the files of the current pointer; returns what trainers read then, None where they read nothing.

    Any number of writers may publish at once: a writer that finds a higher number afterwards publishes that one too.
    A release that was withdrawn is not published again.

    Raises:
        StoreError: a file of the release is missing or damaged; what trainers read stays as it was.
    """
    while True:
        record = newest(store, name)
        if record is None:
            return None
        number = int(record["number"])
        if _read_release(store, name, number) is None:
            _lay_out(store, name, record)
        latest = heal(store, name)
        if numbers(store, name)[-1] == number:
            return latest


def read_latest(store: Store, name: str) -> dict[str, Any] | None:
    """Read which release trainers read now: the complete one with the highest number; None where there is none.

    Raises:
        StoreError: its record is damaged; `publish` writes it again.
    """
    for number in sorted(_complete(store, name), reverse=True):
        found = store.read_json(_release_key(name, number))
        if found is None:
            continue  # it was removed since the listing
        if not isinstance(found, dict):
            raise StoreError(f"store {store.url}: {_release_key(name, number)} is damaged; `reneg promote` mends it")
        return None if found.get(WITHDRAWN) else found
    return None


def heal(store: Store, name: str) -> dict[str, Any] | None:
    """Make `latest.json` and `current` say what the records say; returns which release trainers read, None for none.

    Raises:
        StoreError: the record is damaged, or the store cannot be written.
    """
    folder = f"published/{_checked(name)}"
    refused = 0
    while store.holds(folder):
        with store.exclusively(folder):
            shown = store.read(f"{folder}/{LATEST}")
            latest = read_latest(store, name)
            if latest is None and shown is not None:
                store.delete(f"{folder}/{LATEST}")
            if latest is not None and not _show(store, f"{folder}/{LATEST}", latest, shown, force=refused >= _SWAPS):
                refused += 1
                continue
            store.link(f"{folder}/{CURRENT}", None if latest is None else padded(int(latest["number"])))
        if read_latest(store, name) == latest:
            return latest
    return None


def heal_all(store: Store) -> None:
    """Make what readers of one path see follow the records, for every name.

    Raises:
        StoreError: a record is damaged, or the store cannot be written.
    """
    for name in names(store):
        heal(store, name)


def prune_published(store: Store, name: str, keep: int) -> list[str]:
    """Remove the files of all but the newest `keep` releases from the stable path; the current one always stays.

    The pointers stay, and so does what they point to: `rollback` publishes it again under a new number. The highest
    record stays too, also one of a withdrawn release: without it an older release would be read.

    Returns:
        The folders that were removed.
    """
    kept = {*numbers(store, name)[-max(1, keep) :], max(_complete(store, name), default=0)}
    gone = [_folder(name, number) for number in sorted(_published(store, name)) if number not in kept]
    for folder in gone:
        store.delete(f"{folder}/{RELEASE}")  # first: a folder without it is not taken for a complete release
        store.delete_folder(folder)
    return gone


def holding(store: Store, digests: Iterable[str]) -> list[str]:
    """Find the published folders that hold a copy of one of these objects (SHA-256 digests)."""
    wanted = set(digests)
    found = []
    for name in names(store):
        filled = {number for number, files in _published(store, name).items() if files - {RELEASE}}
        for record in read_all(store, name):
            if int(record["number"]) in filled and {digest_of(key) for key in _files(record).values()} & wanted:
                found.append(_folder(name, int(record["number"])))
    return found


def withdraw(store: Store, folders: Iterable[str]) -> None:
    """Remove the files of published folders for good; if the current release is among them, nothing is published then.

    A record stays in each folder. It is written first, so that a process that dies in between removes too little, and
    no release comes back.
    """
    for folder in folders:
        _, name, number = folder.split("/")
        store.replace(f"{folder}/{RELEASE}", _json({"number": int(number), WITHDRAWN: True}))
        _remove_files(store, folder)
        heal(store, name)


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


def _lay_out(store: Store, name: str, record: Record) -> None:
    """Copy a pointer's files to their plain names, then write the record; files of an earlier attempt are kept."""
    folder = _folder(name, int(record["number"]))
    files = {}
    for file, key in sorted(_files(record).items()):
        if file == RELEASE:
            raise StoreError(
                f"release {record['number']} of {name} has a file {RELEASE}; Reneg writes a file of this name itself"
            )
        files[file] = {"sha256": digest_of(key), "bytes": store.copy_object(key, f"{folder}/{file}")}
    about = {field: record.get(field) for field in ("number", "curation", "treatment", "because", "of", "at")}
    latest = {**about, "prefix": folder, "files": files}
    _complete_release(store, name, latest)


def _complete_release(store: Store, name: str, release: Mapping[str, Any]) -> None:
    """Write the record of a release whose files are there, unless it was withdrawn meanwhile."""
    key = _release_key(name, int(release["number"]))
    if store.create(key, _json(release)):
        return
    there = _read_release(store, name, int(release["number"]))
    if there is None:
        store.replace(key, _json(release))  # it was cut short by a failing disk
    elif there.get(WITHDRAWN):
        _remove_files(store, _folder(name, int(release["number"])))


def _show(store: Store, key: str, latest: Mapping[str, Any], shown: bytes | None, *, force: bool) -> bool:
    """Write `latest.json` if it does not say this; False if somebody else wrote it since it was read."""
    data = _json(latest)
    if data == shown or store.swap(key, data, shown):
        return True
    if force:
        store.replace(key, data)
    return force


def _read_release(store: Store, name: str, number: int) -> dict[str, Any] | None:
    """Read the record of a release; None where it is not complete, or the record is damaged."""
    try:
        found = json.loads(store.read(_release_key(name, number)) or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("number") == number else None


def _complete(store: Store, name: str) -> list[int]:
    """List the numbers of the releases that have a record, withdrawn ones too."""
    return [number for number, files in _published(store, name).items() if RELEASE in files]


def _files(record: Record) -> dict[str, str]:
    """Return the files to publish of a pointer: its exports, and its model if the pointer asks for that."""
    model = (record.get("model") or {}) if record.get("publish_model") else {}
    return {**record["exports"], **{f"model/{file}": key for file, key in model.items()}}


def _folder(name: str, number: int) -> str:
    return f"published/{_checked(name)}/{padded(number)}"


def _release_key(name: str, number: int) -> str:
    return f"{_folder(name, number)}/{RELEASE}"


def _published(store: Store, name: str) -> dict[int, set[str]]:
    """List what lies in the folder of each release: files, and the first folder of deeper ones."""
    found: dict[int, set[str]] = {}
    for key in store.list(f"published/{_checked(name)}"):
        _, _, folder, *rest = key.split("/")
        if rest and folder.isdigit() and padded(int(folder)) == folder:
            found.setdefault(int(folder), set()).add(rest[0])
    return found


def _remove_files(store: Store, folder: str) -> None:
    """Remove everything in a release's folder but its record."""
    for inner in sorted({key.split("/")[3] for key in store.list(folder)} - {RELEASE}):
        store.delete_folder(f"{folder}/{inner}")


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
