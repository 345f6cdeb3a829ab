"""What a curation left in its store and home: its content as digests, and what is damaged or half-written."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from infra.storage.artifacts import newest_attempts, read_manifest
from infra.storage.store import Store

_SECONDS = {"report", "costs"}  # stages whose outputs hold seconds
_NAMED_BY_DIGEST = re.compile(r"^(?:objects|ledger|labels)/(?:.*[/-])?([0-9a-f]{64})\.[a-z0-9.]+$")


def content(url: str) -> dict[str, list[tuple[str, str, str]]]:
    """Give by stage the key, tables and directories of every part: equal digests are equal bytes."""
    store = Store(url)
    stages = sorted({key.split("/")[1] for key in store.list("parts")} - _SECONDS)
    parts = {stage: sorted(newest_attempts(store, stage).items()) for stage in stages}
    return {stage: [_described(store, stage, *part) for part in parts[stage]] for stage in stages}


def _described(store: Store, stage: str, key: str, attempt: int) -> tuple[str, str, str]:
    manifest = read_manifest(store, stage, key, attempt)
    return manifest.key, str(manifest.tables), str(manifest.directories)


def laid_out(home: Path) -> dict[str, str]:
    """Give the SHA-256 of every file that a person opens, but the report's, which hold seconds."""
    files = [path for path in sorted((home / "curations").rglob("*")) if path.is_file()]
    kept = [path for path in files if path.parent.name == "sample" or "export" in path.relative_to(home).parts]
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def damaged(url: str, home: Path) -> Iterator[str]:
    """Name every object whose bytes are not those of its name, and every temporary file left behind."""
    store = Store(url)
    root = f"{store._root}/"
    for path in store._fs.find(store._root):
        key = str(path).removeprefix(root)
        if key.endswith(".tmp"):
            yield f"{key} was left in the store"
        named = _NAMED_BY_DIGEST.search(key)
        if named and hashlib.sha256(store._fs.cat_file(path)).hexdigest() != named[1]:
            yield f"{key} is damaged: its SHA-256 is not its name"
    for left in home.rglob("*.tmp"):
        yield f"{left.relative_to(home)} was left in the home"
