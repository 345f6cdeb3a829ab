"""Brings what Ray workers log while they work for a part to the log of that part.

No Prefect in workers: a worker hands its lines to one actor of the flow run, which holds them until a thread of the
driver fetches them, twice a second for all parts at once. Nothing here blocks or fails a part; lines that cannot be
kept are counted. Lines belong to the part in whose context they are logged (`contextvars`); those of a library's own
thread belong to the only part in the process, or to none. Lines keep the time at which they were logged.
"""

import contextlib
import logging
import sys
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, NamedTuple

from infra.cluster.ray_cluster import beside_driver
from infra.machine import where
from infra.redact import guard_logs, no_secrets_in_errors, redact

OURS = ("tasks", "infra")  # whose lines are relayed from INFO on; everybody else's from WARNING on
Line = tuple[float, int, str]  # seconds since the epoch, level, text
Show = Callable[[float, int, str], None]

_SECONDS = 0.3  # between two batches of a part
_COLLECT_SECONDS = 0.5
_HELD = 500  # lines held for a part, in its worker and in the actor; the newest stay
_CHATTY = 2000  # lines of a part, after which only errors are relayed
_LONGEST = 4000  # characters of a line; of an error's traceback the last ones
_BOXES = 1000  # boxes held; the oldest go first, they are of parts that died
_END_SECONDS = 10.0  # how long the last lines of parts that ended are waited for
_START_SECONDS = 60.0  # the same before the actor has answered for the first time: on a busy machine it starts late
_KILLED_SECONDS = 0.3  # how long what a killed worker had sent may be on its way
_log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Lines on their way; lost: how many there were beside them; ended: no more will come."""

    lines: list[Line]
    lost: int = 0
    ended: bool = False


class LineHolder:
    """Holds the lines of every part until they are fetched; one actor per flow run."""

    def __init__(self) -> None:
        """Start empty."""
        self._boxes: dict[str, Batch] = {}

    def put(self, box: str, batch: Batch) -> None:
        """Add lines to a box; of too many the oldest go."""
        held = self._boxes.pop(box, Batch([]))
        lines = [*held.lines, *batch.lines]
        over = max(0, len(lines) - _HELD)
        self._boxes[box] = Batch(lines[over:], held.lost + batch.lost + over, batch.ended)
        while len(self._boxes) > _BOXES:
            del self._boxes[next(iter(self._boxes))]

    def take(self) -> dict[str, Batch]:
        """Empty all boxes."""
        boxes, self._boxes = self._boxes, {}
        return boxes


@dataclass(frozen=True)
class Sender:
    """Where a worker hands the lines of one part; travels to it with the part."""

    holder: Any
    box: str

    def send(self, batch: Batch) -> None:
        """Hand lines over; nobody waits for it."""
        self.holder.put.remote(self.box, batch)


class PartLog:
    """The driver's end, for one attempt at a part or for an engine's building. Without `logs` nothing is relayed."""

    def __init__(self, logs: "PartLogs | None", show: Show) -> None:
        """Open a box; `show` gets time, level and text of each line."""
        self._logs, self._show = logs, show
        self._box = uuid.uuid4().hex
        self._lost = 0
        self.begun: float | None = None  # on the monotonic clock: when the worker was first heard of
        self.until: float | None = None  # when to give up waiting for the last lines; None while it goes on
        self.settled: float | None = None  # when all that a killed worker had sent must have arrived

    def sender(self) -> Sender | None:
        """Make the worker's end; call `finish` when the worker has ended."""
        return None if self._logs is None else self._logs.register(self._box, self)

    def another(self) -> "PartLog":
        """Open another box whose lines are shown in the same place."""
        return PartLog(self._logs, self._show)

    def tell(self, level: int, text: str) -> None:
        """Show a line of the driver's own."""
        self._show(time.time(), level, text)

    def receive(self, batch: Batch) -> None:
        """Show lines."""
        self.begun = self.begun or time.monotonic()
        for line in batch.lines:
            self._show(*line)
        self._lost += batch.lost
        if batch.ended and self._lost:
            self.tell(logging.WARNING, f"{self._lost} more lines of this part were not kept: there were too many")

    def finish(self, *, killed: bool) -> None:
        """Say that the worker has ended; its last lines are shown when they arrive."""
        now = time.monotonic()
        answers = self._logs is not None and self._logs.answered
        self.until = now + (_END_SECONDS if answers else _START_SECONDS)
        self.settled = now + _KILLED_SECONDS if killed else None


SILENT = PartLog(None, lambda at, level, text: None)


class PartLogs:
    """The lines of all parts of a flow run: the actor that holds them, and the thread that fetches them from it."""

    def __init__(self) -> None:
        """Start both; nobody waits for it. They end with this process, at the latest."""
        import ray

        actor = ray.remote(LineHolder).options(num_cpus=0, max_restarts=-1, scheduling_strategy=beside_driver())
        self._holder = actor.remote()
        self._open: dict[str, PartLog] = {}
        self._asked: Any = None
        self._asked_at = 0.0
        self.answered = False  # the actor has started
        self._over = threading.Event()
        # Prefect's settings, and so the address of its server, are in the context.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True, name="part-logs")
        self._thread.start()

    def open(self, show: Show) -> PartLog:
        """Open a box for one attempt at a part."""
        return PartLog(self, show)

    def register(self, box: str, log: PartLog) -> Sender:
        """Expect lines in a box."""
        self._open[box] = log
        return Sender(self._holder, box)

    def close(self) -> None:
        """Show the last lines of the parts that ended, and end the actor."""
        import ray

        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # Ray may be gone; lines are lost rather than the work
            until = time.monotonic() + (_END_SECONDS if self.answered else _START_SECONDS)
            while any(log.until for log in list(self._open.values())) and time.monotonic() < until:
                self._collect(0.1)
                time.sleep(0.01)
            ray.kill(self._holder)

    def _run(self) -> None:
        while not self._over.wait(_COLLECT_SECONDS):
            try:
                self._collect(_COLLECT_SECONDS)
            except Exception:  # if the thread ended, no later line would be shown
                _log.warning("lines of workers could not be shown", exc_info=True)

    def _collect(self, seconds: float) -> None:
        """Show what has come since, waiting no longer than told."""
        if not self._open:
            return
        boxes = self._fetch(seconds)
        for box, batch in (boxes or {}).items():
            log = self._open.get(box)
            if log is not None:
                log.receive(batch)
            if batch.ended:
                self._open.pop(box, None)
        now = time.monotonic()
        for box, log in list(self._open.items()):
            late = log.until is not None and log.until < now
            if late or (boxes is not None and log.settled is not None and log.settled < self._asked_at):
                del self._open[box]

    def _fetch(self, seconds: float) -> Mapping[str, Batch] | None:
        """Empty the actor; None if it does not answer in time: its answer is waited for in the next call."""
        import ray

        if self._asked is None:
            self._asked, self._asked_at = self._holder.take.remote(), time.monotonic()
        if not ray.wait([self._asked], timeout=seconds)[0]:
            return None
        asked, self._asked = self._asked, None
        try:
            boxes: Mapping[str, Batch] = ray.get(asked)
        except ray.exceptions.RayError:  # it died with its node, and is started anew
            return None
        self.answered = True
        return boxes


class _Relay:
    """The worker's end while it works for a part: gathers lines and sends them on, at once or a moment later."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._lines: deque[Line] = deque(maxlen=_HELD)
        self._lost = self._count = 0
        self._sent = 0.0
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()  # sending may log
        self.ended = False

    def add(self, at: float, level: int, text: str) -> None:
        with self._lock:
            self._count += 1
            if self._count > _CHATTY and level < logging.ERROR:
                self._lost += 1
                return
            self._lost += len(self._lines) == _HELD
            self._lines.append((at, level, text))
            if time.monotonic() - self._sent >= _SECONDS:
                self.send()
            elif self._timer is None:
                self._timer = threading.Timer(_SECONDS, self.send)
                self._timer.daemon = True
                self._timer.start()

    def send(self, *, last: bool = False) -> None:
        with self._lock:
            if self.ended:
                return
            if self._timer is not None:
                self._timer.cancel()
            batch = Batch(list(self._lines), self._lost, last)
            self._lines.clear()
            self._lost, self._timer, self._sent, self.ended = 0, None, time.monotonic(), last
            if batch.lines or batch.lost or last:
                with contextlib.suppress(Exception):  # lines are lost rather than the part
                    self._sender.send(batch)


_RELAY: ContextVar[_Relay | None] = ContextVar("part_log", default=None)
_ACTIVE: list[_Relay] = []


class _Handler(logging.Handler):
    """Gives each line to the part it belongs to."""

    def createLock(self) -> None:
        """Have no lock: each part's relay has its own, and a line may be logged while another is sent."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Relay a line, or leave it."""
        ours = record.name.partition(".")[0] in OURS
        if record.levelno < (logging.INFO if ours else logging.WARNING):
            return
        relay, active = _RELAY.get(), list(_ACTIVE)
        if (relay is None or relay.ended) and len(active) == 1:
            relay = active[0]
        if relay is not None and not relay.ended:
            with contextlib.suppress(Exception):
                relay.add(record.created, record.levelno, _text_of(record, ours=ours))


_HANDLER = _Handler()


class _Redacting(logging.Formatter):
    """For the worker's own log file."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _text_of(record: logging.LogRecord, *, ours: bool) -> str:
    text = redact(record.getMessage() if ours else f"{record.name}: {record.getMessage()}")[:_LONGEST]
    if record.exc_info and record.exc_info[1] is not None:
        text += "\n" + last_lines("".join(traceback.format_exception(record.exc_info[1])))
    return text


def last_lines(text: str, lines: int = 40) -> str:
    """Cut a traceback to its last lines, where the error stands; without secrets."""
    return "\n".join(redact(text).rstrip().splitlines()[-lines:])[-_LONGEST:]


def _listen() -> None:
    """Hear every logger of this process, those too that pass nothing on to the root."""
    root = logging.getLogger()
    if _HANDLER not in root.handlers:
        if not root.handlers:  # the worker's own log file keeps the same lines, should these not arrive
            own = logging.StreamHandler(sys.stderr)
            own.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            root.addHandler(own)
        root.addHandler(_HANDLER)
        for name in OURS:
            logging.getLogger(name).setLevel(logging.INFO)
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and not logger.propagate and _HANDLER not in logger.handlers:
            logger.addHandler(_HANDLER)


@contextlib.contextmanager
def relayed(sender: Sender | None, what: str, expected: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Relay what is logged inside, and keep secrets out of the error that leaves.

    Args:
        sender: where the lines go; None where nobody listens.
        what: what is begun, as the first line tells it: a part's name.
        expected: errors that are no failure, told as a plain line.
    """
    guard_logs()
    relay = None if sender is None else _Relay(sender)
    token = _RELAY.set(relay)
    if relay is not None:
        _listen()
        _ACTIVE.append(relay)
    try:
        _log.info("%s: begun on %s", what, where() or "this machine")
        with no_secrets_in_errors():
            yield
    except expected as error:
        _log.info("%s: %s", what, error)
        raise
    finally:
        _RELAY.reset(token)
        if relay is not None:
            _ACTIVE.remove(relay)
            relay.send(last=True)
