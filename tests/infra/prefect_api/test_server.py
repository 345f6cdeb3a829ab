"""The embedded server: what keeps its address, and who may not take a slow one for a dead one."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.prefect_api import server as module
from infra.prefect_api.health import ServerError
from infra.prefect_api.processes import is_alive
from infra.prefect_api.server import PrefectServer, free_port
from infra.private_files import identity
from infra.settings import QUIET


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
import http.server, json, os, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
if os.environ.get("SMALL_ENDS"):
    sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
        self.wfile.write(b"true")
    def log_message(self, *args):
        pass
prefect = {name: value for name, value in os.environ.items() if name.upper().startswith("PREFECT_")}
print(json.dumps({"prefect": prefect, "folder": os.getcwd(), "no_proxy": os.environ["no_proxy"]}), flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


# What a user has for another Prefect server, and a proxy that does not answer.
OF_OTHERS = {
    "PREFECT_API_URL": "http://elsewhere.example/api",
    "PREFECT_API_KEY": "pnu_of_another",
    "PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////elsewhere.db",
    "PREFECT_SERVER_API_AUTH_STRING": "admin:pass",
    "prefect_server_api_base_path": "/elsewhere",
    "PREFECT_UI_SERVE_BASE": "/elsewhere",
    "PREFECT_PROFILE": "production",
    "PREFECT_PROFILES_PATH": "/elsewhere/profiles.toml",
    "PREFECT_TEST_MODE": "1",
    "http_proxy": "http://127.0.0.1:9",
    "all_proxy": "http://127.0.0.1:9",
    "no_proxy": "intranet.example",
    "NO_PROXY": "",
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    """A home whose server starts within a tenth of a second."""
    package = tmp_path / "code" / "infra" / "prefect_api"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "server_process.py").write_text(SMALL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    for name, value in OF_OTHERS.items():
        monkeypatch.setenv(name, value)
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
    other = tmp_path / "prefect" / "users" / str(os.getppid())
    other.touch()
    assert small.stop() is False  # another process uses it
    other.unlink()
    assert small.stop() is True
    assert not is_alive(record["pid"])
    assert (small.running(), small.lives()) == (None, False)
    assert small.stop() is False


def test_the_server_takes_nothing_that_is_meant_for_another_and_asks_for_a_password_of_its_own(
    small: PrefectServer, tmp_path: Path
) -> None:
    url = small.start()
    folder = tmp_path / "prefect"
    started = json.loads(small.log.read_text())
    assert started["folder"] == str(folder)  # no `.env`, `prefect.toml` or `pyproject.toml` of the user's lies there
    assert started["no_proxy"] == "intranet.example,127.0.0.1,localhost,::1"
    own = {name: value for name, value in started["prefect"].items() if name not in QUIET}
    assert own == {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_API_AUTH_STRING": small.auth_string(),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{url[:-4]},{url[:-4].replace('127.0.0.1', 'localhost')}",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///prefect.db",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_UI_API_URL": "/api",
    }
    command = Path(f"/proc/{record_of(small)['pid']}/cmdline").read_bytes()
    assert small.auth_string().encode() not in command + (folder / "server.json").read_bytes()


def test_the_password_is_made_once_and_only_its_user_can_read_it_or_the_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    password = PrefectServer(home).auth_string()
    assert re.fullmatch(r"reneg:[\w-]{43}", password)
    assert PrefectServer(home).auth_string() == password
    assert PrefectServer(tmp_path / "other").auth_string() != password
    made = (home, home / "prefect", home / "prefect" / "auth-string")
    assert [oct(path.stat().st_mode)[-3:] for path in made] == ["700", "700", "600"]
    (home / "prefect" / "auth-string").write_text("\n")
    with pytest.raises(ServerError, match="auth-string is empty; delete it"):
        PrefectServer(home).auth_string()
    (home / "prefect" / "auth-string").write_bytes(b"\xff\xfe")
    with pytest.raises(ServerError, match=r"auth-string cannot be read .UnicodeDecodeError.; delete it"):
        PrefectServer(home).auth_string()
    (home / "prefect" / "auth-string").unlink()
    (home / "prefect" / "auth-string").mkdir()
    with pytest.raises(ServerError, match=r"auth-string cannot be read .IsADirectoryError.; delete it"):
        PrefectServer(home).auth_string()


def test_a_copied_home_does_not_take_the_server_of_the_first_for_its_own(tmp_path: Path) -> None:
    first = PrefectServer(tmp_path / "first")
    first.auth_string()
    record = {
        "pid": os.getpid(),
        "api_url": "http://127.0.0.1:1/api",
        "auth": first._mark(),
        "folder": identity(first._folder),
    }
    first._record.write_text(json.dumps(record))
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert first._recorded() == record
    assert PrefectServer(tmp_path / "copy")._recorded() is None
    (tmp_path / "first").rename(tmp_path / "moved")
    assert PrefectServer(tmp_path / "moved")._recorded() == record


def test_what_an_older_version_left_readable_is_private_after_a_start(small: PrefectServer, tmp_path: Path) -> None:
    folder = tmp_path / "prefect"
    folder.mkdir(mode=0o755)
    for name in ("prefect.db", "server.log", "port"):
        (folder / name).write_text("")
        (folder / name).chmod(0o644)
    small.start()
    assert {oct(path.stat().st_mode)[-3:] for path in folder.iterdir() if path.is_file()} == {"600"}


def forget_password(server: PrefectServer, **changes: Any) -> dict[str, Any]:
    """Make the record what an older version wrote, which knew no password."""
    record = {name: value for name, value in record_of(server).items() if name != "auth"} | changes
    (server.log.parent / "server.json").write_text(json.dumps(record))
    return record


def test_a_server_of_an_older_version_is_replaced_at_the_same_address_once_nobody_else_uses_it(
    small: PrefectServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = small.start(keep=True)
    old = forget_password(small)
    assert (small.running(), small.asks_for_password()) == (url, False)
    other = tmp_path / "prefect" / "users" / str(os.getppid())
    other.touch()
    assert small.start() == url  # its user goes on undisturbed
    assert (
        f"asks for no password; it is replaced by the next start after these processes have ended: {os.getppid()}"
        in (caplog.text)
    )
    assert record_of(small) == old
    other.unlink()
    assert small.start() == url
    assert record_of(small)["pid"] != old["pid"]
    assert not is_alive(old["pid"])
    assert small.asks_for_password()


def test_a_server_with_another_password_is_not_used(small: PrefectServer, tmp_path: Path) -> None:
    url = small.start()
    old = record_of(small)
    small.auth_file.unlink()
    other = tmp_path / "prefect" / "users" / str(os.getppid())
    other.touch()
    with pytest.raises(
        ServerError, match=f"auth-string was replaced while the server runs: stop the processes {os.getppid()}"
    ):
        small.start()
    other.unlink()
    assert small.start() == url
    assert record_of(small)["pid"] != old["pid"]


def test_the_server_removes_old_flow_runs_with_their_logs(
    small: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings.models.server.services import ServerServicesDBVacuumSettings

    monkeypatch.setenv("PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD", "86400")
    small.start()
    variables = Path(f"/proc/{record_of(small)['pid']}/environ").read_text().split("\0")
    (said,) = [v for v in variables if v.startswith("PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=")]
    monkeypatch.setenv(*said.split("=", 1))
    read = ServerServicesDBVacuumSettings()
    assert read.enabled_vacuum_types == {"events", "flow_runs"}
    assert "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD=86400" in variables
    assert read.retention_period.days == 1
    monkeypatch.delenv("PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD")
    assert ServerServicesDBVacuumSettings().retention_period.days == 90


def test_a_server_whose_record_was_lost_is_stopped_before_another_starts(small: PrefectServer) -> None:
    small.start()
    lost = record_of(small)
    (small.log.parent / "server.json").unlink()
    small.start()
    assert not is_alive(lost["pid"])
    second = record_of(small)
    (small.log.parent / "server.json").unlink()
    assert small.stop() is True
    assert not is_alive(second["pid"])


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
    with pytest.raises(ServerError, match=r"ended with 3 while it started; see .*server\.log"):
        small.start()
    assert time.monotonic() - began < 60
    assert not (small.log.parent / "server.json").exists()


def test_a_port_that_another_process_takes_before_the_server_does_is_exchanged(
    small: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken, free = other.getsockname()[1], free_port()
        ports = iter([taken, free])
        monkeypatch.setattr(module, "free_port", lambda: next(ports))
        assert small.start() == f"http://127.0.0.1:{free}/api"
        assert record_of(small)["api_url"] == small.running()


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


def test_a_server_that_does_not_obey_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, start_new_session=True, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "deaf\n"
    os.killpg(process.pid, signal.SIGTERM)
    module._await_end(process.pid, 0.05)
    assert process.wait(60) == -signal.SIGKILL


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


@pytest.mark.parametrize("whose", ["home", "home/prefect"])
def test_a_home_that_another_user_made_is_refused(whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / "prefect").mkdir(parents=True)
    of_another, stat = (tmp_path / whose), Path.stat

    def stat_of(path: Path, **options: Any) -> Any:
        found = stat(path, **options)
        return SimpleNamespace(st_uid=found.st_uid + 1, st_mode=found.st_mode) if path == of_another else found

    monkeypatch.setattr(Path, "stat", stat_of)
    with pytest.raises(ServerError, match=r"belongs to another user .* set RENEG_HOME"):
        PrefectServer(tmp_path / "home").start()


def test_a_volume_of_root_is_a_home_unless_everybody_can_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = 0o40775

    def mounted(path: Path, **options: Any) -> Any:
        ours = SimpleNamespace(st_uid=10001, st_mode=0o40700)
        return SimpleNamespace(st_uid=0, st_mode=mode) if path == tmp_path else ours

    (tmp_path / "prefect" / "users").mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: 10001)
    monkeypatch.setattr(Path, "stat", mounted)
    PrefectServer(tmp_path)._open()
    mode = 0o40777
    with pytest.raises(ServerError, match=r"belongs to another user \(uid 0\)"):
        PrefectServer(tmp_path)._open()
