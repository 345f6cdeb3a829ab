"""How many parts are at work at a time: a bound that follows the cluster while a stage runs."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

_LOOK_SECONDS = 5.0


class Slots:
    """A context that at most so many threads are inside of at a time; who finds it full counts anew every few seconds.

    A node that joins is so given parts within seconds. Where a node is lost, those inside stay, and fewer are let in.
    """

    def __init__(self, count: Callable[[], int | None], seconds: float | None = None) -> None:
        """Count for the first time; what `count` raises then is raised here.

        Args:
            count: returns how many may be inside, or None where that is not known now; then the last count holds.
            seconds: between two counts.
        """
        self._count = count
        self._seconds = _LOOK_SECONDS if seconds is None else seconds
        self._free = threading.Condition()
        self._inside = 0
        self._bound = max(1, count() or 1)
        self._counted = time.monotonic()

    @property
    def bound(self) -> int:
        """How many may be inside, as it was counted last."""
        return self._bound

    def take(self) -> None:
        """Wait for a place, however long that takes."""
        while not self._enter():
            if self._is_due():
                self._recount()

    def give_back(self) -> None:
        """Leave a place."""
        with self._free:
            self._inside -= 1
            self._free.notify()

    def __enter__(self) -> None:
        self.take()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def _enter(self) -> bool:
        with self._free:
            if self._inside >= self._bound:
                self._free.wait(self._seconds)
            if self._inside >= self._bound:
                return False
            self._inside += 1
            return True

    def _is_due(self) -> bool:
        """Tell whether it is this thread's turn to count."""
        with self._free:
            if time.monotonic() - self._counted < self._seconds:
                return False
            self._counted = time.monotonic()
            return True

    def _recount(self) -> None:
        count = self._count()
        with self._free:
            self._counted = time.monotonic()
            if count is not None:
                self._bound = max(1, count)
                self._free.notify_all()
