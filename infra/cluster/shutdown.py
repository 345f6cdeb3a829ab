"""Ends a worker on SIGTERM, or when its node is about to be taken away.

What the ledgers of this process hold in their queues is written first, for twenty seconds at most; then the process
ends at once. Its parts are failed attempts, which another node computes; the batch that an engine works on is lost.

Ray turns a SIGTERM to one worker into an exception in the main thread, and an actor's methods go on until they return.
A SIGTERM to a node makes it drain for 30 s without telling its workers, and then kills them (docs/nodes.md has the
measurements).
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from infra.storage.background_writes import drain_all

EXIT_CODE = 143  # as a shell names a process that SIGTERM ended
_SECONDS = 20.0
_LOOK_SECONDS = 5.0

_log = logging.getLogger(__name__)
_ending = threading.Event()


def install(is_draining: Callable[[], bool] | None = None) -> None:
    """Make this process end as described when it gets SIGTERM; call it in the main thread, an actor's constructor.

    Args:
        is_draining: tells whether this node is about to go; asked every few seconds.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: end("SIGTERM"))
    else:
        _log.warning("SIGTERM will not flush the ledger: this is not the main thread")
    if is_draining is not None:
        threading.Thread(target=_watch, args=(is_draining,), daemon=True, name="drain-watch").start()


def end(why: str, seconds: float = _SECONDS) -> None:
    """Write what the ledgers of this process hold, for some seconds at most, and end the process."""
    if _ending.is_set():
        return  # a second signal changes nothing
    _ending.set()
    left = drain_all(seconds)
    _log.warning("%s: this process ends; %d of the ledger's writes were not made", why, left)
    logging.shutdown()
    os._exit(EXIT_CODE)  # an exception would wait for the methods at work, which may take hours


def _watch(is_draining: Callable[[], bool]) -> None:
    while not _ending.is_set():
        time.sleep(_LOOK_SECONDS)
        with contextlib.suppress(Exception):  # a head that restarts does not answer for a while
            if is_draining():
                end("the node is going away")
