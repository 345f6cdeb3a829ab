"""Origins in the store: each is written once, under its own digest, before anything that names it."""

from infra.provenance import Origin
from infra.storage.store import Store

FOLDER = "origins"


def keep(store: Store, origin: Origin) -> str:
    """Make an origin durable, unless it is already; returns its digest.

    Raises:
        StoreError: it cannot be written.
    """
    key, data = _key(origin.digest), origin.to_json()
    if store.read(key) != data and not store.create(key, data):
        store.repair(key, data)
    return origin.digest


def read(store: Store, digest: str) -> Origin | None:
    """Read an origin; None where there is none of this digest, or its bytes are damaged."""
    data = store.read(_key(digest)) if digest else None
    try:
        origin = None if data is None else Origin.from_json(data)
    except ValueError:
        return None
    return origin if origin is not None and origin.digest == digest else None


def _key(digest: str) -> str:
    return f"{FOLDER}/{digest}.json"
