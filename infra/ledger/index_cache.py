"""Indexes of segments that this process has read: a segment never changes, so neither does its index."""

import threading
from collections import OrderedDict
from functools import cache

from infra.ledger.blocks import Index

_BYTES = 256 * 2**20  # about 60 million rows


class IndexCache:
    """Keeps the indexes that were used last, by the keys of their segments; for any number of threads."""

    def __init__(self, most: int = _BYTES) -> None:
        """Begin empty; most: bytes that are kept."""
        self._most = most
        self._kept: OrderedDict[str, Index] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @classmethod
    def of(cls, store_url: str) -> "IndexCache":
        """Return the one of a store."""
        return _of(store_url)

    def get(self, key: str) -> Index | None:
        """Return the index of a segment, if it is kept."""
        with self._lock:
            index = self._kept.get(key)
            if index is not None:
                self._kept.move_to_end(key)
            return index

    def put(self, key: str, index: Index) -> None:
        """Keep an index, and drop those that were not used for longest."""
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = index
            self._bytes += index.size
            while self._bytes > self._most and self._kept:
                self._bytes -= self._kept.popitem(last=False)[1].size


@cache
def _of(store_url: str) -> IndexCache:
    return IndexCache()
