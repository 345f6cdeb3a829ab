"""The row ledger: durable, shared by any number of processes, compacted and forgotten without losing a row."""

import hashlib
import io
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest

from infra.ledger import ledger as ledger_module
from infra.ledger.ledger import Compaction, Forgotten, JudgeStats, Ledger
from infra.ledger.segments import SCHEMA, Segments
from infra.storage import background_writes as module
from infra.storage.store import Store, StoreError
from tests.conftest import ROOT
from tests.infra.frozen import can_be_changed

Rows = list[tuple[str, list[str], str]]


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_rows(count: int, start: int = 0, queries: int = 7) -> Rows:
    """Rows of (entry, [query, passage], payload), over a few queries."""
    numbers = range(start, start + count)
    return [
        (hashed(f"entry {n}"), [hashed(f"query {n % queries}"), hashed(f"passage {n}")], f"says {n}") for n in numbers
    ]


def asked(rows: Rows) -> dict[str, str]:
    return {entry: subjects[0] for entry, subjects, _ in rows}


def answers(rows: Rows) -> dict[str, str]:
    return {entry: payload for entry, _, payload in rows}


def keep(store: Store, rows: Rows, judge: str = "judge", batch: int = 10) -> None:
    with Ledger(store, clock=lambda: 1_000.0) as ledger:
        for start in range(0, len(rows), batch):
            ledger.remember(judge, rows[start : start + batch])


class Watched(Store):
    """A store that notes what it is asked for, and can fail or wait at will."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reads: list[str] = []
        self.lists: list[str] = []
        self.failures: Iterator[Exception] = iter(())
        self.gate = threading.Event()
        self.gate.set()

    def read(self, key: str, *, last: int | None = None) -> bytes | None:
        self.reads.append(key)
        return super().read(key, last=last)

    def list(self, prefix: str) -> list[str]:
        self.lists.append(prefix)
        return super().list(prefix)

    def create(self, key: str, data: bytes) -> bool:
        assert self.gate.wait(100)
        for failure in self.failures:
            raise failure
        return super().create(key, data)


def segments(store: Store, judge: str = "judge") -> list[str]:
    return store.list(f"ledger/{judge}")


def hold(store: Store, entry: str) -> str:
    """Name the segment that holds an entry."""
    frames = {key: pl.read_parquet(io.BytesIO(store.read(key) or b"")) for key in segments(store)}
    return next(key for key, rows in frames.items() if entry in rows["entry"])


def test_what_was_remembered_is_recalled_by_everybody_and_nothing_else_is(store_url: str) -> None:
    store = Store.open(store_url)
    rows = make_rows(60)
    keep(store, rows)
    wanted = asked(rows[:40]) | {hashed("never asked"): hashed("query 1"), hashed("neither"): "ff" * 16}
    assert Ledger(Store(store_url)).recall("judge", wanted) == answers(rows[:40])
    assert Ledger(store).recall("judge", {}) == {}
    assert Ledger(store).recall("another", wanted) == {}


def test_judges_do_not_see_each_others_rows(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    [(entry, subjects, _)] = make_rows(1)
    keep(store, [(entry, subjects, "weak")], "weak")
    keep(store, [(entry, subjects, "strong")], "strong-0.7_B")
    assert Ledger(store).recall("weak", {entry: subjects[0]}) == {entry: "weak"}
    assert Ledger(store).recall("strong-0.7_B", {entry: subjects[0]}) == {entry: "strong"}


def test_only_the_shelves_that_are_asked_for_are_listed_and_read(store_url: str) -> None:
    rows = make_rows(200, queries=40)
    keep(Store.open(store_url), rows)
    Ledger(Store.open(store_url)).compact("judge", min_segments=1)
    store = Watched(store_url)
    wanted = asked([row for row in rows if row[1][0] == hashed("query 3")])
    assert len(Ledger(store).recall("judge", wanted)) == 5
    shelf = f"ledger/judge/{hashed('query 3')[:2]}"
    assert set(store.lists) == {"ledger/judge/new", shelf}
    assert [key.rpartition("/")[0] for key in store.reads] == [shelf]


def test_of_the_new_segments_only_those_whose_range_holds_what_is_asked_are_read(store_url: str) -> None:
    rows = sorted(make_rows(200, queries=40), key=lambda row: row[1][0])  # as parts are: in the order of the hash
    keep(Store.open(store_url), rows, batch=20)
    store = Watched(store_url)
    wanted = asked([row for row in rows if row[1][0] == hashed("query 3")])
    assert len(Ledger(store).recall("judge", wanted)) == 5
    assert 1 <= len(store.reads) <= 2
    assert all(key.startswith("ledger/judge/new/") for key in store.reads)


def test_what_is_handed_over_at_once_is_one_segment_so_that_a_kill_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    keep(store, make_rows(60, queries=20), batch=60)
    assert len(segments(store)) == 1


def test_the_same_rows_make_the_same_segment_whatever_their_order(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    rows = make_rows(20, queries=1)
    keep(store, rows, batch=20)
    once = segments(store)
    keep(store, rows[::-1], batch=20)
    keep(store, [*rows, rows[3]], batch=21)
    assert segments(store) == once
    assert len(once) == 1


def test_of_several_answers_to_one_question_the_smallest_counts_before_and_after_compaction(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    [(entry, subjects, _)] = make_rows(1)
    for payload in ("b", "a", "c"):
        keep(store, [(entry, subjects, payload)])
    keep(store, [(entry, subjects, "e"), (entry, subjects, "d")])
    assert Ledger(store).recall("judge", {entry: subjects[0]}) == {entry: "a"}
    Ledger(store).compact("judge", min_segments=2)
    assert len(segments(store)) == 1
    assert Ledger(store).recall("judge", {entry: subjects[0]}) == {entry: "a"}


def test_many_threads_write_at_once_and_every_row_is_there(store_url: str) -> None:
    store = Store.open(store_url)
    rows = make_rows(160)
    threads = [threading.Thread(target=keep, args=(Store(store_url), rows[n * 20 : (n + 1) * 20])) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows)


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    head = "import faulthandler, signal, sys, time\nfaulthandler.register(signal.SIGUSR1, all_threads=True)\n"
    head += "from infra.ledger.ledger import Ledger\nfrom infra.storage.store import Store\n"
    head += "from tests.infra.ledger.test_ledger import Watched, keep, make_rows\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def ended(processes: Sequence["subprocess.Popen[str]"], seconds: float) -> list[int]:
    """Wait for processes; those that do not end write the stacks of their threads to stderr, and are killed."""
    deadline = time.monotonic() + seconds
    try:
        return [process.wait(max(0.0, deadline - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        hanging = [process for process in processes if process.poll() is None]
        for _ in range(2):  # twice, a second apart: what has moved meanwhile does not hang
            for process in hanging:
                process.send_signal(signal.SIGUSR1)
            time.sleep(1)
        raise
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.slow
def test_three_processes_write_and_compact_the_same_shelves_and_lose_nothing(store_url: str) -> None:
    Store.open(store_url)
    script = (
        "store, start = Store(sys.argv[1]), int(sys.argv[2])\n"
        "for n in range(3):\n"
        "    keep(store, make_rows(8, start + 8 * n, queries=1), batch=2)\n"
        "    Ledger(store).compact('judge', min_segments=3)\n"
    )
    processes = [start(script, store_url, str(100 * number)) for number in range(3)]
    assert ended(processes, 200) == [0, 0, 0]
    rows = [row for number in range(3) for row in make_rows(24, 100 * number, queries=1)]
    assert Ledger(Store(store_url)).recall("judge", asked(rows)) == answers(rows)


@pytest.mark.slow
def test_a_killed_writer_keeps_what_it_flushed_and_leaves_no_half_segment(store_url: str) -> None:
    store = Store.open(store_url)
    script = (
        "ledger = Ledger(Store(sys.argv[1]))\n"
        "ledger.remember('judge', make_rows(30))\n"
        "ledger.flush()\n"
        "print('flushed', flush=True)\n"
        "for n in range(100_000):\n"
        "    ledger.remember('judge', make_rows(5, 1000 + 5 * n))\n"
    )
    process = start(script, store_url)
    assert process.stdout is not None
    assert process.stdout.readline() == "flushed\n"
    time.sleep(0.3)  # in the middle of the rows that are never flushed
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    ledger = Ledger(store)
    assert ledger.recall("judge", asked(make_rows(30))) == answers(make_rows(30))
    for key in segments(store):
        assert hashlib.sha256(store.read(key) or b"").hexdigest() in key
    assert ledger.damaged == set()


def test_a_process_that_never_flushes_ends_at_once(tmp_path: Path) -> None:
    script = (
        "store = Watched(sys.argv[1])\n"
        "store.gate.clear()\n"
        "Ledger(store).remember('judge', make_rows(30))\n"
        "print('ending', flush=True)\n"
    )
    process = start(script, str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "ending\n"
    assert process.wait(60) == 0  # the write would take longer
    process.stdout.close()


def test_compaction_sorts_new_segments_into_shelves_and_a_second_one_finds_nothing_to_do(store_url: str) -> None:
    store = Store.open(store_url)
    many, few = make_rows(9, queries=1), [row for row in make_rows(60) if row[1][0] == hashed("query 2")][:3]
    assert many[0][1][0][:2] != few[0][1][0][:2]
    keep(store, many + few, batch=1)
    assert Ledger(store).compact("judge", min_segments=13) == Compaction(0, 0)
    assert Ledger(store).compact("judge", min_segments=8) == Compaction(12, 2)
    assert len(segments(store)) == 2
    assert Ledger(store).recall("judge", asked(many + few)) == answers(many + few)
    assert Ledger(store).compact("judge", min_segments=1) == Compaction(0, 0)
    assert Ledger(store).recall("judge", asked(many + few)) == answers(many + few)


def test_compacting_segments_of_which_one_holds_all_keeps_that_one(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    rows = make_rows(12, queries=1)
    keep(store, rows, batch=12)
    assert Ledger(store).compact("judge", min_segments=1) == Compaction(1, 1)
    whole = segments(store)
    keep(store, rows, batch=4)
    assert Ledger(store).compact("judge", min_segments=2) == Compaction(4, 1)
    assert segments(store) == whole


def test_a_killed_compactor_leaves_nothing_lost_and_the_next_one_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path))
    rows = make_rows(12, queries=1)
    keep(store, rows, batch=3)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", lambda self, key: (_ for _ in ()).throw(StoreError("killed here")))
        with pytest.raises(StoreError, match="killed here"):
            Ledger(store).compact("judge", min_segments=2)
    assert len(segments(store)) == 5
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows)
    assert Ledger(store).compact("judge", min_segments=2) == Compaction(5, 1)
    assert len(segments(store)) == 1
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows)


def test_writers_readers_and_compactors_at_once_lose_nothing(store_url: str) -> None:
    store = Store.open(store_url)
    rows = make_rows(120, queries=2)
    durable: list[tuple[str, list[str], str]] = make_rows(20, 5000, queries=2)
    keep(store, durable)
    writing, troubles = threading.Event(), []

    def guard(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except Exception as error:
            troubles.append(error)

    def compact() -> None:
        while not writing.is_set():
            Ledger(Store(store_url)).compact("judge", min_segments=2)

    def read() -> None:
        while not writing.is_set():
            assert Ledger(Store(store_url)).recall("judge", asked(durable)) == answers(durable)

    others = [threading.Thread(target=guard, args=(work,)) for work in (compact, compact, read)]
    writers = [
        threading.Thread(target=guard, args=(lambda n=n: keep(Store(store_url), rows[n * 40 : n * 40 + 40], batch=2),))
        for n in range(3)
    ]
    for thread in (*others, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    writing.set()
    for thread in others:
        thread.join()
    assert troubles == []
    assert Ledger(store).recall("judge", asked(rows + durable)) == answers(rows + durable)


def test_a_reader_whose_segments_vanish_under_its_hands_lists_again(tmp_path: Path) -> None:
    rows = make_rows(12, queries=1)
    keep(Store.open(str(tmp_path)), rows, batch=3)

    class Overtaken(Watched):
        def list(self, prefix: str) -> list[str]:
            found = super().list(prefix)
            if len(self.lists) == 1:
                Ledger(Store(self.url)).compact("judge", min_segments=2)
            return found

    store = Overtaken(str(tmp_path))
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows)
    assert len(store.lists) == 4  # the new ones and one shelf, twice


def test_a_damaged_segment_costs_its_own_rows_only_is_told_and_repaired_by_the_next_writer(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open(store_url)
    rows = make_rows(12, queries=1)
    keep(store, rows, batch=4)
    held = hold(store, rows[0][0])
    store.repair(held, (store.read(held) or b"")[:100])
    ledger = Ledger(store)
    with caplog.at_level(logging.WARNING):
        assert ledger.recall("judge", asked(rows)) == answers(rows[4:])
    assert ledger.damaged == {held}
    assert len([record for record in caplog.records if held in record.getMessage()]) == 1
    assert ledger.compact("judge", min_segments=2) == Compaction(2, 1)
    keep(store, rows[:4])
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows)


def test_a_text_is_forgotten_with_every_row_that_names_it_whoever_judged(store_url: str) -> None:
    store = Store.open(store_url)
    rows = make_rows(40, queries=4)
    keep(store, rows, "weak")
    keep(store, rows, "strong", batch=1)
    target = {rows[5][1][1], hashed("query 2")}
    gone = [row for row in rows if target & set(row[1])]
    assert len(gone) == 11
    found = Ledger(store).forget(target, dry_run=True)
    assert found.rows == 22
    assert Ledger(store).recall("weak", asked(rows)) == answers(rows)
    assert Ledger(store).forget(target) == found
    assert Ledger(store).forget(target) == Forgotten()
    for judge in ("weak", "strong"):
        left = [row for row in rows if row not in gone]
        assert Ledger(store).recall(judge, asked(rows)) == answers(left)
    assert Ledger(store).stats()["strong"].segments == 29


def test_forgetting_deletes_damaged_segments_since_nobody_knows_what_they_hold(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    keep(store, make_rows(8, queries=1), batch=4)
    held = segments(store)[0]
    store.repair(held, b"half a segm")
    assert Ledger(store).forget({hashed("nothing")}) == Forgotten(0, 0, 1)
    assert held not in segments(store)
    assert len(segments(store)) == 1


def test_a_store_that_hiccups_is_tried_again_and_one_that_fails_for_good_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(str(tmp_path))
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0))
    store = Watched(str(tmp_path))
    rows = make_rows(6, queries=1)
    store.failures = iter([StoreError("503"), StoreError("timeout")])
    ledger = Ledger(store)
    ledger.remember("judge", rows[:3])
    ledger.flush()
    store.failures = iter([StoreError("denied")] * 3)
    ledger.remember("judge", rows[3:])
    with pytest.raises(StoreError, match=r"1 segments could not be written.*denied"):
        ledger.flush()
    ledger.flush()
    assert ledger.recall("judge", asked(rows)) == answers(rows[:3])


def test_leaving_the_context_waits_and_does_not_hide_the_error_that_came_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(str(tmp_path))
    monkeypatch.setattr(module, "_PAUSES", ())
    store = Watched(str(tmp_path))
    rows = make_rows(6, queries=1)
    with pytest.raises(KeyError, match="mine"), Ledger(store) as ledger:
        ledger.remember("judge", rows[:3])
        raise KeyError("mine")
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows[:3])
    store.failures = iter([StoreError("denied")] * 2)
    with pytest.raises(KeyError, match="mine"), Ledger(store) as ledger:
        ledger.remember("judge", rows[3:5])
        raise KeyError("mine")
    with pytest.raises(StoreError, match="denied"), Ledger(store) as ledger:
        ledger.remember("judge", rows[5:])


def test_remembering_returns_at_once_until_thousands_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(str(tmp_path))
    monkeypatch.setattr(module, "_QUEUE", 20)
    store = Watched(str(tmp_path))
    store.gate.clear()
    rows = make_rows(60, queries=1)
    with Ledger(store) as ledger:
        started = time.monotonic()
        for row in rows[:20]:
            ledger.remember("judge", [row])
        assert time.monotonic() - started < 15  # a write waits for 20 s
        late = threading.Thread(target=lambda: [ledger.remember("judge", [row]) for row in rows[20:]])
        late.start()
        late.join(0.2)
        assert late.is_alive()  # held back: the queue is full
        store.gate.set()
        late.join()
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows)


@pytest.mark.parametrize("judge", ["", ".", "..", "a/b", "../up", "a b", "ü", ".hidden", "x" * 129])
def test_a_judge_that_is_no_folders_name_is_refused(tmp_path: Path, judge: str) -> None:
    ledger = Ledger(Store.open(str(tmp_path)))
    for use in (
        lambda: ledger.remember(judge, make_rows(1)),
        lambda: ledger.recall(judge, asked(make_rows(1))),
        lambda: ledger.compact(judge),
    ):
        with pytest.raises(ValueError, match="is no name of a folder"):
            use()


def test_a_row_without_a_hash_to_file_it_under_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(Store.open(str(tmp_path)))
    with pytest.raises(ValueError, match="names no subject"):
        ledger.remember("judge", [("entry", [], "payload")])
    for subject in ("", "a", "Where is it?", "../../etc", "AB" * 16):
        with pytest.raises(ValueError, match="is no hash"):
            ledger.remember("judge", [("entry", [subject], "payload")])
        with pytest.raises(ValueError, match="is no hash"):
            ledger.recall("judge", {"entry": subject})


def test_the_ledger_counts_segments_rows_and_bytes_by_judge(store_url: str) -> None:
    store = Store.open(store_url)
    assert Ledger(store).stats() == {}
    keep(store, make_rows(30, queries=1), "weak", batch=10)
    keep(store, make_rows(5, queries=1), "strong")
    size = sum(len(store.read(key) or b"") for key in segments(store, "weak"))
    assert Ledger(store).stats()["weak"] == JudgeStats(3, 30, size)
    assert Ledger(store).stats()["strong"].rows == 5
    assert Ledger(store).judges() == ["strong", "weak"]


DIGEST = "0" * 64


def on_one_shelf(count: int) -> Rows:
    """Rows of different questions whose first subjects begin alike."""
    return [(hashed(f"entry {n}"), [f"ab{n:030x}"], f"says {n}") for n in range(count)]


@pytest.mark.parametrize(
    ("batches", "unknown", "listings"),
    [
        (0, 1, 1),  # nothing there
        (1, 0, 1),
        (1, 1, 1),  # one segment: no compactor can have merged it meanwhile with one that was not listed
        (2, 0, 1),  # all found
        (2, 1, 2),  # some missing, so a compactor may be at work
    ],
)
def test_a_shelf_is_listed_again_only_where_a_compactor_may_have_hidden_rows(
    tmp_path: Path, batches: int, unknown: int, listings: int
) -> None:
    rows = on_one_shelf(2 * batches)
    keep(Store.open(str(tmp_path)), rows, batch=2)
    store = Watched(str(tmp_path))
    wanted = asked(rows) | {hashed(f"unknown {n}"): "ab" * 16 for n in range(unknown)}
    assert Ledger(store).recall("judge", wanted) == answers(rows)
    assert store.lists == ["ledger/judge/new", "ledger/judge/ab"] * listings
    assert len(store.reads) == batches


def test_new_segments_are_sorted_from_eight_on_and_a_shelf_is_merged_from_eight_on(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    rows = on_one_shelf(16)
    keep(store, rows[:7], batch=1)
    assert Ledger(store).compact("judge") == Compaction(0, 0)
    keep(store, rows[7:8], batch=1)
    assert Ledger(store).compact("judge") == Compaction(8, 1)
    for row in rows[8:14]:
        keep_in_shelf(store, row)
    assert Ledger(store).compact("judge") == Compaction(0, 0)
    keep_in_shelf(store, rows[14])
    assert Ledger(store).compact("judge") == Compaction(8, 1)
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows[:15])


def keep_in_shelf(store: Store, row: tuple[str, list[str], str]) -> None:
    """Leave a segment in its shelf, as a compactor that met no other one does."""
    frame = pl.DataFrame([(*row, "", 0, 0)], schema=SCHEMA, orient="row")
    Segments(store).write(f"ledger/judge/{row[1][0][:2]}", frame)


def test_two_segments_of_a_shelf_are_merged_and_one_is_left_alone(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    rows = on_one_shelf(2)
    keep_in_shelf(store, rows[0])
    assert Ledger(store).compact("judge", min_segments=0) == Compaction(0, 0)
    keep_in_shelf(store, rows[1])
    assert Ledger(store).compact("judge", min_segments=2) == Compaction(2, 1)
    assert len(segments(store)) == 1


def test_a_shelf_with_one_whole_segment_beside_a_damaged_one_stays_as_it_is(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    rows = on_one_shelf(2)
    for row in rows:
        keep_in_shelf(store, row)
    held = hold(store, rows[0][0])
    store.repair(held, b"cut")
    before = segments(store)
    assert Ledger(store).compact("judge", min_segments=2) == Compaction(0, 0)
    assert segments(store) == before


def test_damaged_new_segments_alone_are_not_compacted(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    keep(store, on_one_shelf(2), batch=1)
    before = segments(store)
    for key in before:
        store.repair(key, b"cut")
    assert Ledger(store).compact("judge", min_segments=2) == Compaction(0, 0)
    assert segments(store) == before


def test_more_new_segments_than_fit_in_memory_are_sorted_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_CHUNK", 2)
    store = Store.open(str(tmp_path))
    rows = on_one_shelf(5)
    keep(store, rows, batch=1)
    # 2 new become 1; 2 new and that one become 1; 1 new and that one become 1
    assert Ledger(store).compact("judge", min_segments=1) == Compaction(2 + 3 + 2, 3)
    assert len(segments(store)) == 1
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows)


def test_forgetting_every_row_of_a_segment_leaves_no_segment(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    rows = on_one_shelf(2)
    keep(store, rows)
    assert Ledger(store).forget({rows[0][1][0]}) == Forgotten(1, 1)
    assert len(segments(store)) == 1
    assert Ledger(store).forget({rows[1][1][0]}) == Forgotten(1, 1)
    assert segments(store) == []


def test_a_dry_run_of_forgetting_counts_damaged_segments_and_deletes_none(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    rows = on_one_shelf(2)
    keep(store, rows, batch=1)
    store.repair(hold(store, rows[0][0]), b"cut")
    before = segments(store)
    assert Ledger(store).forget({rows[1][1][0]}, dry_run=True) == Forgotten(1, 1, 1)
    assert segments(store) == before


def test_rows_are_counted_from_the_footer_or_from_the_whole_and_a_damaged_segment_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path))
    keep(store, on_one_shelf(3))
    monkeypatch.setattr(ledger_module, "_FOOTER", 16)  # shorter than the footer
    assert Ledger(store).stats()["judge"].rows == 3
    store.repair(segments(store)[0], b"cut")
    assert Ledger(store).stats() == {"judge": JudgeStats(1, 0, 3)}


def test_what_is_no_segment_is_passed_over(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    keep(store, on_one_shelf(1))
    store.create("ledger/judge/notes.txt", b"x")
    store.create("ledger/other/new/readme.parquet", b"x")
    assert Ledger(store).judges() == ["judge"]
    assert Ledger(store).forget({"ff" * 16}) == Forgotten()
    assert store.exists("ledger/judge/notes.txt")


def test_counts_of_compactions_and_of_what_was_forgotten_add_up() -> None:
    assert Compaction(1, 2) + Compaction(10, 20) == Compaction(11, 22)
    assert Forgotten(1, 2, 3) + Forgotten(10, 20, 30) == Forgotten(11, 22, 33)


def test_figures_of_the_ledger_cannot_be_changed() -> None:
    assert [value for value in (JudgeStats(1, 2, 3), Compaction(1, 2), Forgotten()) if can_be_changed(value)] == []


OLDER, NEWER = "0123456789abcdef", "fedcba9876543210"  # digests of origins


def keep_as(store: Store, rows: Rows, origin: str) -> None:
    with Ledger(store, origin) as ledger:
        ledger.remember("judge", rows)


def keep_without_origins(store: Store, rows: Rows) -> None:
    """Leave a segment as it was written before origins were recorded: three columns, named by its bytes."""
    buffer = io.BytesIO()
    schema = {"entry": pl.String, "subjects": pl.List(pl.String), "payload": pl.String}
    pl.DataFrame(rows, schema=schema, orient="row").sort("entry").write_parquet(buffer, compression="zstd")
    shelves = sorted(subjects[0][:2] for _, subjects, _ in rows)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    store.create(f"ledger/judge/new/{shelves[0]}-{shelves[-1]}-{digest}.parquet", buffer.getvalue())


def test_rows_keep_their_origins_and_a_reader_counts_what_it_recalls_by_them(store_url: str) -> None:
    store, rows = Store.open(store_url), make_rows(9)
    keep_as(store, rows[:4], OLDER)
    keep_as(store, rows[4:6], NEWER)
    keep_without_origins(store, rows[6:])
    for _ in range(2):  # before and after they are sorted into shelves
        ledger = Ledger(store)
        assert ledger.recall("judge", asked(rows)) == answers(rows)
        assert ledger.recalled == {OLDER: 4, NEWER: 2, "": 3}
        ledger.recall("judge", asked(rows[:1]))
        assert ledger.recalled == {OLDER: 5, NEWER: 2, "": 3}
        assert ledger.damaged == set()
        ledger.compact("judge", min_segments=1)
    assert not any("/new/" in key for key in segments(store))


def test_a_ledger_from_before_origins_opens_and_is_compacted_counted_and_forgotten(tmp_path: Path) -> None:
    store, rows = Store.open(str(tmp_path)), make_rows(8, queries=1)
    keep_without_origins(store, rows[:4])
    keep_without_origins(store, rows[4:])
    assert Ledger(store).stats()["judge"].rows == 8
    assert Ledger(store).compact("judge", min_segments=2) == Compaction(2, 1)
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows)
    assert Ledger(store).forget([rows[3][1][1]]) == Forgotten(1, 1)
    assert Ledger(store).recall("judge", asked(rows)) == answers(rows[:3] + rows[4:])


def test_of_two_answers_to_one_question_the_origin_of_the_one_that_counts_is_told(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    ((entry, subjects, _),) = make_rows(1)
    keep_as(store, [(entry, subjects, "b")], OLDER)
    keep_as(store, [(entry, subjects, "a")], NEWER)
    keep_as(store, [(entry, subjects, "a")], OLDER)
    for _ in range(2):
        ledger = Ledger(store)
        assert ledger.recall("judge", {entry: subjects[0]}) == {entry: "a"}
        assert ledger.recalled == {OLDER: 1}
        ledger.compact("judge", min_segments=1)


def test_an_origin_costs_some_bytes_a_segment_and_two_of_them_less_than_a_byte_a_row(tmp_path: Path) -> None:
    rows = make_rows(20_000)  # on seven shelves
    sizes = []
    for name, origins in (("one", [OLDER]), ("none", [""]), ("two", [OLDER, NEWER])):
        store = Store.open(str(tmp_path / name))
        for number, origin in enumerate(origins):
            keep_as(store, rows[number :: len(origins)], origin)
        Ledger(store).compact("judge", min_segments=1)
        sizes.append(Ledger(store).stats()["judge"].bytes)
    assert sizes[0] - sizes[1] < 7 * 200
    assert sizes[2] - sizes[1] < len(rows)
