"""Writes in the background: done by a few threads, tried again, their failures kept until somebody asks."""

import threading
import time
from collections.abc import Callable

import pytest

from infra.storage import background_writes
from infra.storage.background_writes import Background, drain_all


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let pauses take no time; returns them."""
    made: list[float] = []
    monkeypatch.setattr(background_writes.time, "sleep", made.append)
    return made


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def failing(times: int, done: list[str]) -> Callable[[], None]:
    """A write that fails as often as told."""
    left = [times]

    def write() -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(f"failure {times - left[0]}")
        done.append("written")

    return write


def test_what_was_handed_over_is_done_by_the_time_it_is_drained() -> None:
    background, done = Background(), list[int]()
    for number in range(100):
        background.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert background.drain() == []
    assert sorted(done) == list(range(100))


def test_a_write_is_tried_four_times_with_growing_pauses(pauses: list[float]) -> None:
    background, done = Background(), list[str]()
    background.submit(failing(3, done))
    assert background.drain() == []
    assert (done, pauses) == (["written"], [0.2, 1.0, 3.0])


def test_a_write_that_failed_four_times_is_a_failure_and_is_told_once(pauses: list[float]) -> None:
    background, done = Background(), list[str]()
    background.submit(failing(4, done))
    assert [str(error) for error in background.drain()] == ["failure 4"]
    assert background.drain() == []
    assert (done, pauses) == ([], [0.2, 1.0, 3.0])


def test_once_a_write_has_failed_for_good_the_others_are_tried_once(pauses: list[float]) -> None:
    background, done = Background(), list[str]()
    background.submit(failing(4, done))
    wait_until(lambda: bool(background._failed))
    background.submit(failing(1, done))
    background.submit(failing(0, done))
    assert [str(error) for error in background.drain()] == ["failure 4", "failure 1"]
    assert done == ["written"]
    assert pauses == [0.2, 1.0, 3.0]


def test_four_threads_write_at_once_and_end_with_their_work() -> None:
    background, gate, at_work = Background(), threading.Event(), list[str]()

    def write() -> None:
        assert threading.current_thread().daemon  # an ending process does not wait for it
        at_work.append(threading.current_thread().name)
        assert gate.wait(20)

    for _ in range(8):
        background.submit(write)
    wait_until(lambda: len(at_work) == 4)
    assert background.settle(time.monotonic() + 0.05) == 8  # four under way, four queued
    assert len(at_work) == 4
    assert set(at_work) == {"background-writer"}
    gate.set()
    assert background.drain() == []
    assert (len(at_work), background._threads) == (8, 0)


def test_a_full_queue_lets_the_caller_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_writes, "_QUEUE", 2)
    background, gate, submitted = Background(), threading.Event(), list[int]()

    def submit() -> None:
        for number in range(10):
            background.submit(lambda: gate.wait(20))  # type: ignore[arg-type,return-value]
            submitted.append(number)

    thread = threading.Thread(target=submit)
    thread.start()
    wait_until(lambda: len(submitted) == 6)
    thread.join(0.05)
    assert submitted == list(range(6))  # four at work, two queued
    gate.set()
    thread.join(20)
    assert background.drain() == []
    assert len(submitted) == 10


def test_all_queues_of_the_process_are_waited_for_and_what_is_left_is_counted() -> None:
    first, second, gate = Background(), Background(), threading.Event()
    first.submit(lambda: None)
    second.submit(lambda: gate.wait(20))  # type: ignore[arg-type,return-value]
    assert drain_all(0.2) == 1
    gate.set()
    assert drain_all(20) == 0


def test_waiting_until_a_time_keeps_the_failures(pauses: list[float]) -> None:
    background = Background()
    background.submit(failing(4, []))
    assert background.settle(time.monotonic() + 20) == 0
    assert len(background.drain()) == 1
