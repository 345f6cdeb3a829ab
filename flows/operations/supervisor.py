"""`reneg serve`: keeps a worker of the pool running, and marks runs of dead processes as crashed, until stopped.

In embedded mode it also keeps the Prefect server running. The worker starts each flow run as a process of its own. A
worker that dies is started again; its flow runs continue meanwhile, and new ones start late. If the supervisor is
killed, the worker goes on, and the next supervisor takes it over.
"""

import contextlib
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from infra.prefect_api.client import Api, client_environment, connected
from infra.prefect_api.dead_runs import sweep_dead_runs, worker_name
from infra.prefect_api.events import POOL
from infra.prefect_api.health import ServerError, is_healthy, trouble_with
from infra.prefect_api.processes import KeptProcess
from infra.prefect_api.server import PrefectServer
from infra.private_files import open_private_folder
from infra.settings import Settings

_LOOK_SECONDS = 2.0
_SWEEP_SECONDS = 15.0
_SILENT_SECONDS = 60.0  # for which a living server may not answer
_GRACE_SECONDS = 25.0  # for flow runs to write their results after the stop
_BACKOFF_SECONDS = (1.0, 5.0, 15.0, 60.0)
# Variables that belong to a Prefect server of the user's: the worker and its flow runs speak to the embedded one.
_OF_ANOTHER_SERVER = ("PREFECT_API_", "PREFECT_SERVER_", "PREFECT_UI_", "PREFECT_CLOUD_API_", "PREFECT_PROFILE",
                      "PREFECT_CLIENT_CUSTOM_HEADERS")  # fmt: skip


class Supervisor:
    """Keeps the server (embedded mode only) and one worker running."""

    def __init__(self, settings: Settings, say: Callable[[str], None], *, pool: str = POOL, limit: int = 4) -> None:
        """Prepare; nothing is started.

        Args:
            settings: where the server and the store are.
            say: called with a line about each event.
            pool: the work pool whose runs are taken.
            limit: flow runs at a time.
        """
        self._settings, self._say, self._pool, self._limit = settings, say, pool, limit
        self._server = None if settings.prefect_api_url else PrefectServer(settings.home)
        self._worker: KeptProcess | None = None
        self._stop = threading.Event()
        self._deaths = 0
        self._begun = self._due = 0.0
        self._answered = time.monotonic()
        self.log = settings.home / "worker.log"

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; then stop the worker and its flow runs, and the embedded server.

        Raises:
            ServerError: another supervisor of this home and pool runs, the server could not be started at the
                beginning, or the named one can never be used.
        """
        with self._alone():
            self._run()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold this home and pool: two supervisors would each end the worker of the other, and its flow runs."""
        open_private_folder(self._settings.home)
        lock = FileLock(self._settings.home / f"serve-{self._pool}.lock", mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ServerError(
                f"another `reneg serve` of {self._settings.home} runs already and serves the pool {self._pool}. "
                "Stop it first, for example to change its variables"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _run(self) -> None:
        named = None if self._server else self._named(str(self._settings.prefect_api_url))
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stop.set())
        address = self._server.start() if self._server else str(named)
        self._say(f"Prefect: {address.removesuffix('/api')}; worker log: {self.log}")
        if self._server is not None:
            self._say(f"the password of its UI is in {self._server.auth_file}")
        swept = 0.0
        try:
            while not self._stop.wait(_LOOK_SECONDS):
                address = self._keep_server(address)
                self._keep_worker(address)
                if time.monotonic() - swept > _SWEEP_SECONDS:
                    swept = time.monotonic()
                    self._sweep(address)
        finally:
            self._end()

    def _named(self, address: str) -> str:
        """Check the server of PREFECT_API_URL; one that does not answer yet is waited for."""
        trouble = trouble_with(address)
        if trouble is not None and not trouble.passes:
            raise ServerError(f"PREFECT_API_URL: {trouble.found}; {trouble.remedy}")
        if trouble is not None:
            self._say(f"{trouble.found}; the worker tries again until it does")
        return address

    def _api(self, address: str) -> Api:
        return Api(address) if self._server is None else self._server.api(address)

    def _keep_server(self, address: str) -> str:
        """Start the server again if it died, or if it has not answered for long; a busy one is left alone."""
        if self._server is None or is_healthy(address, timeout=10.0):
            self._answered = time.monotonic()
            return address
        if self._server.lives() and time.monotonic() - self._answered < _SILENT_SECONDS:
            return address
        self._say("the Prefect server does not answer; starting it again")
        with contextlib.suppress(Exception):  # the next round tries again
            started = self._server.start()
            if started != address and self._worker is not None:
                self._say(f"the Prefect server is at {started} now; the worker starts again")
                self._worker.stop(_GRACE_SECONDS)
            return started
        return address

    def _keep_worker(self, address: str) -> None:
        if self._worker is not None:
            ended = self._worker.poll()
            if ended is None:
                return
            self._deaths = 0 if time.monotonic() - self._begun > _BACKOFF_SECONDS[-1] else self._deaths + 1
            wait = _BACKOFF_SECONDS[min(self._deaths, len(_BACKOFF_SECONDS) - 1)]
            self._say(f"the worker ended with {ended}; another starts in {wait:.0f} s")
            self._worker, self._due = None, time.monotonic() + wait
        if time.monotonic() >= self._due:
            self._worker = self._start_worker(address)
            self._begun = time.monotonic()

    def _start_worker(self, address: str) -> KeptProcess:
        home = hashlib.sha256(str(self._settings.home).encode()).hexdigest()[:8]
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", self._pool, "--type", "process"]
        command += ["--name", worker_name(home), "--limit", str(self._limit)]
        command += ["--install-policy", "never"]
        record = self._settings.home / f"worker-{self._pool}.json"
        # Prefect reads `.env`, `prefect.toml` and `pyproject.toml` of the current folder: there are none in ours.
        private = open_private_folder(self._settings.home)
        folder = None if self._server is None else open_private_folder(private / "prefect-client")
        worker = KeptProcess.keep(record, command, self._environment(address), self.log, folder)
        if worker.adopted:
            self._say(f"took over the worker {worker.pid}, whose supervisor died")
        return worker

    def _environment(self, address: str) -> dict[str, str]:
        """Return the worker's environment: ours with absolute paths, because flow runs start in other folders."""
        settings = self._settings
        store = settings.store if "://" in settings.store else str(Path(settings.store).absolute())
        prefect_home = str(settings.home / "prefect-client")
        ours = {
            **client_environment(self._api(address)),
            "PREFECT_HOME": prefect_home if self._server else os.environ.get("PREFECT_HOME", prefect_home),
            "RENEG_HOME": str(settings.home),
            "RENEG_STORE": store,
            "RENEG_CACHE": str(settings.cache),
        }
        foreign = _OF_ANOTHER_SERVER if self._server else ()
        return {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)} | ours

    def _sweep(self, address: str) -> None:
        try:
            with connected(self._api(address)):
                dead = sweep_dead_runs()
        except (httpx.HTTPError, OSError):
            return  # the server does not answer; the next round starts it again
        except Exception as error:  # a failed sweep must not end the supervisor
            self._say(f"dead runs could not be marked, the next round tries again: {type(error).__name__}: {error}")
            return
        if dead:
            self._say(f"{dead} flow run(s) of dead processes marked Crashed")

    def _end(self) -> None:
        if self._worker is not None and self._worker.poll() is None:
            self._say("stopping the worker and its flow runs")
            self._worker.stop(_GRACE_SECONDS)
        if self._server is not None:
            self._server.stop()
