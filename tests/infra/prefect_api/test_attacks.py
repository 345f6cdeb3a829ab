"""What a web page in the user's browser, or another user of the machine, tries on the running embedded server."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from infra.prefect_api.client import connected
from infra.prefect_api.server import PrefectServer
from tests.conftest import ROOT
from tests.infra.prefect_calls import password_of, request

pytestmark = pytest.mark.slow
EVIL = {"Origin": "https://evil.example"}
REBOUND = {"Host": "evil.example", "Origin": "http://evil.example"}  # its name now means 127.0.0.1 (DNS rebinding)
# The environment in which the server is started; `?`, `#`, `%` and a blank stand in the name of its home.
OF_OTHERS = {
    "PREFECT_SERVER_API_AUTH_STRING": "admin:pass",
    "PREFECT_SERVER_API_BASE_PATH": "/elsewhere",
    "PREFECT_API_KEY": "pnu_of_another",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "all_proxy": "http://127.0.0.1:9",
}
START = """
import sys
from pathlib import Path
from infra.settings import bypass_proxies
bypass_proxies()
from infra.prefect_api.server import PrefectServer
print(PrefectServer(Path(sys.argv[1])).start(keep=True))
"""


@dataclass(frozen=True)
class Victim:
    """A running server with a secret block, started by another process as `reneg ui` does."""

    home: Path
    url: str


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    home = tmp_path_factory.mktemp("users") / "a?b#c%20d e"
    folder = tmp_path_factory.mktemp("project")  # of another Prefect project
    (folder / "prefect.toml").write_text('[server.api]\nbase_path = "/elsewhere"\nauth_string = "admin:pass"\n')
    (folder / ".env").write_text("PREFECT_SERVER_API_AUTH_STRING=admin:pass\n")
    environment = {**os.environ, **OF_OTHERS, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", START, str(home)]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=180)
    url, server = done.stdout.strip(), PrefectServer(home)
    try:
        with connected(server.api(url)):
            Secret(value="https://hooks.example/planted-secret").save("webhook")
        yield Victim(home, url)
    finally:
        server.stop(ui=True)


def refused(victim: Victim, method: str, path: str, headers: Mapping[str, str], body: Any = None) -> bool:
    """Send a request as somebody without the password; whether it was refused, and no page may read the reply."""
    reply = httpx.request(method, victim.url + path, headers=headers, json=body, timeout=20)
    assert "access-control-allow-origin" not in reply.headers
    return reply.status_code in (401, 403)


@pytest.mark.parametrize("headers", [{}, EVIL, REBOUND], ids=["local user", "web page", "rebound page"])
def test_nobody_without_the_password_reads_or_changes_anything(victim: Victim, headers: dict[str, str]) -> None:
    deployment = {"name": "evil", "flow_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "pull_steps": [{"shell": "id"}]}
    changes = {
        "/flows/": {"name": "evil"},
        "/deployments/": deployment,
        "/flow_runs/": {"flow_id": deployment["flow_id"]},
        "/block_documents/filter": {"include_secrets": True},
        "/variables/": {"name": "evil", "value": 1},
        "/events": [],
    }
    assert [path for path, body in changes.items() if not refused(victim, "POST", path, headers, body)] == []
    reads = ("/admin/version", "/admin/settings", "/version", "/docs", "/openapi.json", "/csrf-token?client=evil")
    assert [path for path in reads if not refused(victim, "GET", path, headers)] == []
    assert refused(victim, "DELETE", "/flows/" + deployment["flow_id"], headers)
    # A wrong password and an invented token do not help either.
    wrong = {**headers, "Authorization": "Basic YWRtaW46cGFzcw=="}
    assert refused(victim, "POST", "/block_documents/filter", wrong, {"include_secrets": True})
    with_token = {**wrong, "Prefect-Csrf-Token": "x", "Prefect-Csrf-Client": "x"}
    assert httpx.post(f"{victim.url}/flows/", headers=with_token, json={"name": "evil"}).status_code == 403


def test_a_web_page_gets_no_leave_to_send_and_the_servers_own_pages_do(victim: Victim) -> None:
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}
    for path in ("/deployments/", "/flow_runs/", "/block_documents/filter"):
        reply = httpx.options(victim.url + path, headers={**EVIL, **wanted})
        assert (reply.status_code, reply.text) == (400, "Disallowed CORS origin")
        assert "access-control-allow-origin" not in reply.headers
    own = victim.url.removesuffix("/api")
    for origin in (own, own.replace("127.0.0.1", "localhost")):
        assert httpx.options(f"{victim.url}/flows/", headers={"Origin": origin, **wanted}).status_code == 200


def test_with_the_password_a_change_also_needs_a_token(victim: Victim) -> None:
    body = {"include_secrets": True}
    without = httpx.post(f"{victim.url}/block_documents/filter", headers=password_of(victim.home), json=body)
    assert (without.status_code, without.json()) == (403, {"detail": "Missing CSRF token."})
    reply = request(victim.home, victim.url, "POST", "/block_documents/filter", body)
    assert "planted-secret" in reply.text
    with connected(PrefectServer(victim.home).api(victim.url)), get_client(sync_client=True) as client:
        assert client.create_flow_from_name("allowed")


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled"])
def test_a_websocket_without_the_password_is_closed(victim: Victim, path: str) -> None:
    async def first_reply(token: str | None) -> Any:
        address = f"{victim.url.replace('http', 'ws', 1)}/{path}"
        async with connect(address, subprotocols=["prefect"], proxy=None) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "auth", "token": token}))
            return json.loads(await socket.recv())

    for token in (None, "", "admin:pass"):
        with pytest.raises(ConnectionClosed) as closed:
            asyncio.run(first_reply(token))
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    assert asyncio.run(first_reply(PrefectServer(victim.home).auth_string())) == {"type": "auth_success"}


def test_an_older_websocket_client_without_the_handshake_is_refused(victim: Victim) -> None:
    async def open_() -> None:
        async with connect(f"{victim.url.replace('http', 'ws', 1)}/events/out", proxy=None) as socket:
            await socket.recv()

    with pytest.raises(Exception, match=r"HTTP 403|1002"):
        asyncio.run(open_())


def test_without_the_password_only_the_empty_pages_and_the_health_are_served(victim: Victim) -> None:
    pages = victim.url.removesuffix("/api")
    settings = httpx.get(f"{pages}/ui-settings").json()
    assert (settings["auth"], settings["csrf_enabled"], settings["api_url"]) == ("BASIC", True, "/api")
    assert httpx.get(f"{victim.url}/health").json() is True
    secret = PrefectServer(victim.home).auth_string()
    for path in ("/", "/login", "/ui-settings", "/openapi.json"):
        assert secret not in httpx.get(pages + path, timeout=60).text


def test_the_home_and_all_in_it_is_private_and_the_database_lies_there(victim: Victim) -> None:
    assert oct(victim.home.stat().st_mode)[-3:] == oct((victim.home / "prefect").stat().st_mode)[-3:] == "700"
    files = [path for path in (victim.home / "prefect").iterdir() if path.is_file()]
    assert {"prefect.db", "server.log", "server.json", "auth-string"} <= {path.name for path in files}
    assert {oct(path.stat().st_mode)[-3:] for path in files} == {"600"}
    assert [path.name for path in victim.home.parent.iterdir()] == [victim.home.name]
    with sqlite3.connect(f"file:{(victim.home / 'prefect').as_uri()[7:]}/prefect.db?mode=ro", uri=True) as database:
        assert database.execute("select count(*) from block_document").fetchone()[0] >= 1
    secret = PrefectServer(victim.home).auth_string().encode()
    assert [path.name for path in files if secret in path.read_bytes()] == ["auth-string"]
