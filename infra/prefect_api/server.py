"""The embedded Prefect server: in the background, on loopback, shared by the runs of one home, stopped by the last.

Prefect's ephemeral mode loses task history, so a real server is started as a process of its own. A run that is killed
leaves the server behind; the next run finds it, uses it, and stops it. `reneg ui` keeps it up.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

from infra.prefect_api.processes import is_alive
from infra.settings import QUIET

_START_SECONDS = 120.0
_SLOW_SECONDS = 30.0
_PORT_SECONDS = 15.0
_FIRST_PORT, _CLIENT_PORTS = 10240, 32768
_UI = "ui"


class ServerError(Exception):
    """The embedded Prefect server did not start; the message says where its log is."""


def is_healthy(api_url: str, timeout: float = 2.0) -> bool:
    """Ask a Prefect server whether it answers."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=timeout) as reply:
            return bool(reply.status == 200)  # noqa: PLR2004 - HTTP OK
    except (urllib.error.URLError, OSError):
        return False


class PrefectServer:
    """The server of one home folder; several processes may use it at once."""

    def __init__(self, home: Path) -> None:
        """Address the server of a home; nothing is started."""
        self._folder = home / "prefect"
        self._record = self._folder / "server.json"
        self._users = self._folder / "users"
        self.log = self._folder / "server.log"

    def running(self) -> str | None:
        """Return the API address of a living server of this home, or None."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            record = json.loads(self._record.read_text())
            if is_alive(int(record["pid"])) and is_healthy(record["api_url"]):
                return str(record["api_url"])
        return None

    def start(self, *, keep: bool = False) -> str:
        """Start the server, or join the one that runs; returns its API address.

        Args:
            keep: leave it up after this process ends (`reneg ui`).

        Raises:
            ServerError: it was not healthy in time.
        """
        self._users.mkdir(parents=True, exist_ok=True)
        with self._lock():
            (self._users / (_UI if keep else str(os.getpid()))).touch()
            return self.running() or self._await_slow() or self._spawn()

    def lives(self) -> bool:
        """Tell whether the recorded process lives, whether it answers or not."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int(json.loads(self._record.read_text())["pid"])
            return is_alive(pid) and _is_ours(pid)
        return False

    def _await_slow(self) -> str | None:
        """Wait a while for a server that lives but does not answer, as on a busy machine: others may use it."""
        deadline = time.monotonic() + _SLOW_SECONDS
        while self.lives() and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError, ValueError):
                record = json.loads(self._record.read_text())
                if is_healthy(record["api_url"], timeout=10.0):
                    return str(record["api_url"])
            time.sleep(0.25)
        return None

    def stop(self, *, ui: bool = False) -> bool:
        """Leave the server; the last user stops it. `ui` also ends what `reneg ui` kept. True if it was stopped."""
        if not self._users.exists():
            return False
        with self._lock():
            (self._users / str(os.getpid())).unlink(missing_ok=True)
            if ui:
                (self._users / _UI).unlink(missing_ok=True)
            for user in list(self._users.iterdir()):
                if user.name != _UI and not is_alive(int(user.name)):
                    user.unlink(missing_ok=True)
            if any(self._users.iterdir()):
                return False
            return self._kill()

    def _lock(self) -> FileLock:
        self._folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / "server.lock", timeout=_START_SECONDS + 30)

    def _spawn(self) -> str:
        self._kill()
        port = self._last_port() or free_port()
        (self._folder / "port").write_text(str(port))
        api_url = f"http://127.0.0.1:{port}/api"
        environment = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "PREFECT_PROFILE")}
        environment |= QUIET | {
            "PREFECT_HOME": str(self._folder),
            "PREFECT_UI_API_URL": "/api",
            # In memory, as is the default, a server that dies forgets who holds a slot, and it is never free again.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._record.write_text(json.dumps({"pid": process.pid, "api_url": api_url}))
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if is_healthy(api_url):
                return api_url
            if process.poll() is not None:
                break
            time.sleep(0.25)
        self._kill()
        raise ServerError(f"the embedded Prefect server did not start within {_START_SECONDS:.0f} s; see {self.log}")

    def _last_port(self) -> int | None:
        """Return the last server's port once it is free, so that its workers and people's links go on working."""
        with contextlib.suppress(OSError, ValueError):
            port = int((self._folder / "port").read_text())
            deadline = time.monotonic() + _PORT_SECONDS
            while not _is_free(port):
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.25)
            return port
        return None

    def _kill(self) -> bool:
        """Stop the recorded server process, and only that one."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int(json.loads(self._record.read_text())["pid"])
            self._record.unlink()
            if is_alive(pid) and _is_ours(pid):
                os.killpg(pid, signal.SIGTERM)
                _await_end(pid)
                return True
        return False


def _await_end(pid: int, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not is_alive(pid):
            return
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _is_ours(pid: int) -> bool:
    """Guard against a recycled process id."""
    with contextlib.suppress(OSError):
        return b"prefect" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def free_port() -> int:
    """Return a free port below those that the system gives to clients, which one could take between two starts."""
    first = _CLIENT_PORTS
    with contextlib.suppress(OSError, ValueError, IndexError):
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(_FIRST_PORT, max(first, _FIRST_PORT + 1000))
        if _is_free(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
