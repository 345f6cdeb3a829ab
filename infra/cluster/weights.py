"""How a model's weights reach every node: from where they lie, or from the store, verified, once per node.

The driver publishes: `weights/<digest>.json` names the files of a model and the objects that hold them. A node keeps
what it fetched in `<cache>/weights/<digest>/`, and looks there first.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from pydantic import BaseModel

from infra.models.model_files import directory_digest, relevant_files
from infra.models.resolve import MANIFEST, made_of
from infra.models.wheels import ModelError
from infra.storage.large_files import get_files, put_file
from infra.storage.store import Store

_MARK = ".reneg-weights.json"  # written last: names and sizes of a folder that was fetched whole
_SPARE = 2**30  # bytes of the disk that a download leaves free

SpecT = TypeVar("SpecT", bound=BaseModel)

_log = logging.getLogger(__name__)


def publish_for(store: Store, specs: Iterable[BaseModel | None], cache: Path) -> list[str]:
    """Publish the weights of every engine that has some; returns the digests that were not in the store yet."""
    digests = []
    for spec in specs:
        model, digest = getattr(spec, "model", ""), getattr(spec, "digest", "")
        if digest and publish(store, Path(model), digest, cache):
            digests.append(digest)
    return digests


def publish(store: Store, folder: Path, digest: str, cache: Path) -> bool:
    """Put a model's folder into the store; True if it was not there yet.

    Raises:
        ModelError: the folder does not hold what the digest calls for.
        StoreError: the store cannot be written.
    """
    if is_published(store, digest):
        return False
    if not holds(folder, digest, cache):
        raise ModelError(f"{folder}: not the model of digest {digest[:12]}; fetch or build it again, then run again")
    names = _files(folder)
    objects = {name: put_file(store, folder / name) for name in names}
    sizes = {name: (folder / name).stat().st_size for name in names}
    return store.create(_key(digest), json.dumps({"files": objects, "sizes": sizes}, sort_keys=True).encode())


def publish_stored(store: Store, digest: str, files: Mapping[str, str]) -> bool:
    """Let nodes fetch a model whose files are objects of the store already; True if they could not before.

    Args:
        store: the store.
        digest: by which engines name the model.
        files: object by name of file.

    Raises:
        StoreError: the store cannot be read or written.
    """
    if is_published(store, digest):
        return False
    sizes = {name: store.size(key) for name, key in files.items()}
    record = {"files": dict(files), "sizes": sizes}
    return store.create(_key(digest), json.dumps(record, sort_keys=True).encode())


def is_published(store: Store, digest: str) -> bool:
    """Tell whether the store can give a model to the nodes."""
    return store.exists(_key(digest))


def ensure(store: Store, spec: SpecT, cache: Path) -> SpecT:
    """Return the spec with a `model` that is on this machine and is what its digest calls for.

    Looks at the path in the spec, then in this node's cache, then fetches from the store; of several processes that
    ask at once, one fetches. A spec without weights of its own (an endpoint's) is returned as it is.

    Raises:
        ValueError: neither the path nor the store has it, or this disk has no room.
        StoreError: the store does not answer, or what it holds of the model is damaged or forged.
    """
    model, digest = getattr(spec, "model", ""), getattr(spec, "digest", "")
    if not digest or (model and holds(Path(model), digest, cache)):
        return spec
    return spec.model_copy(update={"model": str(_fetched(store, digest, cache, model))})


def is_here(model: str, digest: str, cache: Path) -> bool:
    """Tell whether `ensure` would find a model without fetching it."""
    return (bool(model) and holds(Path(model), digest, cache)) or _is_whole(cache / "weights" / digest)


def holds(folder: Path, digest: str, cache: Path) -> bool:
    """Tell whether a folder holds the model of a digest: by its own manifest and sizes, or else by its content."""
    try:
        if not folder.is_dir():
            return False
        if (folder / MANIFEST).exists():
            return made_of(folder, digest)
        return directory_digest(folder, cache) == digest
    except OSError:
        return False


def _files(folder: Path) -> list[str]:
    """Name what belongs to a model: all that its own manifest lists, or else what decides its answers."""
    if (folder / MANIFEST).exists():
        return sorted([*json.loads((folder / MANIFEST).read_bytes())["files"], MANIFEST])
    return sorted(relevant_files(folder))


def _fetched(store: Store, digest: str, cache: Path, model: str) -> Path:
    folder = cache / "weights" / digest
    if _is_whole(folder):
        return folder
    record = store.read_json(_key(digest))
    if record is None:
        raise ValueError(
            f"{model}: not on this node, or not the model of digest {digest[:12]}, and {store.url} does not hold its "
            "weights; join Ray by RAY_ADDRESS, so that the run puts them there, or copy the folder to this path"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{digest}.lock")):
            if not _is_whole(folder):
                _fetch(store, record, folder)
    except OSError as error:
        raise ValueError(f"{folder}: weights cannot be written ({error}); set RENEG_CACHE to another folder") from error
    return folder


def _fetch(store: Store, record: dict[str, Any], folder: Path) -> None:
    """Write every file beside the folder, then put it in place; under the lock."""
    needed, free = sum(record["sizes"].values()), shutil.disk_usage(folder.parent).free
    if needed + _SPARE > free:
        raise ValueError(
            f"{folder}: {needed / 1e9:.1f} GB of weights and 1 GB to spare expected, {free / 1e9:.1f} GB are free; "
            "make room, or set RENEG_CACHE to another disk"
        )
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
    _log.info("fetching %.1f GB of weights to %s", needed / 1e9, folder)
    try:
        get_files(store, record["files"], temporary, _key(folder.name))
        (temporary / _MARK).write_text(json.dumps(record["sizes"]))
        shutil.rmtree(folder, ignore_errors=True)  # cut short, or its mark is gone
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Compare sizes with what was fetched; each file's content was verified then."""
    try:
        sizes = json.loads((folder / _MARK).read_bytes())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _key(digest: str) -> str:
    return f"weights/{digest}.json"
