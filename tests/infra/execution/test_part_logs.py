"""Lines on their way from a worker to a part's log, without Ray; with it, in test_flow_runs.py."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from infra.execution import part_logs
from infra.execution.part_logs import SILENT, Batch, LineHolder, PartLog, PartLogs, Sender, relayed
from infra.execution.shared_engine import EngineThread
from tests.conftest import ROOT
from tests.infra.ray_in_process import Actor, RayInProcess

OURS = logging.getLogger("tasks.toy")
OTHERS = logging.getLogger("a_library.module")


class Here(Actor):
    """The actor that holds lines, in this process."""

    def __init__(self) -> None:
        super().__init__(LineHolder())
        self.seen: dict[str, Batch] = {}

    def batch(self, box: str) -> Batch:
        """Return all lines that were put into a box so far."""
        for name, batch in self.thing.take().items():
            before = self.seen.get(name, Batch([]))
            self.seen[name] = Batch([*before.lines, *batch.lines], before.lost + batch.lost, batch.ended)
        return self.seen.get(box, Batch([]))

    def lines(self, box: str) -> list[str]:
        return [text for _, _, text in self.batch(box).lines]


@pytest.fixture(autouse=True)
def undisturbed() -> Iterator[None]:
    """Leave the loggers of this process as they were."""
    root = logging.getLogger()
    before, levels = list(root.handlers), {name: logging.getLogger(name).level for name in part_logs.OURS}
    yield
    for handler in [h for h in root.handlers if h not in before]:
        root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_our_lines_from_info_on_and_others_from_warning_on_arrive_in_order() -> None:
    here = Here()
    with relayed(Sender(here, "a"), "double-00000"):
        OURS.debug("too fine")
        OURS.info("one")
        OTHERS.info("a library's chatter")
        OTHERS.warning("two")
        OURS.error("three")
    batch = here.batch("a")
    assert [line[1:] for line in batch.lines] == [
        (logging.INFO, "double-00000: begun on this machine"),
        (logging.INFO, "one"),
        (logging.WARNING, "a_library.module: two"),
        (logging.ERROR, "three"),
    ]
    assert (batch.lost, batch.ended) == (0, True)
    times = [at for at, _, _ in batch.lines]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 10


def test_a_logger_that_passes_nothing_on_is_heard_all_the_same() -> None:
    here, proud = Here(), logging.getLogger("proud_library")
    proud.propagate = False
    with relayed(Sender(here, "a"), "part"):
        proud.getChild("module").warning("heard")
    assert here.lines("a")[1:] == ["proud_library.module: heard"]


def test_two_parts_that_share_an_engine_do_not_mix_their_lines() -> None:
    """Each part logs in its own thread, and the engine logs in the thread that works for one part after the other."""

    class Talkative:
        def encode(self, texts: list[str], role: str) -> list[str]:
            OURS.info("encoding %s", texts[0])
            time.sleep(0.01)
            return texts

    here, engine = Here(), EngineThread(Talkative)

    def part(name: str) -> None:
        with relayed(Sender(here, name), name):
            for number in range(20):
                OURS.info("%s asks %d", name, number)
                engine.call("encode", [f"{name}'s text {number}"], "query")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(part, ["left", "right"]))
    for name in ("left", "right"):
        lines = here.lines(name)
        assert len(lines) == 41
        assert all(name in line for line in lines)


def test_a_librarys_own_thread_belongs_to_the_only_part_or_to_none() -> None:
    here = Here()

    def elsewhere() -> None:
        thread = threading.Thread(target=OTHERS.warning, args=("from a thread",))
        thread.start()
        thread.join()

    with relayed(Sender(here, "a"), "a"):
        elsewhere()
        with relayed(Sender(here, "b"), "b"):
            elsewhere()
    assert sum("from a thread" in line for line in here.lines("a")) == 1
    assert not any("from a thread" in line for line in here.lines("b"))


def test_a_flood_is_cut_and_counted_and_its_errors_come_through() -> None:
    here = Here()
    with relayed(Sender(here, "a"), "part"):
        for number in range(5000):
            OURS.info("line %d", number)
        OURS.error("the end")
    batch = here.batch("a")
    assert batch.lines[-1][1:] == (logging.ERROR, "the end")
    assert len(batch.lines) + batch.lost == 5002
    assert len(batch.lines) <= 500
    assert len(here.calls) < 200  # one every 0.3 s, however busy the machine is; not one per line


def test_a_line_is_on_its_way_within_a_moment_though_nothing_follows_it() -> None:
    here = Here()
    with relayed(Sender(here, "a"), "part"):
        OURS.info("now a long silence")
        until = time.monotonic() + 60
        while len(here.lines("a")) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        lines = here.lines("a")
    assert lines == ["part: begun on this machine", "now a long silence"]


def test_lines_that_cannot_be_sent_are_no_reason_to_fail() -> None:
    class Gone:
        @property
        def put(self) -> None:
            raise RuntimeError("the actor is gone")

    with relayed(Sender(Gone(), "a"), "part"):
        OURS.info("lost")


def test_secrets_are_hidden_in_lines_in_tracebacks_and_in_the_error_that_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOY_API_KEY", "sk-123456")
    here = Here()

    def fail() -> None:
        try:
            raise ValueError("sk-123456 is refused")
        except ValueError:
            OURS.exception("trouble")
            raise

    with pytest.raises(ValueError, match=r"\*\*\* is refused") as caught, relayed(Sender(here, "a"), "part"):
        OURS.info("x" * 3995 + "sk-123456")
        fail()
    assert caught.value.__cause__ is None
    told = "\n".join(here.lines("a"))
    assert "*** is refused" in told
    assert "ValueError" in told
    assert "sk-1" not in told


def test_what_the_ledger_does_not_remember_is_told_as_a_line_not_as_a_failure() -> None:
    here = Here()
    with pytest.raises(LookupError), relayed(Sender(here, "a"), "part", expected=(LookupError,)):
        raise LookupError("3 rows are not in the ledger")
    assert [line[1:] for line in here.batch("a").lines[1:]] == [(logging.INFO, "part: 3 rows are not in the ledger")]


def test_the_holder_is_bounded_and_counts_what_it_lets_go() -> None:
    holder = LineHolder()
    for number in range(100):
        holder.put("a", Batch([(0.0, logging.INFO, f"{number} {i}") for i in range(10)]))
    kept = holder.take()["a"]
    assert (len(kept.lines), kept.lost, kept.lines[-1][2]) == (500, 500, "99 9")
    for number in range(1500):
        holder.put(str(number), Batch([(0.0, logging.INFO, "from a part that died")]))
    assert list(holder.take()) == [str(number) for number in range(500, 1500)]


def test_nothing_is_relayed_where_nobody_listens() -> None:
    with relayed(SILENT.sender(), "part"):
        OURS.info("unheard")


def test_a_part_that_lost_lines_says_how_many() -> None:
    shown: list[tuple[int, str]] = []
    log = PartLog(None, lambda at, level, text: shown.append((level, text)))
    log.receive(Batch([(0.0, logging.INFO, "one")], lost=3))
    log.receive(Batch([], lost=2, ended=True))
    assert shown == [
        (logging.INFO, "one"),
        (logging.WARNING, "5 more lines of this part were not kept: there were too many"),
    ]


# ---- the driver's end, with the actor in this process ----

Shown = list[tuple[int, str]]


@dataclass
class Driver:
    """The lines of a run, fetched by hand."""

    logs: PartLogs
    ray: RayInProcess
    shown: dict[str, Shown] = field(default_factory=dict)

    def open(self, name: str) -> PartLog:
        lines = self.shown.setdefault(name, [])
        return self.logs.open(lambda at, level, text: lines.append((level, text)))

    def collect(self) -> None:
        self.logs._collect(0.0)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    ours = RayInProcess().install(monkeypatch)
    monkeypatch.setattr(part_logs, "beside_driver", lambda: "beside")
    monkeypatch.setattr(PartLogs, "_run", lambda self: None)
    monkeypatch.setattr(part_logs, "_END_SECONDS", 0.05)
    yield Driver(PartLogs(), ours)


def info(*texts: str) -> list[tuple[float, int, str]]:
    return [(1.0, logging.INFO, text) for text in texts]


def test_lines_go_to_the_part_whose_box_they_were_put_into(driver: Driver) -> None:
    assert driver.ray.options == [{"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": "beside"}]
    first, second = driver.open("first"), driver.open("second")
    senders = [log.sender() for log in (first, second, first.another())]
    for sender, text in zip(senders, ("one", "two", "three"), strict=True):
        assert sender is not None
        sender.send(Batch(info(text)))
    driver.collect()
    assert driver.shown == {
        "first": [(logging.INFO, "one"), (logging.INFO, "three")],
        "second": [(logging.INFO, "two")],
    }
    first.tell(logging.ERROR, "the driver's own")
    assert driver.shown["first"][-1] == (logging.ERROR, "the driver's own")


def test_a_box_is_closed_by_its_last_lines_and_lines_that_come_later_are_nobodys(driver: Driver) -> None:
    sender = driver.open("part").sender()
    assert sender is not None
    sender.send(Batch(info("last"), ended=True))
    driver.collect()
    assert driver.logs._open == {}
    sender.send(Batch(info("too late")))
    other = driver.open("other").sender()
    assert other is not None
    driver.collect()
    assert driver.shown == {"part": [(logging.INFO, "last")], "other": []}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The driver's time, in seconds: the tests set it."""
    now = [1000.0]
    monkeypatch.setattr(part_logs, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time, sleep=time.sleep))
    return now


def test_the_last_lines_of_a_part_that_ended_are_waited_for_a_while(driver: Driver, clock: list[float]) -> None:
    log = driver.open("part")
    log.sender()
    driver.collect()
    assert len(driver.logs._open) == 1
    log.finish(killed=False)
    assert log.settled is None
    clock[0] += 0.04
    driver.collect()
    assert len(driver.logs._open) == 1
    clock[0] += 0.02
    driver.collect()
    assert driver.logs._open == {}


def test_what_a_killed_worker_had_sent_is_there_once_the_actor_was_asked_later(
    driver: Driver, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_logs, "_END_SECONDS", 60.0)
    monkeypatch.setattr(part_logs, "_KILLED_SECONDS", 0.05)
    log = driver.open("part")
    log.sender()
    log.finish(killed=True)
    clock[0] += 0.04
    driver.collect()
    assert len(driver.logs._open) == 1  # asked before all that was on its way had come
    clock[0] += 0.02
    driver.collect()
    assert driver.logs._open == {}


def test_an_actor_that_is_slow_is_asked_the_same_question_and_a_dead_one_a_new_one(driver: Driver) -> None:
    (holder,) = driver.ray.actors
    sender = driver.open("part").sender()
    assert sender is not None
    holder.is_late = True
    driver.collect()
    driver.collect()
    assert holder.calls == ["take"]
    driver.logs._asked = None
    holder.is_late = False
    holder.troubles = [RayActorError(error_msg="its node went")]
    driver.collect()
    sender.send(Batch(info("again")))
    driver.collect()
    assert driver.shown == {"part": [(logging.INFO, "again")]}


def test_nothing_is_fetched_while_no_part_is_open(driver: Driver) -> None:
    driver.collect()
    assert driver.ray.actors[0].calls == []


def test_closing_shows_the_last_lines_and_ends_the_actor(driver: Driver) -> None:
    log = driver.open("part")
    sender = log.sender()
    assert sender is not None
    log.finish(killed=False)
    sender.send(Batch(info("last"), ended=True))
    driver.open("never finished").sender()  # of a part that is still at work: not waited for
    driver.logs.close()
    assert driver.shown["part"] == [(logging.INFO, "last")]
    assert driver.ray.killed == driver.ray.actors


def test_closing_waits_for_nothing_where_every_part_has_ended(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_logs, "_END_SECONDS", 60.0)
    driver.open("never finished").sender()
    began = time.monotonic()
    driver.logs.close()
    assert time.monotonic() - began < 30


def test_a_thread_fetches_lines_until_it_is_closed_and_survives_what_cannot_be_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    RayInProcess().install(monkeypatch)
    monkeypatch.setattr(part_logs, "beside_driver", lambda: "beside")
    monkeypatch.setattr(part_logs, "_COLLECT_SECONDS", 0.01)
    logs, seen = PartLogs(), threading.Event()

    def show(at: float, level: int, text: str) -> None:
        if text == "broken":
            raise RuntimeError("this line cannot be shown")
        seen.set()

    sender = logs.open(show).sender()
    assert sender is not None
    sender.send(Batch(info("broken")))
    until = time.monotonic() + 60
    while not caplog.messages and time.monotonic() < until:
        time.sleep(0.005)
    sender.send(Batch(info("well")))
    assert seen.wait(60)
    logs.close()
    assert caplog.messages[0] == "lines of workers could not be shown"
    assert not logs._thread.is_alive()


def test_without_logs_nothing_is_relayed_and_the_part_shows_its_own_lines() -> None:
    shown: Shown = []
    log = PartLog(None, lambda at, level, text: shown.append((level, text)))
    assert log.sender() is None
    log.another().tell(logging.INFO, "a line")
    assert shown == [(logging.INFO, "a line")]


# ---- the worker's end ----


def test_a_line_that_is_too_long_is_cut_and_a_traceback_keeps_its_end() -> None:
    here = Here()
    with relayed(Sender(here, "a"), "part"):
        OURS.info("x" * 5000)
        try:
            raise ValueError("y" * 5000)
        except ValueError:
            OURS.exception("trouble")
    lines = here.lines("a")
    assert lines[1] == "x" * 4000
    assert len(lines[2]) == len("trouble\n") + 4000
    assert lines[2].endswith("y" * 100)


def test_of_a_traceback_the_last_forty_lines_stay() -> None:
    text = "\n".join(f"line {number}" for number in range(100)) + "\n\n"
    assert part_logs.last_lines(text).splitlines() == [f"line {number}" for number in range(60, 100)]
    assert part_logs.last_lines(text, 1) == "line 99"


def test_two_thousand_lines_are_relayed_and_then_errors_alone() -> None:
    here = Here()
    with relayed(Sender(here, "a"), "part"):
        for number in range(1, 2003):
            OURS.info("line %d", number)
        OURS.warning("a warning")
        OURS.error("an error")
        batch = here.batch("a")
    batch = here.batch("a")
    assert [line[2] for line in batch.lines[-2:]] == ["line 1999", "an error"]
    assert len(batch.lines) + batch.lost == 2005


def test_a_holder_keeps_the_newest_lines_of_a_part_and_an_end_stays_an_end() -> None:
    holder = LineHolder()
    holder.put("a", Batch(info(*map(str, range(501)))))
    holder.put("a", Batch([], lost=2, ended=True))
    kept = holder.take()["a"]
    assert (kept.lines[0][2], len(kept.lines), kept.lost, kept.ended) == ("1", 500, 3, True)
    assert holder.take() == {}


def test_a_worker_without_handlers_keeps_the_same_lines_in_its_own_log() -> None:
    code = (
        "import logging, os; os.environ['TOY_API_KEY'] = 'sk-123456'\n"
        "from infra.execution.part_logs import Sender, relayed\n"
        "class Holder:\n"
        "    class put:\n"
        "        remote = staticmethod(lambda box, batch: None)\n"
        "with relayed(Sender(Holder, 'a'), 'part'):\n"
        "    logging.getLogger('tasks.toy').info('I was given sk-123456')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "INFO tasks.toy: I was given ***" in done.stderr
