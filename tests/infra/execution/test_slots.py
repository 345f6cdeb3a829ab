"""The bound on parts at work follows what is counted; nobody waits for ever, and one thread counts at a time."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from infra.execution.slots import Slots


def await_true(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Crowd:
    """Threads that go into the slots and stay there until they are let go."""

    def __init__(self, slots: Slots, number: int) -> None:
        self.inside: list[int] = []
        self._leave = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(slots, n), daemon=True) for n in range(number)]
        for thread in self._threads:
            thread.start()

    def _work(self, slots: Slots, number: int) -> None:
        with slots:
            self.inside.append(number)
            self._leave.wait(60)

    def end(self) -> None:
        self._leave.set()
        for thread in self._threads:
            thread.join(60)


def test_no_more_are_inside_than_were_counted_and_the_next_one_enters_when_one_leaves() -> None:
    slots = Slots(lambda: 2, seconds=60)
    slots.take()
    slots.take()
    crowd = Crowd(slots, 1)
    time.sleep(0.05)
    assert crowd.inside == []
    slots.give_back()
    await_true(lambda: crowd.inside == [0])
    crowd.end()


def test_nodes_that_join_let_more_in_while_the_first_are_still_inside() -> None:
    counts = [1]
    slots = Slots(lambda: counts[0], seconds=0.02)
    crowd = Crowd(slots, 5)
    await_true(lambda: len(crowd.inside) == 1)
    time.sleep(0.1)
    assert len(crowd.inside) == 1
    counts[0] = 4
    await_true(lambda: len(crowd.inside) == 4)
    time.sleep(0.1)
    assert (len(crowd.inside), slots.bound) == (4, 4)
    crowd.end()
    assert len(crowd.inside) == 5


def test_a_lost_node_lets_fewer_in_and_an_unknown_count_changes_nothing() -> None:
    counts: list[int | None] = [3]
    slots = Slots(lambda: counts[0], seconds=0.01)
    for _ in range(3):
        slots.take()
    counts[0] = 1
    crowd = Crowd(slots, 1)
    await_true(lambda: slots.bound == 1)
    slots.give_back()
    slots.give_back()
    time.sleep(0.05)
    assert crowd.inside == []
    slots.give_back()
    await_true(lambda: crowd.inside == [0])
    crowd.end()
    counts[0] = None
    slots.take()
    crowd = Crowd(slots, 1)
    time.sleep(0.05)
    assert (slots.bound, crowd.inside) == (1, [])
    slots.give_back()
    crowd.end()


def test_one_thread_counts_for_all_that_wait() -> None:
    counted: list[float] = []

    def count() -> int:
        counted.append(time.monotonic())
        return 1

    slots = Slots(count, seconds=0.1)
    slots.take()
    began = time.monotonic()
    crowd = Crowd(slots, 20)
    time.sleep(0.45)
    slots.give_back()
    crowd.end()
    assert len(counted) <= 3 + (time.monotonic() - began) / 0.1
    assert min(later - earlier for earlier, later in itertools.pairwise(counted[1:])) >= 0.09


def test_at_least_one_may_be_inside_and_the_first_count_may_refuse() -> None:
    assert Slots(lambda: 0).bound == 1
    assert Slots(lambda: None).bound == 1

    def refuse() -> int:
        raise KeyError("no node")

    with pytest.raises(KeyError):
        Slots(refuse)
