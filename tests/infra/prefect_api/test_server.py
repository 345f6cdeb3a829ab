"""The embedded server: what keeps its address, and who may not take a slow one for a dead one."""

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from infra.prefect_api.server import PrefectServer, free_port


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
        threading.Timer(6.0, os.kill, (pid, signal.SIGCONT)).start()
        assert server.running() is None
        assert server.lives()
        assert PrefectServer(tmp_path).start() == url
        assert json.loads((tmp_path / "prefect" / "server.json").read_text())["pid"] == pid
    finally:
        assert server.stop()
    assert not server.lives()
