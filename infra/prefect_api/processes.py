"""Starts a process that outlives its parent, and finds it again by its record after the parent was killed."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from infra.private_files import append_private, identity, write_private

_NAMED = ("RENEG_", "PREFECT_", "RAY_", "AWS_")
_GRACE_SECONDS = 25.0


class KeptProcess:
    """One process in a session of its own, recorded in a file by process id and by what it was started with."""

    def __init__(self, record: Path, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        """Wrap a process that runs; use `keep`."""
        self._record, self.pid, self._child = record, pid, child

    @classmethod
    def keep(
        cls,
        record: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        folder: Path | None = None,
    ) -> "KeptProcess":
        """Take over the recorded process if it lives and was started with the same; else stop it and start another.

        The same: the command, and those variables that name servers and folders (RENEG, PREFECT, RAY and AWS ones).

        Args:
            record: a file of this machine.
            command: with its arguments.
            environment: all of its variables.
            log: where its output is appended; only its user can read it.
            folder: where it starts, if not in the current folder.
        """
        wanted = _digest(command, environment)
        found = cls._find(record)
        if found is not None and found[1] == wanted:
            return found[0]
        if found is not None:
            found[0].stop(_GRACE_SECONDS)
        log.parent.mkdir(parents=True, exist_ok=True)
        with append_private(log) as out:
            child = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(environment), cwd=folder,
                start_new_session=True,
            )  # fmt: skip
        known = {"pid": child.pid, "started": started_at(child.pid), "with": wanted, "folder": identity(record.parent)}
        write_private(record, json.dumps(known))
        return cls(record, child.pid, child)

    @classmethod
    def _find(cls, record: Path) -> "tuple[KeptProcess, str] | None":
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads(record.read_text())
            here = identity(record.parent)
            if known.get("folder", here) != here:
                return None  # a copy of another home: that process is not ours to use or stop
            if is_alive(known["pid"]) and started_at(known["pid"]) == known["started"]:
                return cls(record, known["pid"]), known["with"]
        return None

    @property
    def adopted(self) -> bool:
        """Whether somebody else started it."""
        return self._child is None

    def poll(self) -> int | None:
        """Return None while it lives, else how it ended; -1 where that is not known."""
        if self._child is not None:
            return self._child.poll()
        return None if is_alive(self.pid) else -1

    def stop(self, grace: float) -> None:
        """End it and what it started in its session: asked first, killed after `grace` seconds."""
        if self.poll() is None:
            _signal(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + grace
            while self.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            _signal(self.pid, signal.SIGKILL)
        if self._child is not None:
            self._child.wait()
        self._record.unlink(missing_ok=True)


def started_at(pid: int) -> str:
    """Tell when a process began, in clock ticks since boot: process ids are used again. Empty where it is gone."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[-1].split()[19]
    return ""


def _signal(group: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, how)


def _digest(command: Sequence[str], environment: Mapping[str, str]) -> str:
    named = sorted((name, value) for name, value in environment.items() if name.startswith(_NAMED))
    return hashlib.sha256(json.dumps([list(command), named]).encode()).hexdigest()


def ignore_broken_pipes() -> None:
    """Let this process go on without output when nobody reads it any more; by default rich ends the process then.

    Prefect's log goes through rich to a pipe that the worker reads. A worker that died would take its flow runs along
    with their next line of log. What goes to Prefect's API is not touched.
    """
    Console.on_broken_pipe = _fall_silent  # type: ignore[method-assign, assignment]


def _fall_silent(console: Console) -> None:
    console.quiet = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine lives (a zombie does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[-1].split()[0] != "Z"
    return True
