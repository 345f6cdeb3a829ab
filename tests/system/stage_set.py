"""The whole system on loopback, as an operator would have it: S3 server, Ray nodes, `reneg serve`, Prefect's API.

Every process started here carries the variable RENEG_STAGE_SET, by which it is found again and ended, orphans included.
The Prefect server is the embedded one: `reneg serve` starts it and keeps it up.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from infra.prefect_api.client import client_environment
from infra.prefect_api.processes import is_alive
from infra.prefect_api.server import PrefectServer
from tests.conftest import ROOT, free_port, s3_variables, wait_for_http, weed_command
from tests.infra.prefect_calls import request, seed
from tests.infra.ray_nodes import LOOPBACK, RayNodes

TAG = "RENEG_STAGE_SET"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
OPEN = ("PENDING", "RUNNING")
# Prefect's worker asks for work every 10 s; tests and kills should not wait for that.
QUICK = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_WORKER_HEARTBEAT_SECONDS": "5"}


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 600.0, pause: float = 0.25) -> Any:
    """Return the first value of the condition that is true; an AssertionError that says `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(pause)
    return value


class Weed:
    """SeaweedFS, an authenticated S3 server whose data outlive it; bucket `reneg`."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder, port = folder, free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = s3_variables(self.endpoint)
        self._command = weed_command(folder, port)  # a server that is started again finds its data by the same ports
        self._variables = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again if it died; a second and a half."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self.folder, env=self._variables)
        wait_for_http(self.endpoint, self.process)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class Api:
    """What a person does in Prefect's UI, over HTTP; calls wait for a server that is being started again."""

    def __init__(self, home: Path, url: Callable[[], str], patience: float = 120.0) -> None:
        self._home, self._url, self._patience = home, url, patience

    def call(self, method: str, path: str, body: Any = None) -> Any:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                reply = request(self._home, self._url(), method, f"/{path}", body)
                if reply.status_code < 500:
                    reply.raise_for_status()
                    return reply.json() if reply.content else None
                problem: object = reply.text[:200]
            except httpx.TransportError as error:
                problem = error
            assert time.monotonic() < deadline, f"{method} {path}: {problem}"
            time.sleep(0.5)

    def start(self, deployment: str, parameters: Any = None, environment: Mapping[str, str] | None = None) -> str:
        """Create a flow run of a deployment such as `curate/my-data`; returns its id.

        Args:
            deployment: flow and name.
            parameters: laid over the deployment's own.
            environment: further variables of the flow run's process.
        """
        found = self.call("GET", f"deployments/name/{deployment}")
        body: dict[str, Any] = {"parameters": parameters or {}, "state": {"type": "SCHEDULED"}}
        if environment:
            body["job_variables"] = {"env": dict(environment)}
        return str(self.call("POST", f"deployments/{found['id']}/create_flow_run", body)["id"])

    def run(self, id_: str) -> dict[str, Any]:
        """Read a flow run; `state_type`, `state` with its name and message, `run_count`."""
        run: dict[str, Any] = self.call("GET", f"flow_runs/{id_}")
        return run

    def runs(self, flow: str | None = None, deployment: str | None = None) -> list[dict[str, Any]]:
        """List flow runs, the oldest first."""
        body: dict[str, Any] = {"sort": "START_TIME_ASC", "limit": 200}
        if flow:
            body["flows"] = {"name": {"any_": [flow]}}
        if deployment:
            body["deployments"] = {"name": {"any_": [deployment]}}
        found: list[dict[str, Any]] = self.call("POST", "flow_runs/filter", body)
        return found

    def wait(self, id_: str, seconds: float = 1200.0) -> dict[str, Any]:
        """Wait until a flow run ended, however."""
        self_ended = lambda: (run := self.run(id_))["state_type"] in ENDED and run  # noqa: E731
        found: dict[str, Any] = wait_until(self_ended, f"flow run {id_} ended", seconds, 0.5)
        return found

    def retry(self, id_: str) -> None:
        """Do what the UI's Retry button does, but not at once.

        The worker tells of a failed flow run's process some seconds after the run's end; a retry that came before that
        is called Crashed, and is not taken up.
        """
        ended = datetime.fromisoformat(self.run(id_)["state"]["timestamp"])
        time.sleep(max(0.0, 6.0 - (datetime.now(UTC) - ended).total_seconds()))
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry"}
        self.call("POST", f"flow_runs/{id_}/set_state", {"state": state, "force": False})

    def unschedule(self, deployment: str) -> None:
        """Switch the schedules of a deployment off, as in its page: nothing more starts by itself."""
        found = self.call("GET", f"deployments/name/{deployment}")
        for schedule in found["schedules"]:
            self.call("PATCH", f"deployments/{found['id']}/schedules/{schedule['id']}", {"active": False})

    def task_runs(self, id_: str) -> list[dict[str, Any]]:
        """List the task runs of a flow run; `name`, `state_type`, `state_name`, `flow_run_run_count` (the attempt)."""
        found: list[dict[str, Any]] = []
        while True:
            body = {"flow_runs": {"id": {"any_": [id_]}}, "limit": 200, "offset": len(found), "sort": "NAME_ASC"}
            page = self.call("POST", "task_runs/filter", body)
            found += page
            if len(page) < 200:
                return found

    def computed(self, id_: str, attempt: int | None = None) -> list[str]:
        """Name the parts that a flow run computed (Completed, not Cached), of one attempt or all."""
        runs = [r for r in self.task_runs(id_) if attempt in (None, r["flow_run_run_count"])]
        return sorted(r["name"] for r in runs if r["state_name"] == "Completed")

    def open(self, id_: str | None = None) -> list[str]:
        """Name what says Running or Pending, flow runs and task runs; of one flow run with its task runs, or of all."""
        found = []
        state = {"state": {"type": {"any_": list(OPEN)}}}
        one = {"id": {"any_": [id_]}} if id_ else {}
        flows = self.call("POST", "flow_runs/filter", {"flow_runs": {**state, **one}, "limit": 200})
        parts: dict[str, Any] = {"task_runs": state, "limit": 200}
        if id_:
            parts["flow_runs"] = one
        for run in [*flows, *self.call("POST", "task_runs/filter", parts)]:
            found.append(f"{run['name']}: {run['state_name']}")
        return found


class StageSet:
    """A context: a home, SeaweedFS, Ray nodes, `reneg serve`. `restart_*` do what a service manager would.

    environment: of every process; `store` is where `reneg serve` and the command line keep things.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 2,
        cpus: float = 2,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        seed(self.home)
        tag = {TAG: str(folder)}
        self.weed = Weed(folder / "weed", tag)
        self.store = "s3://reneg/store"
        cache = os.environ.get("RENEG_TEST_CACHE", str(folder / "cache"))
        own = {"RENEG_HOME": str(self.home), "RENEG_STORE": self.store, "RENEG_CACHE": cache}
        self._nodes, self._cpus, self._ray_port = nodes, cpus, free_port()
        ray = {**LOOPBACK, "RAY_ADDRESS": f"127.0.0.1:{self._ray_port}"}
        allowed = {"RENEG_ALLOWED_KEYS": "OPENAI_API_KEY@127.0.0.1:*", "RENEG_ALLOWED_SOURCES": str(folder)}
        self.environment = {**tag, **own, **QUICK, **ray, **allowed, **self.weed.environment, **(environment or {})}
        self.ray: RayNodes | None = None
        self.serve: subprocess.Popen[bytes] | None = None
        self.api = Api(self.home, self.api_url)

    def __enter__(self) -> Self:
        try:
            self.weed.start()
            self.start_serve()  # its server starts while Ray does; nothing asks for Ray before that
            self.start_ray()
            self.api_url(wait=240)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    # ---- Ray ----

    def start_ray(self) -> None:
        """Start a head and the nodes, at the same address each time; 9 s."""
        self.ray = RayNodes(self._nodes, num_cpus=self._cpus, environment=self.environment, head_port=self._ray_port)
        assert self.ray.address == self.environment["RAY_ADDRESS"]

    def restart_ray(self) -> None:
        """End what is left of the cluster, which has lost its head, and start it anew."""
        if self.ray is not None:
            self.ray.process.kill()
            self.ray.process.wait()
        for pids in (pids for kind, pids in self.processes().items() if kind in RAY_KINDS):
            for pid in pids:
                _kill(pid)
        self.start_ray()

    # ---- reneg serve, and with it Prefect ----

    def start_serve(self) -> None:
        """Start `reneg serve`, which starts the Prefect server and a worker."""
        with (self.folder / "serve.log").open("ab") as log:
            command = [sys.executable, "-m", "flows.cli.__main__", "serve"]
            self.serve = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=self._variables())

    def api_url(self, wait: float = 0.0) -> str:
        """Give the address of Prefect's API as it was last; waits until it answers where told to."""
        server = PrefectServer(self.home)
        if wait:
            url: str = wait_until(server.running, "the Prefect server answers", wait)
            return url
        port = (self.home / "prefect" / "port").read_text()
        return f"http://127.0.0.1:{port}/api"

    def reneg(self, *arguments: str, expect: int = 0, **environment: str) -> str:
        """Run a command of the command line; returns its standard output, or its errors where it should fail."""
        command = [sys.executable, "-m", "flows.cli.__main__", *arguments]
        api = PrefectServer(self.home).api(self.api_url())
        variables = {**self._variables(), **client_environment(api), **environment}
        done = subprocess.run(
            command, check=False, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == expect, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout if expect == 0 else done.stderr

    def _variables(self) -> dict[str, str]:
        unwanted = ("PREFECT_API_URL", "PREFECT_HOME", "RAY_ADDRESS")
        return {k: v for k, v in os.environ.items() if k not in unwanted} | self.environment

    # ---- processes ----

    def processes(self) -> dict[str, list[int]]:
        """List the living processes of this stage set by kind (KINDS, and what is none of them under `other`)."""
        found: dict[str, list[int]] = {}
        for pid, command in _tagged(f"{TAG}={self.folder}".encode()):
            found.setdefault(kind_of(command), []).append(pid)
        return found

    def victims(self) -> dict[str, list[int]]:
        """List what may be killed: of the raylets those of the nodes beside the head."""
        found = self.processes()
        head = self.ray.raylets[:1] if self.ray is not None else []
        found["raylet"] = [pid for pid in found.get("raylet", []) if pid not in head]
        return found

    def kill(self, kind: str, pids: list[int]) -> None:
        """Kill processes of a kind at once."""
        for pid in pids:
            _kill(pid)
        if kind == "weed":
            self.weed.kill()
        elif kind == "supervisor" and self.serve is not None:
            self.serve.wait()

    def restart(self, kind: str) -> None:
        """Start again what a service manager would, and what a cluster replaces; the rest mends itself."""
        if kind == "weed":
            self.weed.start()
        elif kind == "supervisor":
            self.start_serve()
        elif kind == "gcs":
            self.restart_ray()
        elif kind == "raylet" and self.ray is not None:
            self.ray.add()

    def end(self) -> None:
        """End everything, in order, then whatever is left."""
        if self.serve is not None and self.serve.poll() is None:
            self.serve.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.serve.wait(45)
        if self.ray is not None:
            self.ray.close()
        for _ in range(5):
            left = [pid for pids in self.processes().values() for pid in pids]
            for pid in left:
                _kill(pid)
            if not left:
                break
            time.sleep(0.2)


RAY_KINDS = ("ray nodes", "gcs", "raylet", "ray other", "ray idle", "plain part", "engine", "meter")
_BY_COMMAND = (
    ("weed", b"weed\0"),
    ("supervisor", b"flows.cli.__main__\0serve"),
    ("worker", b"prefect\0worker\0start"),
    ("flow", b"prefect.engine"),
    ("flow", b"prefect.flow_engine"),
    ("prefect", b"\0server\0start\0"),  # infra.prefect_api.server_process
    ("prefect", b"prefect.server.api.server"),
    ("engine", b"ray::EngineActor"),
    ("meter", b"ray::Meter"),
    ("meter", b"ray::LineHolder"),
    ("meter", b"ray::Pace"),
    ("ray idle", b"ray::IDLE"),
    ("ray other", b"ray::DashboardAgent"),
    ("ray other", b"ray::RuntimeEnvAgent"),
    ("plain part", b"ray::"),
    ("ray nodes", b"tests.infra.ray_nodes"),
    ("gcs", b"gcs_server\0"),
    ("raylet", b"raylet/raylet\0"),
    ("ray other", b"/ray/"),
)


def kind_of(command: bytes) -> str:
    """Classify a process by its command line, which Ray's workers change to what they do."""
    if command.startswith(b"ray::"):
        command = command[:200]
    return next((kind for kind, mark in _BY_COMMAND if mark in command), "other")


def _tagged(tag: bytes) -> Iterator[tuple[int, bytes]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if tag in (entry / "environ").read_bytes().split(b"\0") and is_alive(int(entry.name)):
                yield int(entry.name), (entry / "cmdline").read_bytes()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
