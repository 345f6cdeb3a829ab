"""`reneg serve` for real: what it keeps alive, and what is left when it is told to stop."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from flows.operations import supervisor
from flows.operations.supervisor import Supervisor
from infra.prefect_api.client import Api
from infra.prefect_api.health import ServerError, Trouble, is_healthy
from infra.prefect_api.processes import is_alive
from infra.prefect_api.server import PrefectServer
from infra.settings import Settings
from tests.infra.prefect_calls import request, seed


class Serving:
    """One `reneg serve` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = seed(home)
        self.said = home.parent / "said"
        named = {"RENEG_HOME": str(home), "RENEG_STORE": str(home / "store")}
        environment = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "RAY_ADDRESS")} | named
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli.__main__", "serve"], env=environment, stdout=said, stderr=said
            )

    @property
    def url(self) -> str | None:
        return PrefectServer(self.home).running()

    def workers(self) -> list[int]:
        """Process ids of the workers that this `reneg serve` started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
        return [child for child, line in lines.items() if b"worker" in line and is_alive(child)]

    def online(self) -> bool:
        """Whether the server has heard of a worker of the pool."""
        if self.url is None:
            return False
        try:
            workers = request(self.home, self.url, "POST", "/work_pools/reneg/workers/filter", {}).json()
        except httpx.HTTPError:
            return False
        return isinstance(workers, list) and any(worker["status"] == "ONLINE" for worker in workers)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "home")
    try:
        wait_until(serving.online, "no worker came online")
        yield serving
    finally:
        if serving.process.poll() is None:
            serving.process.terminate()
            serving.process.wait(120)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_and_a_killed_server_come_back_and_sigterm_leaves_nothing(serving: Serving) -> None:
    (worker,) = serving.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: serving.workers() not in ([], [worker]), "no new worker")
    assert "the worker ended with -9; another starts" in serving.said.read_text()

    before = serving.url
    assert before is not None
    recorded = re.search(r'"pid": (\d+)', (serving.home / "prefect" / "server.json").read_text())
    assert recorded is not None
    os.killpg(int(recorded.group(1)), signal.SIGKILL)
    wait_until(lambda: serving.url is not None, "the server did not come back")
    assert serving.url == before  # the same port: the worker and people's links go on working

    workers = serving.workers()
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(120) == 0
    assert not is_healthy(before)
    assert not any(is_alive(pid) for pid in workers)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_killed_supervisor_left_at_work_is_taken_over_by_the_next(serving: Serving) -> None:
    (worker,) = serving.workers()
    serving.process.kill()
    serving.process.wait()
    assert is_alive(worker)
    second = Serving(serving.home)
    try:
        wait_until(lambda: f"took over the worker {worker}" in second.said.read_text(), "the worker was not taken over")
        assert second.workers() == []  # and no other was started
    finally:
        second.process.terminate()
        assert second.process.wait(120) == 0
    assert not is_alive(worker)
    assert second.url is None


# ---- without processes ----


class Worker:
    """A worker's process that ends when it is told to."""

    def __init__(self, pid: int, *, adopted: bool = False) -> None:
        self.pid, self.adopted = pid, adopted
        self.ended: int | None = None
        self.stopped = False

    def poll(self) -> int | None:
        return self.ended

    def stop(self, grace: float) -> None:
        self.stopped, self.ended = True, 0


@dataclass
class Machine:
    """What a supervisor starts: workers, and the embedded server, noted instead of started."""

    home: Path
    patch: pytest.MonkeyPatch
    workers: list[Worker] = field(default_factory=list)
    commands: list[Sequence[str]] = field(default_factory=list)
    environments: list[Mapping[str, str]] = field(default_factory=list)
    folders: list[Path | None] = field(default_factory=list)
    addresses: list[str] = field(default_factory=lambda: ["http://127.0.0.1:4200/api"])
    starts: int = 0
    stops: int = 0
    healthy: bool = True
    alive: bool = True
    adopted: bool = False
    now: float = 1000.0
    said: list[str] = field(default_factory=list)

    def supervisor(self, **addresses: str) -> Supervisor:
        machine = self

        class Server:
            def __init__(self, home: Path) -> None:
                self.home = home

            def start(self) -> str:
                machine.starts += 1
                return machine.addresses[min(machine.starts, len(machine.addresses)) - 1]

            def lives(self) -> bool:
                return machine.alive

            def api(self, url: str) -> Api:
                return Api(url, "reneg:secret")

            @property
            def auth_file(self) -> Path:
                return self.home / "prefect" / "auth-string"

            def stop(self) -> bool:
                machine.stops += 1
                return True

        def keep(
            record: Path, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path | None
        ) -> Worker:
            machine.commands.append(command)
            machine.folders.append(folder)
            machine.environments.append(environment)
            machine.workers.append(Worker(100 + len(machine.workers), adopted=machine.adopted))
            return machine.workers[-1]

        self.patch.setattr(supervisor, "PrefectServer", Server)
        self.patch.setattr(supervisor.KeptProcess, "keep", keep)
        self.patch.setattr(supervisor, "is_healthy", lambda address, timeout: self.healthy)
        self.patch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: self.now))
        settings = Settings(self.home, "store", self.home / "cache", None, None)
        return Supervisor(replace(settings, **addresses), self.said.append, pool="ours", limit=3)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


URL = "http://127.0.0.1:4200/api"


def test_a_worker_takes_the_runs_of_its_pool_with_the_settings_of_the_supervisor(machine: Machine) -> None:
    machine.supervisor()._keep_worker(URL)
    (command,), (environment,) = machine.commands, machine.environments
    words = " ".join(command)
    assert "worker start --pool ours --type process" in words
    assert "--limit 3" in words
    assert environment["PREFECT_API_URL"] == URL
    assert environment["RENEG_STORE"] == str(Path("store").absolute())
    bucket = machine.supervisor(store="s3://bucket/prefix")
    assert bucket._environment(URL)["RENEG_STORE"] == "s3://bucket/prefix"


OF_ANOTHER = {
    "PREFECT_API_KEY": "pnu_of_another",
    "PREFECT_SERVER_API_AUTH_STRING": "admin:pass",
    "PREFECT_UI_URL": "https://elsewhere.example",
    "PREFECT_PROFILE": "production",
    "PREFECT_HOME": "/elsewhere",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
}


def test_a_worker_of_the_embedded_server_knows_its_password_and_nothing_of_another_server(machine: Machine) -> None:
    for name, value in OF_ANOTHER.items():
        machine.patch.setenv(name, value)
    machine.supervisor()._keep_worker(URL)
    (environment,), (folder,) = machine.environments, machine.folders
    assert environment["PREFECT_API_AUTH_STRING"] == "reneg:secret"
    assert not set(OF_ANOTHER) - {"PREFECT_HOME", "PREFECT_WORKER_QUERY_SECONDS"} & set(environment)
    assert environment["PREFECT_HOME"] == str(folder) == str(machine.home / "prefect-client")
    assert environment["PREFECT_WORKER_QUERY_SECONDS"] == "2"
    assert "secret" not in " ".join(map(str, machine.commands[0])) + " ".join(machine.said)


def test_a_worker_of_a_named_server_has_what_the_user_set(machine: Machine) -> None:
    for name, value in OF_ANOTHER.items():
        machine.patch.setenv(name, value)
    environment = machine.supervisor(prefect_api_url="http://named/api")._environment("http://named/api")
    assert OF_ANOTHER.items() <= environment.items()
    assert environment["PREFECT_API_URL"] == "http://named/api"


def test_a_named_server_that_does_not_answer_yet_is_waited_for_and_one_that_is_none_is_refused(
    machine: Machine,
) -> None:
    kept = machine.supervisor(prefect_api_url="http://named/api")
    troubles = [Trouble("it does not answer", "start it", passes=True), Trouble("it is a shop", "name another"), None]
    machine.patch.setattr(supervisor, "trouble_with", lambda address: troubles.pop(0))
    assert kept._named("http://named/api") == "http://named/api"
    assert machine.said == ["it does not answer; the worker tries again until it does"]
    with pytest.raises(ServerError, match="PREFECT_API_URL: it is a shop; name another"):
        kept._named("http://named/api")
    assert kept._named("http://named/api") == "http://named/api"
    assert len(machine.said) == 1


def test_a_worker_that_dies_again_and_again_is_started_later_each_time(machine: Machine) -> None:
    kept = machine.supervisor()
    waits = []
    for _ in range(5):
        kept._keep_worker(URL)
        machine.workers[-1].ended = -9
        kept._keep_worker(URL)
        waits.append(machine.said[-1].rpartition(" starts in ")[2])
        machine.now = kept._due
    assert waits == ["5 s", "15 s", "60 s", "60 s", "60 s"]
    kept._keep_worker(URL)
    machine.now += 61  # it worked for long: the next death is the first again
    machine.workers[-1].ended = 1
    kept._keep_worker(URL)
    assert machine.said[-1] == "the worker ended with 1; another starts in 1 s"
    before = len(machine.workers)
    machine.now = kept._due - 0.1
    kept._keep_worker(URL)
    assert len(machine.workers) == before


def test_a_worker_at_work_is_left_alone_and_one_left_behind_is_taken_over(machine: Machine) -> None:
    machine.adopted = True
    kept = machine.supervisor()
    for _ in range(3):
        kept._keep_worker(URL)
    assert len(machine.workers) == 1
    assert machine.said == ["took over the worker 100, whose supervisor died"]


def test_a_busy_server_is_waited_for_and_a_dead_or_silent_one_started_again(machine: Machine) -> None:
    kept = machine.supervisor()
    assert kept._keep_server(URL) == URL
    machine.healthy = False
    machine.now += 59
    assert (kept._keep_server(URL), machine.starts) == (URL, 0)
    machine.now += 1
    assert (kept._keep_server(URL), machine.starts) == (URL, 1)
    machine.healthy, machine.now = True, machine.now + 1
    kept._keep_server(URL)
    machine.healthy = machine.alive = False
    assert (kept._keep_server(URL), machine.starts) == (URL, 2)


def test_a_server_at_another_address_gets_a_worker_of_its_own(machine: Machine) -> None:
    kept = machine.supervisor()
    kept._keep_worker(URL)
    machine.healthy = machine.alive = False
    machine.addresses = ["http://127.0.0.1:4300/api"]
    assert kept._keep_server(URL) == "http://127.0.0.1:4300/api"
    assert machine.workers[0].stopped
    assert machine.said[-1] == "the Prefect server is at http://127.0.0.1:4300/api now; the worker starts again"


def test_a_server_that_is_not_ours_is_never_started(machine: Machine) -> None:
    kept = machine.supervisor(prefect_api_url="http://named/api")
    machine.healthy = machine.alive = False
    assert kept._keep_server("http://named/api") == "http://named/api"
    kept._end()
    assert (machine.starts, machine.stops) == (0, 0)


def test_a_second_supervisor_of_a_home_and_pool_is_refused_before_it_touches_anything(machine: Machine) -> None:
    first, second = machine.supervisor(), machine.supervisor()
    with first._alone():
        with pytest.raises(
            ServerError, match=r"another `reneg serve` of .* runs already and serves the pool ours. Stop"
        ):
            second.run()
        assert (machine.starts, machine.stops, machine.workers) == (0, 0, [])
    with second._alone():
        pass  # free again


def test_it_works_until_it_is_told_to_stop_and_stops_what_it_started(machine: Machine) -> None:
    kept = machine.supervisor()
    rounds = iter([False, False, True])
    handlers: dict[int, Any] = {}
    machine.patch.setattr(kept._stop, "wait", lambda seconds: next(rounds))
    ours = SimpleNamespace(
        SIGTERM=signal.SIGTERM, SIGINT=signal.SIGINT, signal=lambda name, handler: handlers.update({name: handler})
    )
    machine.patch.setattr(supervisor, "signal", ours)
    swept: list[str] = []
    machine.patch.setattr(kept, "_sweep", swept.append)
    kept.run()
    assert machine.said[:2] == [
        f"Prefect: http://127.0.0.1:4200; worker log: {machine.home / 'worker.log'}",
        f"the password of its UI is in {machine.home / 'prefect' / 'auth-string'}",
    ]
    assert machine.said[-1] == "stopping the worker and its flow runs"
    assert (machine.workers[0].stopped, machine.stops, swept) == (True, 1, [URL])
    handlers[signal.SIGTERM]()
    assert kept._stop.is_set()


def test_a_sweep_that_fails_ends_nothing_and_dead_runs_are_counted(machine: Machine) -> None:
    kept = machine.supervisor()

    def sweep(result: int | Exception) -> None:
        def run() -> int:
            if isinstance(result, Exception):
                raise result
            return result

        machine.patch.setattr(supervisor, "sweep_dead_runs", run)
        kept._sweep(URL)

    for result in (0, httpx.ConnectError("refused"), 2, ValueError("odd")):
        sweep(result)
    assert machine.said == [
        "2 flow run(s) of dead processes marked Crashed",
        "dead runs could not be marked, the next round tries again: ValueError: odd",
    ]
