"""Check what a curation left in its store and home: content as digests, damaged objects, temporary files."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from infra.storage.artifacts import newest_attempts, read_manifest
from infra.storage.store import Store

_SECONDS = {"report", "costs"}  # stages whose outputs hold seconds
_NAMED_BY_DIGEST = re.compile(r"^(?:objects|ledger|labels)/(?:.*[/-])?([0-9a-f]{64})\.[a-z0-9.]+$")


def content(url: str) -> dict[str, list[tuple[str, str, str]]]:
    """Return for each stage the key, tables and directories of every part; equal digests mean equal bytes."""
    store = Store(url)
    stages = sorted({key.split("/")[1] for key in store.list("parts")} - _SECONDS)
    parts = {stage: sorted(newest_attempts(store, stage).items()) for stage in stages}
    return {stage: [_described(store, stage, *part) for part in parts[stage]] for stage in stages}


def _described(store: Store, stage: str, key: str, attempt: int) -> tuple[str, str, str]:
    manifest = read_manifest(store, stage, key, attempt)
    return manifest.key, str(manifest.tables), str(manifest.directories)


def laid_out(home: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that people open, except the report's files, which hold seconds."""
    files = [path for path in sorted((home / "curations").rglob("*")) if path.is_file()]
    kept = [path for path in files if path.parent.name == "sample" or "export" in path.relative_to(home).parts]
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def damaged(url: str, home: Path) -> Iterator[str]:
    """List every object whose bytes do not match its name, and every temporary file that was left."""
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
