"""The embedded Prefect server: in the background, on loopback, shared by the runs of one home, stopped by the last.

Prefect's ephemeral mode loses task history, so a real server is started as a process of its own. A run that is killed
leaves the server behind; the next run finds it, uses it, and stops it. `reneg ui` keeps it up. It asks everybody for
the password of the home, and takes no setting from the environment or the current folder.
"""

import contextlib
import hashlib
import json
import logging
import os
import random
import secrets
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from infra.prefect_api.client import Api
from infra.prefect_api.health import ServerError, is_healthy
from infra.prefect_api.processes import is_alive
from infra.private_files import append_private, identity, keep_secret, make_private, open_private_folder, write_private
from infra.redact import hide_value
from infra.settings import QUIET, bypass_proxies

_START_SECONDS = 240.0
_SLOW_SECONDS = 30.0
_PORT_SECONDS = 15.0
_PORTS_TRIED = 3
_TAKEN = b"address already in use"  # as uvicorn and the system say it
_FIRST_PORT, _CLIENT_PORTS = 10240, 32768
_UI = "ui"
_PROCESS = "infra.prefect_api.server_process"  # not imported: it imports the whole of Prefect's server
# The variables for this server that users may set: how long it keeps flow runs and events.
_RETENTION = ("PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD", "PREFECT_SERVER_EVENTS_RETENTION_PERIOD")
_LOG = logging.getLogger(__name__)


class PrefectServer:
    """The server of one home folder; several processes may use it at once."""

    def __init__(self, home: Path) -> None:
        """Address the server of a home; nothing is started."""
        self._home, self._folder = home, home / "prefect"
        self._record = self._folder / "server.json"
        self._users = self._folder / "users"
        self.log = self._folder / "server.log"
        self.auth_file = self._folder / "auth-string"

    def running(self) -> str | None:
        """Return the API address of a living server of this home, or None."""
        record = self._recorded()
        if record is not None and self.lives() and is_healthy(record["api_url"]):
            return str(record["api_url"])
        return None

    def start(self, *, keep: bool = False) -> str:
        """Start the server, or join the one that runs; returns its API address.

        Args:
            keep: leave it up after this process ends (`reneg ui`).

        Raises:
            ServerError: it was not healthy in time, or the one that runs has another password.
        """
        self._open()
        with self._lock():
            (self._users / (_UI if keep else str(os.getpid()))).touch()
            return self._join() or self._spawn()

    def api(self, url: str) -> Api:
        """Return what a client of this server needs, which is at this address."""
        return Api(url, self.auth_string())

    def auth_string(self) -> str:
        """Return the `user:password` that the server asks for; made once for each home.

        Raises:
            ServerError: the file that holds it is empty or cannot be read.
        """
        self._open()
        try:
            secret = keep_secret(self.auth_file, lambda: f"reneg:{secrets.token_urlsafe(32)}")
        except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
            raise ServerError(
                f"{self.auth_file} cannot be read ({type(error).__name__}); delete it, and the next start makes a new "
                "password"
            ) from None
        hide_value(secret)
        if not secret:
            raise ServerError(f"{self.auth_file} is empty; delete it, and the next start makes a new password")
        return secret

    def asks_for_password(self) -> bool:
        """Tell whether the recorded server was started with the password of this home; older versions knew none."""
        record = self._recorded()
        return record is not None and record.get("auth") == self._mark()

    def lives(self) -> bool:
        """Tell whether the recorded process lives, whether it answers or not."""
        record = self._recorded()
        return record is not None and is_alive(record["pid"]) and _is_ours(record["pid"])

    def stop(self, *, ui: bool = False) -> bool:
        """Leave the server; the last user stops it. `ui` also ends what `reneg ui` kept. True if it was stopped."""
        if not self._users.exists():
            return False
        with self._lock():
            (self._users / str(os.getpid())).unlink(missing_ok=True)
            if ui:
                (self._users / _UI).unlink(missing_ok=True)
            if self._processes() or any(self._users.iterdir()):
                return False
            return self._kill()

    def _recorded(self) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record: dict[str, Any] = json.loads(self._record.read_text())
            if record.get("folder", identity(self._folder)) != identity(self._folder):
                return None  # a copy of another home: that server is not ours to use or stop
            return record | {"pid": int(record["pid"]), "api_url": str(record["api_url"])}
        return None

    def _processes(self) -> list[int]:
        """List the living processes that use the server, and forget those that died."""
        users = {int(user.name): user for user in list(self._users.iterdir()) if user.name != _UI}
        for pid, user in users.items():
            if not is_alive(pid):
                user.unlink(missing_ok=True)
        return sorted(pid for pid in users if is_alive(pid))

    def _open(self) -> None:
        for folder in (self._home, self._folder):
            found = open_private_folder(folder).stat()
            # Its owner could name another server, which would get the password and give orders. Root's are volumes.
            is_volume = found.st_uid == 0 and not found.st_mode & stat.S_IWOTH
            if found.st_uid != os.getuid() and not is_volume:
                raise ServerError(
                    f"{folder} belongs to another user (uid {found.st_uid}), who could take the place of the embedded "
                    "Prefect server; set RENEG_HOME to a folder of your own"
                )
        self._users.mkdir(exist_ok=True)

    def _lock(self) -> FileLock:
        return FileLock(self._folder / "server.lock", timeout=_START_SECONDS + 30)

    def _join(self) -> str | None:
        """Return the address of a living server that can be used; None where one has to be started.

        A server without the password, of an older version, is replaced as soon as no other process uses it.
        """
        url = self.running() or self._await_slow()
        if url is None or self.asks_for_password():
            return url
        others = ", ".join(str(pid) for pid in self._processes() if pid != os.getpid())
        if not others:
            return None
        if "auth" in (self._recorded() or {}):
            raise ServerError(f"{self.auth_file} was replaced while the server runs: stop the processes {others}")
        _LOG.warning("the Prefect server of an older version runs and asks for no password; it is replaced by the "
                     "next start after these processes have ended: %s", others)  # fmt: skip
        return url

    def _await_slow(self) -> str | None:
        """Wait a while for a server that lives but does not answer, as on a busy machine: others may use it."""
        deadline = time.monotonic() + _SLOW_SECONDS
        while self.lives() and time.monotonic() < deadline:
            record = self._recorded()
            if record is not None and is_healthy(record["api_url"], timeout=10.0):
                return str(record["api_url"])
            time.sleep(0.25)
        return None

    def _spawn(self) -> str:
        for _ in range(_PORTS_TRIED):
            self._kill()
            port = self._last_port() or free_port()
            said = self.log.stat().st_size if self.log.exists() else 0
            process = self._run(port)
            api_url = f"http://127.0.0.1:{port}/api"
            record = {"pid": process.pid, "api_url": api_url, "auth": self._mark(), "folder": identity(self._folder)}
            write_private(self._record, json.dumps(record))
            deadline = time.monotonic() + _START_SECONDS
            while time.monotonic() < deadline and process.poll() is None:
                if is_healthy(api_url):
                    return api_url
                time.sleep(0.25)
            if process.poll() is None or _TAKEN not in self.log.read_bytes()[said:].lower():
                break
            (self._folder / "port").unlink()  # another process took it between the choice and the start
        ended = process.poll()
        self._kill()
        if ended is not None:
            raise ServerError(f"the embedded Prefect server ended with {ended} while it started; see {self.log}")
        raise ServerError(f"the embedded Prefect server did not start within {_START_SECONDS:.0f} s; see {self.log}")

    def _run(self, port: int) -> subprocess.Popen[bytes]:
        write_private(self._folder / "port", str(port))
        command = [sys.executable, "-m", _PROCESS, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        (self._folder / "prefect.db").touch(mode=0o600)  # SQLite gives its other files the same mode
        for file in self._folder.iterdir():
            make_private(file)
        with append_private(self.log) as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(port),
                cwd=self._folder, start_new_session=True,
            )  # fmt: skip

    def _environment(self, port: int) -> dict[str, str]:
        """Return the server's environment without the settings of other Prefect servers, in any spelling."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith("PREFECT_") or name.upper() in _RETENTION
        }
        bypass_proxies(environment)
        return environment | QUIET | {
            "PREFECT_HOME": str(self._folder),
            # Relative to the server's folder: in a path, `?` and `%` would be read as parts of an address.
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///prefect.db",
            "PREFECT_SERVER_API_AUTH_STRING": self.auth_string(),
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
            "PREFECT_UI_API_URL": "/api",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # else flow runs are kept for ever
            # In memory, as is the default, a server that dies forgets who holds a slot, and it is never free again.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }  # fmt: skip

    def _mark(self) -> str:
        """Return what tells a server with this password from others; the password cannot be found from it."""
        return hashlib.sha256(self.auth_string().encode()).hexdigest()[:16]

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
        """Stop the server of this home, also one whose record was lost: two would write to one database."""
        record = self._recorded()
        self._record.unlink(missing_ok=True)
        found = set(_working_in(self._folder))
        if record is not None and is_alive(record["pid"]) and _is_ours(record["pid"]):
            found.add(record["pid"])
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
                _await_end(pid)
        return bool(found)


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


def _working_in(folder: Path) -> Iterator[int]:
    """Yield the Prefect servers that were started in a folder, each the first of its process group."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (process / "cwd").readlink() == folder.resolve():
                pid = int(process.name)
                if b"\0server\0start\0" in (process / "cmdline").read_bytes() and os.getpgid(pid) == pid:
                    yield pid


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
