"""Items are made ahead, in order; errors arrive, and nothing runs on."""

import threading
import time
from collections.abc import Iterator

import pytest

from tasks.data.ingesting.ahead import read_ahead


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_items_come_in_their_order_and_the_next_one_is_made_meanwhile() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    found = read_ahead(items())
    assert next(found) == 0
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1, 2]  # one waits in the queue, and one to be put there
    assert list(found) == [1, 2, 3, 4]
    assert not _threads()


def test_an_error_arrives_where_its_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    found = read_ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)
    assert not _threads()


def test_who_stops_early_leaves_no_thread_behind() -> None:
    found = read_ahead(iter(range(100)))
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    assert not _threads()
