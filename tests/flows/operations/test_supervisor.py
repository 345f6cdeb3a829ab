"""`reneg serve` for real: what it keeps alive, and what is left when it is told to stop."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from infra.prefect_api.processes import is_alive
from infra.prefect_api.server import PrefectServer, is_healthy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Serving:
    """One `reneg serve` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
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
            workers = httpx.post(f"{self.url}/work_pools/reneg/workers/filter", json={}).json()
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
