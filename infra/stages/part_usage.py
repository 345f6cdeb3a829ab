"""What computing a part takes: the bytes and objects that it reads from the store, and the peak of its memory."""

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infra.storage.store import Store

_SELF = Path("/proc/self")
_RESET_PEAK = "5"  # as Linux has it: the peak of the resident memory begins anew
_lock = threading.Lock()
_at_work = 0  # parts of this process


class CountingStore(Store):
    """A store that counts what is read from it; of an object that is read in pieces, the pieces are counted."""

    def __init__(self, url: str) -> None:
        """Count from nothing on."""
        super().__init__(url)
        self._counting = threading.Lock()
        self._objects: set[str] = set()
        self._bytes = 0

    def _attempt(self, verb: str, key: str, call: Callable[[], Any], *missing: Any) -> Any:  # noqa: ANN401 - as called
        result = super()._attempt(verb, key, call, *missing)
        if verb == "read" and isinstance(result, bytes | bytearray | memoryview):
            with self._counting:
                self._objects.add(key)
                self._bytes += len(result)
        if verb == "copy":  # a whole object, to a file
            size = self.size(key) or 0
            with self._counting:
                self._objects.add(key)
                self._bytes += size
        return result

    def counts(self) -> dict[str, int]:
        """Return what was read so far: `read_bytes`, and `read_objects`, each object once."""
        with self._counting:
            return {"read_bytes": self._bytes, "read_objects": len(self._objects)}


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the highest resident memory of this process since the block began, in GiB.

    It includes memory that is shared with other processes. Where several parts are at work in this process, the peak is
    that of all of them, since the first of them began. Where the system does not let the peak begin anew, it is the
    highest since the process began.
    """
    global _at_work  # noqa: PLW0603 - one for the process, as its memory
    with _lock:
        if not _at_work:
            with suppress(OSError):
                (_SELF / "clear_refs").write_text(_RESET_PEAK)
        _at_work += 1
    try:
        yield _peak_gib
    finally:
        with _lock:
            _at_work -= 1


def _peak_gib() -> float:
    try:
        lines = (_SELF / "status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kib / 2**20, 4)
