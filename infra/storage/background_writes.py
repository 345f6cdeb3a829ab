"""Writes in the background: done by a few daemon threads, with several attempts; failures are kept."""

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

_WRITERS = 4
_QUEUE = 4096  # with so many writes queued, `submit` waits
_PAUSES = (0.2, 1.0, 3.0)  # seconds before each further attempt

_log = logging.getLogger(__name__)


_living: "weakref.WeakSet[Background]" = weakref.WeakSet()


def drain_all(seconds: float) -> int:
    """Wait until all queues of this process are empty, for some seconds at most; returns the number of writes left."""
    deadline = time.monotonic() + seconds
    return sum(background.settle(deadline) for background in list(_living))


class Background:
    """Runs writes on a few daemon threads, which end when there is no work left, and keeps the failures."""

    def __init__(self) -> None:
        self._writes: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._failed: list[Exception] = []
        _living.add(self)

    def submit(self, write: Callable[[], None]) -> None:
        """Queue a write; waits only if thousands are queued already."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._writes) < _QUEUE)
            self._writes.append(write)
            if self._threads < _WRITERS:
                threading.Thread(target=self._work, name="background-writer", daemon=True).start()
                self._threads += 1

    def drain(self) -> list[Exception]:
        """Wait until every write has ended; returns the failures since the last call."""
        with self._changed:
            self._changed.wait_for(lambda: not self._threads)
            failed, self._failed = self._failed, []
        return failed

    def settle(self, deadline: float) -> int:
        """Wait for the writes until a time of the monotonic clock; returns the number left, and keeps the failures."""
        with self._changed:
            self._changed.wait_for(lambda: not self._threads, max(0.0, deadline - time.monotonic()))
            return len(self._writes) + self._threads

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.notify_all()
                if not self._writes:
                    self._threads -= 1
                    return
                write = self._writes.popleft()
            self._attempt(write)

    def _attempt(self, write: Callable[[], None]) -> None:
        """Try a write several times; once any write has failed for good, the others are tried only once."""
        for pause in (*_PAUSES, None):
            try:
                return write()
            except Exception as error:
                if pause is None or self._failed:
                    self._failed.append(error)
                    return None
                _log.warning("a write failed and is tried again in %s s: %s", pause, error)
                time.sleep(pause)
        return None
