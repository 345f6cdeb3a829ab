"""Real processes: one that lost its keeper is found again, and nothing is taken for it that is not it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.prefect_api.processes import KeptProcess, is_alive, started_at

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def keep(folder: Path, command: list[str] = SLEEP, **variables: str) -> KeptProcess:
    return KeptProcess.keep(folder / "kept.json", command, {**os.environ, **variables}, folder / "log")


def test_what_a_killed_keeper_left_is_taken_over_and_can_be_stopped(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tests.infra.prefect_api.test_processes import keep; "
    code += f"print(keep(Path({str(tmp_path)!r})).pid)"
    left = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    kept = keep(tmp_path)
    assert (kept.pid, kept.adopted, kept.poll()) == (left, True, None)
    kept.stop(5)
    assert not is_alive(left)
    assert kept.poll() == -1
    assert not (tmp_path / "kept.json").exists()


def test_one_that_was_started_with_other_servers_or_folders_is_replaced(tmp_path: Path) -> None:
    first = keep(tmp_path, RENEG_STORE="a", UNRELATED="1")
    assert keep(tmp_path, RENEG_STORE="a", UNRELATED="2").pid == first.pid
    second = keep(tmp_path, RENEG_STORE="b")
    assert second.pid != first.pid
    assert first.poll() is not None
    second.stop(5)


def test_a_copied_home_leaves_the_process_of_the_first_alone(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = keep(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    second = keep(tmp_path / "copy", RENEG_STORE="b")
    assert second.pid != first.pid
    assert (first.poll(), second.adopted) == (None, False)
    (tmp_path / "first").rename(tmp_path / "moved")
    assert keep(tmp_path / "moved").pid == first.pid
    second.stop(5)
    first.stop(5)


def test_a_process_id_that_was_used_again_is_not_taken_over(tmp_path: Path) -> None:
    first = keep(tmp_path)
    record = tmp_path / "kept.json"
    record.write_text(record.read_text().replace(f'"{started_at(first.pid)}"', '"1"'))
    second = keep(tmp_path)
    assert second.pid != first.pid
    second.stop(5)
    os.killpg(first.pid, signal.SIGKILL)


def test_what_does_not_obey_is_killed_with_what_it_started(tmp_path: Path) -> None:
    deaf = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    deaf += "print(subprocess.Popen(['sleep', '600']).pid, flush=True); signal.pause()"
    kept = keep(tmp_path, [sys.executable, "-c", deaf])
    deadline = time.monotonic() + 60
    while not (text := (tmp_path / "log").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept.stop(0.3)
    assert not is_alive(kept.pid)
    while is_alive(int(text)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("{")
    kept = keep(tmp_path)
    assert not kept.adopted
    kept.stop(5)


_CODE = """
import sys
from pathlib import Path
from rich.console import Console
import pytest

from infra.prefect_api.processes import ignore_broken_pipes
if sys.argv[2] == "outlive":
    ignore_broken_pipes()
console = Console(stderr=True)
sys.stdin.readline()
for _ in range(3):
    console.print("a line of log")
print("and one without rich", flush=True)
Path(sys.argv[1]).write_text("done")
"""


@pytest.mark.parametrize(("how", "finished"), [("outlive", True), ("as it is", False)])
def test_a_process_finishes_its_work_when_the_reader_of_its_output_died(
    tmp_path: Path, how: str, finished: bool
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, str(tmp_path / "done"), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert (process.wait(60) == 0) == finished
    assert (tmp_path / "done").exists() == finished
