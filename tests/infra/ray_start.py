"""`ray start` as our containers run it, on loopback addresses of this machine: the head at 127.0.0.2, nodes at others.

Ray writes its own address for 127.0.0.1, so a cluster of `ray start` cannot be there.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.conftest import ROOT, free_port

HEAD = "127.0.0.2"
BIN = Path(sys.executable).parent
RAY_EXTRAS = ROOT / ".venv-s3" / "ray"  # what the image installs from cluster.txt


def environment(folder: Path, **further: str) -> dict[str, str]:
    """Give the variables of a container: the commands of the image, a token, and Ray's files in a short folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_", "AWS_"))}
    return kept | {
        "PATH": f"{BIN}{os.pathsep}{ROOT / 'docker'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{RAY_EXTRAS}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
        **further,
    }


def on_loopback(command: Sequence[str], address: str, ports: Mapping[int, int]) -> list[str]:
    """Put an address of loopback, and free ports, into a command line of `ray start` from a manifest."""
    changed = [re.sub(r"(?<=[=:])(\d{4,5})$", lambda p: str(ports.get(int(p[1]), p[1])), word) for word in command]
    changed = [word.replace("ray-head:", f"{HEAD}:").replace("=127.0.0.1:", f"={HEAD}:") for word in changed]
    return [*changed, f"--node-ip-address={address}"] if changed[:2] == ["ray", "start"] else changed


def free_ports() -> dict[int, int]:
    """Draw a port for each that our manifests name; not among those that Ray gives to its workers."""
    drawn: dict[int, int] = {}
    for port in (6379, 8080, 8265):
        while (free := free_port()) < 20000 or free in drawn.values():
            pass
        drawn[port] = free
    return drawn


@contextlib.contextmanager
def running(command: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a session of its own; at the end it and everything of its Ray is killed."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=dict(variables), stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        kill_all(variables["RAY_TMPDIR"])
        process.wait()


def kill_all(folder: str) -> None:
    """Kill every process whose Ray has this folder, at once: as if its machine had lost power."""
    wanted = f"RAY_TMPDIR={folder}".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)


def wait_until(command: Sequence[str], variables: Mapping[str, str], seconds: float = 90.0) -> None:
    """Repeat a check until it succeeds."""
    deadline = time.monotonic() + seconds
    while (done := check(command, variables)).returncode != 0:
        assert time.monotonic() < deadline, f"{command}: {done.stdout}{done.stderr}"
        time.sleep(0.5)


def check(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a check once; one that hangs is one that fails."""
    try:
        return subprocess.run(command, env=dict(variables), capture_output=True, text=True, timeout=15, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "no answer in time")
