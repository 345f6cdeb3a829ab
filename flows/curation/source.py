"""Copies a curation's source into the store: a file or folder, on this machine, in object storage or in an archive."""

import re
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fsspec.callbacks import Callback
from fsspec.implementations.tar import TarFileSystem
from fsspec.implementations.zip import ZipFileSystem

from flows.config.curation import CurationConfig
from flows.config.section import ConfigError
from flows.curation.workspace import Workspace
from flows.inputs.addresses import (
    fixed_part,
    has_wildcard,
    is_unreadable,
    is_web_page,
    local_path,
    open_address,
    pinned,
    refuse_own_output,
    refuse_system_file,
    told,
)
from infra.confined import check_names
from infra.private_files import open_private_folder
from infra.settings import Settings
from infra.storage.artifacts import Directory, materialise, write_directory
from infra.storage.large_files import put_file
from infra.storage.store import Store
from tasks.data.containers.kinds import NotReadableError, source_file

_WANTED = "give a file, a folder or a pattern such as rows/*.jsonl, or the address of one elsewhere"
_INCOMING = ".source-"  # files that are on their way into the store
_ABANDONED = 86_400.0  # seconds after which the process that fetched such a file is taken for dead
_PIECES = {"chunksize": 16 * 2**20, "max_concurrency": 4}  # of an S3 object that are in memory at a time


def import_source(
    store: Store, settings: Settings, config: CurationConfig, address: str | None = None
) -> Directory | None:
    """Copy the source into the store, so that the curation can be repeated without it; None for a harvest.

    `address` is what `pinned_source` returned; it is asked if that is not given.

    Raises:
        ConfigError: it does not exist, or a curation made it: relabelled data must not be relabelled again. Or names of
            its files would leave the folder, or it is larger than `source.max_bytes`.
    """
    address = pinned_source(config) if address is None else address
    if address is None:
        return None
    refuse_own_output(address, settings)
    path = local_path(address)
    if path is None:
        return _import_remote(store, settings, address, config.source.max_bytes)
    refuse_system_file(path, "source.path")
    if not path.exists() and has_wildcard(str(path)):
        return _import_matching(store, settings, str(path))
    if not path.exists():
        raise ConfigError(f"source.path: {path} does not exist; {_WANTED}")
    if path.is_dir():
        return write_directory(store, "source", _snapshot_of(path))
    if not path.is_file():
        raise ConfigError(f"source.path: {path} is neither a file nor a folder; {_WANTED}")
    _check_names([path.name], address)
    try:
        source_file(path)
    except NotReadableError as error:
        instead = f"; give {error.archive}://::{path} to read what is in it" if error.archive else ""
        raise ConfigError(f"source.path: {path} is {error}{instead}") from error
    return Directory("source", {path.name: put_file(store, path)})


def keep_sets(workspace: Workspace, config: CurationConfig, setting: str, known: Mapping[str, str]) -> dict[str, str]:
    """Copy the sets that a setting names to the store, each below its number.

    If one cannot be read, the copies of the last execution are used.

    Args:
        workspace: of the store.
        config: of the curation.
        setting: `guards.evaluation` or `evaluate.collections`.
        known: the copies of the last execution.

    Raises:
        ConfigError: one does not exist, or cannot be read and there is no copy.
    """
    addresses = {
        "guards.evaluation": config.guards.evaluation,
        "evaluate.collections": tuple(each.path for each in config.evaluate.collections),
    }[setting]
    files: dict[str, str] = {}
    for number, address in enumerate(addresses):
        try:
            found = import_source(workspace.store, workspace.settings, config, address)
        except ConfigError as error:
            told = str(error).replace("source.path", setting)
            copies = {name: key for name, key in known.items() if name.startswith(f"{number}/")}
            if not copies or "cannot be read" not in told:
                raise ConfigError(told) from error
            workspace.hooks.on_message(f"{told}; the copy of the last execution is used")
            files |= copies
        else:
            files |= {f"{number}/{name}": key for name, key in (found.files if found else {}).items()}
    return files


def set_of(files: Mapping[str, str], number: int) -> Directory:
    """Return one of the sets that `keep_sets` kept.

    >>> set_of({"0/corpus.jsonl": "objects/a", "1/corpus.jsonl": "objects/b"}, 1).files
    {'corpus.jsonl': 'objects/b'}
    """
    own = {name: key for name, key in files.items() if name.startswith(f"{number}/")}
    return Directory("source", {name.partition("/")[2]: key for name, key in own.items()})


def pinned_source(config: CurationConfig) -> str | None:
    """Return the address that a source is read from: of a data set on a hub, with its commit.

    Raises:
        ConfigError: the hub does not answer, or has no such data set; the message says what to do.
    """
    address = config.source.path
    if address is None:
        return None
    try:
        return pinned(address)
    except Exception as error:
        if isinstance(error, ConfigError) or not is_unreadable(error):
            raise
        raise ConfigError(f"source.path: {told(address, error)}") from error


def _import_matching(store: Store, settings: Settings, pattern: str) -> Directory:
    """Copy the files that a pattern matches, and those below the folders that it matches."""
    folder = Path(fixed_part(pattern))
    matches = [Path(name) for name in glob(pattern, recursive=True)]  # noqa: PTH207 - Path.glob takes no absolute path
    if not matches:
        raise ConfigError(f"source.path: no file matches {pattern}; {_WANTED}")
    paths, real = set[Path](), folder.resolve()
    for path in matches:
        refuse_own_output(str(path), settings)
        refuse_system_file(path, "source.path")
        if not (path if path.is_dir() else path.parent).resolve().is_relative_to(real):
            raise ConfigError(f"source.path: {path} leads out of {real} by a link; give that folder itself")
        paths |= set(path.rglob("*")) if path.is_dir() else {path}
    return write_directory(store, "source", folder, paths)


def _snapshot_of(folder: Path) -> Path:
    """Return the newest snapshot of a folder in a hub's cache, which holds each file twice; other folders as they are.

    Raises:
        ConfigError: the cache does not say which one that is.
    """
    if not folder.name.startswith("datasets--") or not (folder / "snapshots").is_dir():
        return folder
    branch = folder / "refs" / "main"
    found = folder / "snapshots" / (branch.read_text().strip() if branch.is_file() else "")
    snapshots = sorted((folder / "snapshots").iterdir())
    if branch.is_file() and found.is_dir():
        return found
    if len(snapshots) == 1:
        return snapshots[0]
    raise ConfigError(f"source.path: {folder} holds {len(snapshots)} snapshots; give one: {folder}/snapshots/<commit>")


@contextmanager
def read_here(settings: Settings, address: str) -> Iterator[Path]:
    """Give a folder with the files of a source, to look at them without a curation.

    What lies on this machine is read where it is; anything else is copied into the store first.

    Raises:
        ConfigError: as `import_source`.
    """
    path = local_path(address)
    if path is not None and path.exists():
        refuse_system_file(path, "source.path")
        if path.is_dir():
            yield _snapshot_of(path)
            return
        with tempfile.TemporaryDirectory(prefix="reneg-source-") as folder:
            (Path(folder) / path.name).symlink_to(path.resolve())
            yield Path(folder)
            return
    store = Store.open(settings.store)
    config = CurationConfig.model_validate({"name": "source", "source": {"path": address}})
    found = import_source(store, settings, config)
    yield materialise(store, found or Directory("source", {}), settings.scratch)


def _import_remote(store: Store, settings: Settings, address: str, most: int) -> Directory:
    try:
        fs, root = open_address(address, "source.path")
        found = _list(fs, root, address)
        for name, _ in found.values() if has_wildcard(root) and "::" not in address else ():
            refuse_own_output(f"{address.partition('://')[0]}://{name}", settings)
        total = sum(info.get("size") or 0 for _, info in found.values())
        if total > most:
            raise _TooLargeError(total)
        return Directory("source", _copy(store, settings.scratch, fs, found, _Received(most)))
    except _TooLargeError as error:
        raise ConfigError(
            f"source.path: {address} has at least {error.args[0]} bytes (unpacked, if it is an archive), more than "
            f"source.max_bytes ({most}); raise that, or give a smaller source"
        ) from error
    except Exception as error:
        if not is_unreadable(error):
            raise
        raise ConfigError(f"source.path: {told(address, error)}") from error


def _list(fs: Any, root: str, address: str) -> dict[str, tuple[str, Mapping[str, Any]]]:  # noqa: ANN401 - of fsspec
    """Return the files at an address by the name that each gets: its name there, and what is known of it.

    The names come from others. They are checked here, and no local path is ever made of one.
    """
    infos: dict[str, Any] = {root: fs.info(root)} if is_web_page(address) else fs.find(root, detail=True)
    if not infos and has_wildcard(root) and not is_web_page(address):
        infos, root = _matching(fs, root), fixed_part(root)
    if not infos:
        raise ConfigError(f"source.path: nothing at {address}; {_WANTED}")
    above = f"{root.rstrip('/')}/" if root.strip("/") else ""
    found, special = {}, _special_members(fs)
    for name, info in infos.items():
        if name.endswith("/") and not info.get("size"):
            continue  # consoles and Spark mark a folder in a bucket by an empty object
        inside = name.removeprefix(above)
        if name == root:
            inside = (urlsplit(name).path if is_web_page(address) else name).rpartition("/")[2]
        elif not name.startswith(above):
            raise ConfigError(f"source.path: {address} lists {name!r}, which is not below it; check the address")
        if name in special:
            raise ConfigError(f"source.path: {name!r} in {address} is a link or a device; put the file itself there")
        found[inside.removeprefix("./")] = (name, info)
    if not found:
        raise ConfigError(f"source.path: nothing at {address}; {_WANTED}")
    _check_names([*found], address)
    members = Counter(fs.zip.namelist() if isinstance(fs, ZipFileSystem) else ())
    if twice := [name for name, info in found.values() if members[name] > 1]:
        raise ConfigError(f"source.path: {address} holds {twice[0]!r} more than once; make the archive anew")
    return found


def _matching(fs: Any, pattern: str) -> dict[str, Any]:  # noqa: ANN401 - of fsspec
    """Return the files that a pattern matches, and those below the folders that it matches."""
    found: dict[str, Any] = {}
    for name, info in fs.glob(pattern, detail=True).items():
        found |= fs.find(name, detail=True) if info["type"] == "directory" else {name: info}
    return found


def _special_members(fs: Any) -> set[str]:  # noqa: ANN401 - of fsspec
    """Return the names of an archive's members that are neither files nor folders."""
    if isinstance(fs, TarFileSystem):
        names = (member.name for member in fs.tar.getmembers() if not (member.isreg() or member.isdir()))
        return {re.sub("/+", "/", name) for name in names}
    if isinstance(fs, ZipFileSystem):
        return {info.filename for info in fs.zip.infolist() if stat.S_ISLNK(info.external_attr >> 16)}
    return set()


def _check_names(names: list[str], address: str) -> None:
    try:
        check_names(names)
    except ValueError as error:
        raise ConfigError(f"source.path: {address}: {error}") from error


def _copy(
    store: Store,
    folder: Path,
    fs: Any,  # noqa: ANN401 - of fsspec
    found: Mapping[str, tuple[str, Mapping[str, Any]]],
    received: "_Received",
) -> dict[str, str]:
    """Store each file and return its key by name. One file at a time is on this disk, and a piece of it in memory."""
    open_private_folder(folder)
    for old in folder.glob(f"{_INCOMING}*"):
        with suppress(FileNotFoundError):  # another process removed it
            if time.time() - old.stat().st_mtime > _ABANDONED:
                old.unlink()
    files = {}
    for inside, (name, _) in sorted(found.items()):
        with tempfile.NamedTemporaryFile(prefix=_INCOMING, dir=folder) as file:
            fs.get_file(name, file.name, callback=received, **(_PIECES if "s3" in fs.protocol else {}))
            files[inside] = put_file(store, Path(file.name))
    return files


class _TooLargeError(Exception):
    """More bytes than a source may have; with their number so far."""


class _Received(Callback):  # type: ignore[misc] # fsspec is untyped
    """Counts the bytes of all files while they come, whatever the listing said of their sizes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self._total = most, 0

    def relative_update(self, inc: int = 1) -> None:
        """Count bytes that came.

        Raises:
            _TooLargeError: they are too many.
        """
        self._total += inc
        if self._total > self._most:
            raise _TooLargeError(self._total)
