"""Artifacts in the store: tables in pieces, directories of files, and the manifest that makes a part complete.

Tables are read and written in `infra.storage.tables`; most callers import them from here.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from infra.confined import is_confined
from infra.models.model_files import refuse_foreign_code
from infra.names import ManifestName, object_name
from infra.private_files import open_private_folder
from infra.storage.large_files import get_files, place_file, put_file
from infra.storage.store import Store, StoreError
from infra.storage.tables import Piece, Table, read_table, write_bundle, write_table

__all__ = [
    "MODEL",
    "Artifact",
    "Directory",
    "Files",
    "Manifest",
    "Piece",
    "Table",
    "commit",
    "manifest_path",
    "materialise",
    "newest_attempts",
    "place_directory",
    "read_manifest",
    "read_table",
    "write_bundle",
    "write_directory",
    "write_table",
]

MODEL = "model"  # the name of directories that are loaded as models
_PLACED = 2  # files that are written at a time


@dataclass(frozen=True)
class Directory:
    """A directory artifact: relative file name to object."""

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    missing: frozenset[int] = frozenset()

    @property
    def indexes(self) -> frozenset[int]:
        """A directory is one piece of part 0."""
        return frozenset({0})

    @property
    def incomplete(self) -> bool:
        """Whether it is missing."""
        return bool(self.missing)

    def lacks(self, index: int) -> bool:
        """Tell whether it is missing at one index."""
        return index in self.missing

    def at(self, _index: int) -> "Directory":
        """A directory is the same for every part."""
        return self

    def content(self) -> list[str]:
        """Return what a key covers of this directory: names and digests, sorted."""
        return [f"{name}={object_name(key)}" for name, key in sorted(self.files.items())]


@dataclass(frozen=True)
class Files:
    """Files of a directory, each a part of its own: part n has the directory with file n alone.

    files: name and object of each, in the order of the parts.
    """

    name: str
    files: tuple[tuple[str, str], ...] = ()

    @property
    def indexes(self) -> frozenset[int]:
        """The number of each file."""
        return frozenset(range(len(self.files)))

    @property
    def incomplete(self) -> bool:
        """Files of a directory that is there are all there."""
        return False

    def lacks(self, _index: int) -> bool:
        """Tell whether a file is missing."""
        return False

    def at(self, index: int) -> Directory:
        """Return the directory of one part."""
        return Directory(self.name, dict((self.files[index],)))

    def content(self) -> list[str]:
        """Return names and digests, in order."""
        return [line for index in range(len(self.files)) for line in self.at(index).content()]


Artifact = Table | Directory | Files


def write_directory(
    store: Store, name: str, folder: Path, paths: Iterable[Path] | None = None, *, ours: bool = False
) -> Directory:
    """Store every file below a folder, or those of `paths`, which lie below it; for a link, the content of its file.

    ours: the files are not written into any more, so that a local store on the same file system takes them as they are.

    Links of a model may lead anywhere. Others must stay in the folder, or in the cache of a hub's repository, because
    the folder may come from somebody who should not read what is elsewhere.

    Raises:
        StoreError: a link leads to a folder or to nothing, so files would be missing without notice; or it leads out of
            the folder; or a file has a name that cannot be used again when the directory is written out.
    """
    files = {}
    for path in sorted(folder.rglob("*") if paths is None else paths):
        relative = path.relative_to(folder).as_posix()
        if path.is_symlink() and not path.is_file():
            raise StoreError(
                f"{path}: a link to {path.readlink()}, which is no file; put the files there, or remove it"
            )
        if not path.is_file():
            continue
        if path.is_symlink() and name != MODEL and not path.resolve().is_relative_to(_links_stay_in(folder)):
            raise StoreError(f"{path}: a link to {path.resolve()}, outside of {folder}; put the file itself there")
        if not is_confined(relative):
            raise StoreError(f"directory {name}: a file cannot be kept under the name {relative!r}; rename it")
        files[relative] = put_file(store, path, ours=ours and not path.is_symlink())
    return Directory(name, files)


def _links_stay_in(folder: Path) -> Path:
    """Return the folder that links may not leave; a hub keeps `snapshots/<commit>` of links to files in `blobs`."""
    real = folder.resolve()
    return next((above.parent for above in (real, *real.parents) if above.name == "snapshots"), real)


def materialise(store: Store, directory: Directory, cache: Path) -> Path:
    """Write a directory artifact as files below `cache`, once for the same content; returns the folder.

    A file that lies there already as a directory of its own (`Files`) is not copied again. Of several processes of a
    machine that ask at once for the same content, one writes, and the others wait for it.

    Only this user can enter `cache`: these are the texts of sources and of training sets.

    Raises:
        StoreError: an object is gone or damaged, or a name would leave the folder.
        ModelError: it is a model, and loading it would run code that it brings.
    """
    digest = _digest_of(directory)
    final = open_private_folder(cache) / digest
    if final.exists():
        return final
    lock = cache / f".{digest}.lock"
    try:
        with FileLock(lock):
            if not final.exists():
                _write_out(store, directory, cache, final)
    finally:
        lock.unlink(missing_ok=True)  # who waits for it finds the folder; after a failure two may copy it, and one wins
    return final


def place_directory(store: Store, directory: Directory, folder: Path) -> None:
    """Write the files of a directory artifact into a folder where people look, over what may be there.

    Files that lie there already, and that nobody has changed, are left alone. They are copies: people may write into
    them.

    Raises:
        StoreError: an object is gone or damaged, or a name would leave the folder.
    """
    for name in directory.files:
        if not is_confined(name):
            raise StoreError(f"directory {directory.name}: file name {name!r} would leave its folder; rerun its part")
    with ThreadPoolExecutor(_PLACED, "place") as pool:
        placed = [pool.submit(place_file, store, key, folder / name) for name, key in directory.files.items()]
        for each in placed:
            each.result()


def _write_out(store: Store, directory: Directory, cache: Path, final: Path) -> None:
    """Write a directory artifact beside its folder, then put it in place; under the lock."""
    temporary = cache / f".{final.name}.{uuid.uuid4().hex}"

    def alone(name: str, key: str) -> Path | None:
        path = cache / _digest_of(Directory(directory.name, {name: key})) / name
        return path if path.is_file() else None

    try:
        get_files(store, directory.files, temporary, f"directory {directory.name}", alone)
        if directory.name == MODEL:
            refuse_foreign_code(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    try:
        temporary.rename(final)
    except OSError:
        if not final.exists():
            raise
        shutil.rmtree(temporary)  # another process wrote the same content first


def _digest_of(directory: Directory) -> str:
    """Return the name that a directory's folder has."""
    return hashlib.sha256("\n".join(directory.content()).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Manifest:
    """A finished part: what it was made from and what it made. It is written last: a part that has one is complete."""

    stage: str
    version: int
    part: int
    key: str
    attempt: int
    ingredients: Mapping[str, Any]
    tables: Mapping[str, tuple[Piece, ...]]
    directories: Mapping[str, Mapping[str, str]]
    stats: Mapping[str, Any]

    @property
    def origin(self) -> str:
        """The digest of what computed it; empty for a part that was made before origins were recorded."""
        return str(self.stats.get("origin", ""))

    @property
    def answers(self) -> Mapping[str, int]:
        """How many answers of a judge it used, by their origin's digest; a fresh answer has the part's own origin."""
        return dict(self.stats.get("answers", {}))

    @property
    def path(self) -> str:
        """Where the manifest lies in the store."""
        return manifest_path(self.stage, self.key, self.attempt)

    @property
    def objects(self) -> set[str]:
        """The objects the part wrote; a bundle counts once."""
        tables = {piece.object for pieces in self.tables.values() for piece in pieces}
        return tables | {key for files in self.directories.values() for key in files.values()}

    @property
    def slices(self) -> dict[str, str]:
        """The digests of the slices it wrote, and the bundle that holds each."""
        return {p.digest: p.object for pieces in self.tables.values() for p in pieces if p.digest is not None}

    @property
    def name(self) -> ManifestName:
        """The name of its file: tells a part's attempt from every other one."""
        return ManifestName(self.key, self.attempt)

    def to_json(self) -> bytes:
        """Write the manifest as JSON."""
        record = dict(self.__dict__)
        record["tables"] = {n: [_as_record(p) for p in pieces] for n, pieces in self.tables.items()}
        return json.dumps(record, sort_keys=True, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Read a manifest.

        Raises:
            ValueError: the bytes are no manifest, or are cut short.
        """
        try:
            record = json.loads(data)
            tables = {n: tuple(Piece(**p) for p in pieces) for n, pieces in record.pop("tables").items()}
            return cls(tables=tables, **record)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no manifest: {type(error).__name__}: {error}") from error


def _as_record(piece: Piece) -> dict[str, Any]:
    """Return a piece as its manifest holds it; a whole object has no word of slices."""
    return {name: value for name, value in vars(piece).items() if value is not None}


def manifest_path(stage: str, key: str, attempt: int) -> str:
    """Return the key of a manifest: attempt 0 is the first computation, higher ones are forced recomputations."""
    return f"parts/{stage}/{ManifestName(key, attempt)}.json"


def newest_attempts(store: Store, stage: str) -> dict[str, int]:
    """Return key → highest attempt for every finished part of a stage, by one listing.

    Raises:
        StoreError: a file lies there that is no manifest.
    """
    newest: dict[str, int] = {}
    for path in store.list(f"parts/{stage}"):
        try:
            found = ManifestName.parse(path.rpartition("/")[2].removesuffix(".json"))
        except ValueError as error:
            raise StoreError(f"store {store.url}: {path} does not belong there ({error}); remove it") from error
        newest[found.key] = max(newest.get(found.key, 0), found.attempt)
    return newest


def read_manifest(store: Store, stage: str, key: str, attempt: int) -> Manifest:
    """Read one manifest that a listing named."""
    data = store.read(manifest_path(stage, key, attempt))
    if data is None:
        raise StoreError(f"store {store.url}: manifest of {stage} {key} vanished between listing and reading")
    try:
        return Manifest.from_json(data)
    except ValueError as error:
        raise StoreError(
            f"store {store.url}: {manifest_path(stage, key, attempt)} is damaged ({error}); delete it, and its part is "
            "computed again"
        ) from error


def commit(store: Store, manifest: Manifest) -> Manifest:
    """Write a manifest; where another writer was first, return the winner's."""
    if store.create(manifest.path, manifest.to_json()):
        return manifest
    return read_manifest(store, manifest.stage, manifest.key, manifest.attempt)
