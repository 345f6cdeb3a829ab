"""Keeps the models that trainings start from in the store, by the digest of their weights."""

import json
from pathlib import Path

from infra.storage.artifacts import Directory, write_directory
from infra.storage.store import Store


def stored_base(store: Store, digest: str) -> Directory:
    """Return a model as the store keeps it; without files if it is not there yet."""
    return Directory("model", store.read_json(_key(digest)) or {})


def keep_base(store: Store, digest: str, known: Directory, folder: Path) -> Directory:
    """Return a model as the store keeps it. known: as `stored_base` found it; its files are written if it has none.

    Raises:
        StoreError: it could not be stored.
    """
    if known.files:
        return known
    files = dict(write_directory(store, "model", folder).files)
    store.create(_key(digest), json.dumps(files, sort_keys=True).encode())
    return Directory("model", files)


def _key(digest: str) -> str:
    return f"models/{digest}.json"
