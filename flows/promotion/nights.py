"""Counts the nights that tested a training set since the last promotion, and keeps the result of each test.

`gates/<name>/NNNNNN.json` has a record for each content that was compared. A night without change compares nothing new
and adds none. The number of the night decides its level (`tasks.training.gate.differences.level_of_night`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from infra.storage.numbered_records import keep_next, numbers, read
from infra.storage.store import Store

Record = Mapping[str, Any]
_LOOKED_AT = 30  # of the newest records, among which the same content is looked for


def night_of_test(store: Store, name: str, content: str, promotions: int) -> int:
    """Return which test since the last promotion one of this content is, from 1; a repeated test keeps its number.

    Args:
        store: with the records.
        name: of the curations.
        content: a hash of what is promoted.
        promotions: how many releases of the name were promoted so far.
    """
    known = _since(store, name, promotions)
    same = [record for record in known if record["content"] == content]
    if same:
        return int(same[-1]["night"])
    return int(known[-1]["night"]) + 1 if known else 1


def keep_test(store: Store, name: str, record: Record) -> None:
    """Keep the result of a test, unless one of the same content is kept since the last promotion.

    record: `content`, `promotions` and `night` as above, and what was decided.
    """
    known = _since(store, name, int(record["promotions"]))
    if all(each["content"] != record["content"] for each in known):
        keep_next(store, _line(name), dict(record))


def _since(store: Store, name: str, promotions: int) -> Sequence[Record]:
    """Return the newest records since the last promotion, oldest first."""
    found: list[Record] = []
    for number in reversed(numbers(store, _line(name))[-_LOOKED_AT:]):
        record = read(store, _line(name), number)
        if record["promotions"] != promotions:
            break
        found.insert(0, record)
    return found


def _line(name: str) -> str:
    return f"gates/{name}/"
