"""Numbered records: JSON objects that are written once each and never changed; the highest number is the newest.

A line of records has one prefix. The key of a record is the prefix, a dash and the number with six digits, or without
the dash where the prefix is a folder: `curations/x/result-000001.json`, `configs/x/000001.json`.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from infra.storage.store import Store, StoreError

_KEY = re.compile(r"(?P<prefix>.*/|.*[^/](?=-))-?(?P<number>[0-9]{6,})\.json")


def padded(number: int) -> str:
    """Write a number as keys hold it.

    >>> padded(7), padded(1_000_000)
    ('000007', '1000000')
    """
    return f"{number:06d}"


def record_key(prefix: str, number: int) -> str:
    """Return the key of a record.

    >>> record_key("releases/nq/HEAD", 7), record_key("configs/nq/", 3)
    ('releases/nq/HEAD-000007.json', 'configs/nq/000003.json')
    """
    return f"{prefix}{'' if prefix.endswith('/') else '-'}{padded(number)}.json"


def parse_key(key: str) -> tuple[str, int] | None:
    """Read prefix and number from a record's key; None where the key is no record's.

    >>> parse_key("releases/nq/HEAD-000007.json"), parse_key("configs/nq/000003.json")
    (('releases/nq/HEAD', 7), ('configs/nq/', 3))
    >>> parse_key("curations/nq-000001/curation.json")
    """
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    prefix, number = found["prefix"], int(found["number"])
    return (prefix, number) if record_key(prefix, number) == key else None


def numbers(store: Store, prefix: str) -> list[int]:
    """List the numbers of the records, in order."""
    found = (parse_key(key) for key in store.list(prefix.rpartition("/")[0]))
    return sorted(parsed[1] for parsed in found if parsed is not None and parsed[0] == prefix)


def read(store: Store, prefix: str, number: int) -> Any:  # noqa: ANN401 - JSON is any
    """Read a record that a listing named.

    Raises:
        StoreError: it is gone or damaged.
    """
    record = store.read_json(record_key(prefix, number))
    if record is None:
        raise StoreError(f"store {store.url}: {record_key(prefix, number)} vanished between listing and reading")
    return record


def read_newest(store: Store, prefix: str) -> Any:  # noqa: ANN401 - JSON is any
    """Read the newest record; None where there is none."""
    taken = numbers(store, prefix)
    return read(store, prefix, taken[-1]) if taken else None


def keep_next(store: Store, prefix: str, record: Any) -> int:  # noqa: ANN401 - JSON is any
    """Write a record under the next free number and return the number; safe beside other writers."""
    number = decide_next(store, prefix, lambda taken: record)
    assert number is not None
    return number


def decide_next(store: Store, prefix: str, decide: Callable[[list[int]], Any]) -> int | None:
    """Write the next record of a line; where another writer takes its number first, decide anew.

    Args:
        store: where the records lie.
        prefix: of their keys.
        decide: gets the numbers that are taken, in order, and returns the record to write, or None for none.

    Returns:
        The number of the record that was written; None where `decide` wanted none.
    """
    while True:
        taken = numbers(store, prefix)
        record = decide(taken)
        if record is None:
            return None
        number = next_number(taken)
        if store.create(record_key(prefix, number), json.dumps(record, indent=1, ensure_ascii=False).encode()):
            return number


def next_number(taken: list[int]) -> int:
    """Return the number that follows the highest one; the first is 1."""
    return taken[-1] + 1 if taken else 1
