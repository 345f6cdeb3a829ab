"""The end of a process on SIGTERM, without Ray; with it, in test_joined_nodes.py."""

import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infra.cluster import shutdown
from infra.cluster.shutdown import EXIT_CODE
from tests.conftest import ROOT

_WORKER = """
import sys, time
from pathlib import Path
from infra.cluster import shutdown
from infra.storage.background_writes import Background
shutdown._LOOK_SECONDS = 0.1
if sys.argv[2] == "stuck":
    shutdown.end.__defaults__ = (1.0,)
folder, writes = Path(sys.argv[1]), Background()
shutdown.install((lambda: (folder / "draining").exists()) if sys.argv[2] == "drained" else None)
def write(number):
    time.sleep(600 if sys.argv[2] == "stuck" else 0.1)
    (folder / str(number)).touch()
for number in range(40):
    writes.submit(lambda number=number: write(number))
print("working", flush=True)
time.sleep(600)
"""


def start(folder: Path, how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(folder), how], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


def test_a_worker_that_was_told_to_end_ends_as_a_shell_names_it() -> None:
    assert EXIT_CODE == 128 + signal.SIGTERM


def test_queued_writes_are_made_before_the_process_ends_and_a_second_signal_does_not_hurry_it(tmp_path: Path) -> None:
    process = start(tmp_path, "told")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == EXIT_CODE
    assert len(list(tmp_path.iterdir())) == 40


def test_writes_that_hang_hold_the_end_up_for_a_bounded_time(tmp_path: Path) -> None:
    process = start(tmp_path, "stuck")
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == EXIT_CODE
    assert 0.9 < time.monotonic() - started < 15  # without a bound of its own it is 20 s


def test_a_node_that_drains_ends_the_process_the_same_way(tmp_path: Path) -> None:
    process = start(tmp_path, "drained")
    (tmp_path / "draining").touch()
    assert process.wait(120) == EXIT_CODE
    assert len(list(tmp_path.iterdir())) == 41


# ---- in this process, which does not end ----


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the exit codes with which this process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr(shutdown, "_ending", threading.Event())
    monkeypatch.setattr(shutdown.os, "_exit", codes.append)
    monkeypatch.setattr(shutdown.logging, "shutdown", lambda: None)
    return codes


def test_the_end_is_logged_with_what_was_not_written_and_comes_once(
    ends: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(shutdown, "drain_all", lambda seconds: asked.append(seconds) or 3)
    with caplog.at_level(logging.WARNING, "infra.cluster.shutdown"):
        shutdown.end("SIGTERM")
        shutdown.end("SIGTERM", 1.0)
    assert (ends, asked) == ([EXIT_CODE], [20.0])
    assert "SIGTERM: this process ends; 3 of the ledger's writes were not made" in caplog.text


def test_a_node_is_watched_until_it_drains_though_the_head_does_not_answer(
    ends: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown, "_LOOK_SECONDS", 0.0)
    answers = iter([ConnectionError("no head"), False, True])

    def is_draining() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    shutdown._watch(is_draining)
    assert ends == [EXIT_CODE]
    assert list(answers) == []


def test_a_signal_ends_the_process_and_outside_the_main_thread_that_is_refused(
    ends: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        shutdown.install()
        signal.raise_signal(signal.SIGTERM)
        assert ends == [EXIT_CODE]
        with caplog.at_level(logging.WARNING, "infra.cluster.shutdown"):
            thread = threading.Thread(target=shutdown.install)
            thread.start()
            thread.join()
        assert "this is not the main thread" in caplog.text
    finally:
        signal.signal(signal.SIGTERM, before)
