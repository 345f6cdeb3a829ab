"""Run a command of Reneg, and measure the seconds, the processor seconds and the memory of all that it starts.

A process belongs to a command if its environment holds the command's mark, so other work on the machine is not counted.
It makes the seconds longer, and the processor seconds say more then.
"""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
GIB = 2**30
_SECONDS = 0.5  # between two looks at the processes
_MARK = "RENEG_BENCHMARK_MARK"
_SHOWN = 3_000  # characters of a failed command's output


@dataclass
class Watched:
    """What the processes of a command took: CPU seconds by process, and the largest resident set by kind, in bytes."""

    mark: str
    cpu: dict[tuple[int, float], float] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _kinds: dict[tuple[int, float], str | None] = field(default_factory=dict)

    def look(self) -> None:
        """Take one sample of all processes that carry the mark."""
        for process in psutil.process_iter():
            try:
                self._take(process)
            except (psutil.Error, OSError):
                continue

    def cpu_by_kind(self) -> dict[str, float]:
        """Return the CPU seconds of each kind of process."""
        spent: dict[str, float] = defaultdict(float)
        for key, seconds in self.cpu.items():
            spent[self._kinds[key] or ""] += seconds
        return {kind: round(seconds, 1) for kind, seconds in sorted(spent.items())}

    def _take(self, process: psutil.Process) -> None:
        key = (process.pid, process.create_time())
        if key not in self._kinds:
            marked = process.environ().get(_MARK) == self.mark
            self._kinds[key] = kind_of(process.cmdline()) if marked else None
        kind = self._kinds[key]
        if kind == "starting":  # a worker gets its title after it has begun
            self._kinds[key] = kind = kind_of(process.cmdline())
        if kind is None:
            return
        times = process.cpu_times()
        self.cpu[key] = times.user + times.system
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                self.peak[kind] = max(self.peak[kind], int(line.split()[1]) * 1024)


def kind_of(command: Sequence[str]) -> str:
    """Tell what a process is by its command line.

    >>> kind_of(["ray::compute"]), kind_of(["python", "-m", "flows.cli", "curate"]), kind_of(["raylet"])
    ('worker', 'driver', 'server')
    """
    said = " ".join(command)
    if said.startswith("ray::"):
        return "worker"
    if "default_worker.py" in said:
        return "starting"
    if "flows.cli" in said or "flows.runs" in said:
        return "driver"
    return "server"


@dataclass(frozen=True)
class Run:
    """What one command took. cpu: seconds by kind of process. peak: the largest resident set by kind, in GiB."""

    code: int
    seconds: float
    cpu: dict[str, float]
    peak: dict[str, float]
    output: str


def reneg(folder: Path, *arguments: str) -> Run:
    """Run a command of Reneg with a home, a store and a cache below a folder.

    Raises:
        RuntimeError: it failed; the message has the end of what it printed.
    """
    run = try_reneg(folder, *arguments)
    if run.code:
        raise RuntimeError(f"reneg {' '.join(arguments)} ended with {run.code}:\n{run.output[-_SHOWN:]}")
    return run


def try_reneg(folder: Path, *arguments: str) -> Run:
    """Run a command of Reneg, which may fail."""
    mark = uuid.uuid4().hex
    watched, over = Watched(mark), threading.Event()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RENEG_")}
    environment |= {
        _MARK: mark, "RENEG_HOME": str(folder / "home"), "RENEG_STORE": str(folder / "store"),
        "RENEG_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT), "CI": "true",
    }  # fmt: skip
    log = folder / f"{arguments[0]}.log"
    started = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments], cwd=folder, env=environment, stdout=out, stderr=out
        )
        looking = threading.Thread(target=_look_until, args=(watched, over))
        looking.start()
        code = process.wait()
    seconds = time.monotonic() - started
    over.set()
    looking.join()
    return Run(
        code,
        round(seconds, 1),
        watched.cpu_by_kind(),
        {kind: round(size / GIB, 3) for kind, size in watched.peak.items()},
        log.read_text(errors="replace"),
    )


def _look_until(watched: Watched, over: threading.Event) -> None:
    while not over.wait(_SECONDS):
        watched.look()
