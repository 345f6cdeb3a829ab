"""Numbered records: written once each, never changed; the highest number is the newest."""

import json
from typing import Any

from infra.storage.store import Store


def keep_next(store: Store, prefix: str, record: Any) -> int:  # noqa: ANN401 - JSON is any
    """Write a record as `<prefix>-NNNNNN.json` under the next free number, and return it; safe beside other writers."""
    data = json.dumps(record, indent=1, ensure_ascii=False).encode()
    taken = numbers(store, prefix)
    number = taken[-1] + 1 if taken else 1
    while not store.create(f"{prefix}-{number:06d}.json", data):
        number += 1
    return number


def numbers(store: Store, prefix: str) -> list[int]:
    """List the numbers that are taken."""
    folder, _, name = prefix.rpartition("/")
    keys = (key.rsplit("/", 1)[-1] for key in store.list(folder) if key.startswith(f"{prefix}-"))
    endings = (key.removeprefix(f"{name}-").removesuffix(".json") for key in keys if key.endswith(".json"))
    return sorted(int(ending) for ending in endings if ending.isdigit())


def read_newest(store: Store, prefix: str) -> Any:  # noqa: ANN401 - JSON is any
    """Read the newest record; None where there is none."""
    taken = numbers(store, prefix)
    return store.read_json(f"{prefix}-{taken[-1]:06d}.json") if taken else None
