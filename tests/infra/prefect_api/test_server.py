"""The embedded server: what keeps its address, and who may not take a slow one for a dead one."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.prefect_api import server as module
from infra.prefect_api.processes import is_alive
from infra.prefect_api.server import PrefectServer, ServerError, free_port, is_healthy


def test_a_free_port_is_none_that_the_system_gives_to_clients() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 < free_port() < first for _ in range(20))


def test_the_last_port_is_waited_for_while_a_dying_server_holds_it(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "port").write_text(str(port))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        threading.Timer(1.0, holder.close).start()
        assert PrefectServer(tmp_path)._last_port() == port


@pytest.mark.slow
def test_a_server_that_lives_but_is_busy_is_waited_for_and_not_replaced(tmp_path: Path) -> None:
    server = PrefectServer(tmp_path)
    url = server.start()
    try:
        pid = json.loads((tmp_path / "prefect" / "server.json").read_text())["pid"]
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(4.5, os.kill, (pid, signal.SIGCONT)).start()
        assert server.running() is None
        assert server.lives()
        assert PrefectServer(tmp_path).start() == url
        assert json.loads((tmp_path / "prefect" / "server.json").read_text())["pid"] == pid
    finally:
        assert server.stop()
    assert not server.lives()


# ---- with a small server in the place of Prefect's, started and stopped as that one ----

SMALL = """
import http.server, os, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
if os.environ.get("SMALL_ENDS"):
    sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass
print(os.environ["PREFECT_HOME"], os.environ.get("PREFECT_API_URL"), sys.argv[1:3], flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    """A home whose server starts within a tenth of a second."""
    (tmp_path / "code" / "prefect").mkdir(parents=True)
    (tmp_path / "code" / "prefect" / "__init__.py").touch()
    (tmp_path / "code" / "prefect" / "__main__.py").write_text(SMALL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere.example/api")
    server = PrefectServer(tmp_path)
    yield server
    server.stop(ui=True)


def record_of(server: PrefectServer) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((server.log.parent / "server.json").read_text())
    return record


def test_a_server_is_started_once_for_all_users_of_a_home_and_stopped_by_the_last(
    small: PrefectServer, tmp_path: Path
) -> None:
    url = small.start()
    record = record_of(small)
    assert record["api_url"] == url == f"http://127.0.0.1:{(tmp_path / 'prefect' / 'port').read_text()}/api"
    assert (small.running(), small.lives()) == (url, True)
    assert PrefectServer(tmp_path).start() == url
    assert record_of(small) == record
    assert small.log.read_text() == f"{tmp_path / 'prefect'} None ['server', 'start']\n"
    other = tmp_path / "prefect" / "users" / str(os.getppid())
    other.touch()
    assert small.stop() is False  # another process uses it
    other.unlink()
    assert small.stop() is True
    assert not is_alive(record["pid"])
    assert (small.running(), small.lives()) == (None, False)
    assert small.stop() is False


def test_a_user_that_died_does_not_keep_the_server_up_and_the_ui_does(small: PrefectServer, tmp_path: Path) -> None:
    url = small.start(keep=True)
    small.start()
    (tmp_path / "prefect" / "users" / "999999999").touch()
    assert small.stop() is False
    assert {path.name for path in (tmp_path / "prefect" / "users").iterdir()} == {"ui"}
    assert PrefectServer(tmp_path).running() == url
    assert small.stop(ui=True) is True


def test_a_server_that_died_is_started_again_at_the_same_port(small: PrefectServer) -> None:
    url = small.start()
    pid = record_of(small)["pid"]
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert small.running() is None
    assert small.start() == url
    assert record_of(small)["pid"] != pid


def test_a_server_that_ends_at_once_is_an_error_that_names_its_log(
    small: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_ENDS", "1")
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"did not start within 120 s; see .*server\.log"):
        small.start()
    assert time.monotonic() - began < 60
    assert not (small.log.parent / "server.json").exists()


def test_a_process_that_is_not_a_server_of_ours_is_never_stopped(small: PrefectServer, tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (tmp_path / "prefect" / "users").mkdir(parents=True)
        record = {"pid": sleeper.pid, "api_url": "http://127.0.0.1:9/api"}
        (tmp_path / "prefect" / "server.json").write_text(json.dumps(record))
        assert small.lives() is False
        assert small.stop() is False
        assert sleeper.poll() is None
        assert not (tmp_path / "prefect" / "server.json").exists()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_damaged_record_is_no_server(small: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "server.json").write_text("{")
    assert (small.running(), small.lives()) == (None, False)


def test_a_slow_server_is_waited_for_as_long_as_it_lives(small: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = small.start()
    answers = [False, False, True]
    monkeypatch.setattr(module, "is_healthy", lambda api_url, timeout=2.0: answers.pop(0))
    assert small.running() is None
    assert small._await_slow() == url
    assert answers == []
    monkeypatch.setattr(small, "lives", lambda: False)
    assert small._await_slow() is None


def test_a_server_is_healthy_only_if_it_says_so(small: PrefectServer) -> None:
    url = small.start()
    assert is_healthy(url)
    assert not is_healthy(f"{url}/nowhere")
    assert not is_healthy("http://127.0.0.1:9/api")


def test_a_server_that_does_not_obey_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, start_new_session=True, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "deaf\n"
    os.killpg(process.pid, signal.SIGTERM)
    module._await_end(process.pid, 0.05)
    assert process.wait(10) == -signal.SIGKILL


def test_a_port_that_stays_taken_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PORT_SECONDS", 0.05)
    (tmp_path / "prefect").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        (tmp_path / "prefect" / "port").write_text(str(holder.getsockname()[1]))
        assert PrefectServer(tmp_path)._last_port() is None
    (tmp_path / "prefect" / "port").write_text("no number")
    assert PrefectServer(tmp_path)._last_port() is None


def test_ports_are_drawn_from_a_range_of_their_own_however_low_the_systems_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[int, int]] = []

    def draw(first: int, last: int) -> int:
        drawn.append((first, last))
        return 10_000 + len(drawn)

    monkeypatch.setattr(module.random, "randrange", draw)
    monkeypatch.setattr(module, "_is_free", lambda port: port == 10_003)
    monkeypatch.setattr(module.Path, "read_text", lambda self: "10500\t60999\n")
    assert free_port() == 10_003
    assert drawn == [(10_240, 11_240)] * 3
    monkeypatch.setattr(module.Path, "read_text", lambda self: "nothing")
    drawn.clear()
    assert free_port() == 10_003
    assert drawn[0] == (10_240, 32_768)
