"""Make the next item in another thread while the last one is worked on."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_WAIT = 0.1  # seconds between two looks at whether anybody still wants items


def read_ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items in their order. At most two are made before they are asked for.

    Raises:
        Exception: what making an item raises, at that item.
    """
    maker = _Maker(items)
    try:
        while (made := maker.queue.get()) is not None:
            yield made[0]
            del made
    finally:
        maker.unwanted.set()
        maker.join()
    if maker.error is not None:
        raise maker.error


class _Maker(threading.Thread, Generic[_Item]):
    """Makes items and puts them into a queue, then None. error: what ended it early."""

    def __init__(self, items: Iterable[_Item]) -> None:
        super().__init__(name="read-ahead", daemon=True)
        self.queue: queue.Queue[tuple[_Item] | None] = queue.Queue(maxsize=1)
        self.unwanted = threading.Event()
        self.error: BaseException | None = None
        self._items = items
        self.start()

    def run(self) -> None:
        """Make all items, as long as they are wanted."""
        try:
            for item in self._items:
                self._put((item,))
                del item
                if self.unwanted.is_set():
                    return
        except BaseException as error:
            self.error = error
        self._put(None)

    def _put(self, entry: tuple[_Item] | None) -> None:
        while not self.unwanted.is_set():
            try:
                return self.queue.put(entry, timeout=_WAIT)
            except queue.Full:
                continue
