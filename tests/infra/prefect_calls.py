"""Speak to an embedded Prefect server, which asks for a password and tokens; and serve what looks like one, or not."""

import base64
import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_HOME, temporary_settings

from infra.prefect_api.client import connected
from infra.prefect_api.server import PrefectServer

PAGE = "<!doctype html> <title>Prefect</title>"
PREFECT = {"/api/health": (200, "true"), "/api/admin/version": (200, '"3.7.7"'), "/health": (200, PAGE)}


def seed(home: Path) -> Path:
    """Give a home that is new the database of a server that has just started, and return it.

    A first server takes 7 s of CPU to make its tables; so that is done once for all tests.
    """
    folder, cache = home / "prefect", os.environ.get("RENEG_TEST_CACHE")
    if cache is None or folder.exists():
        return home
    made = Path(cache) / "prefect" / "prefect.db"
    made.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(made.with_suffix(".lock")):
        if not made.exists():
            first = PrefectServer(made.parent / "home")
            first.start()
            assert first.stop()
            with closing(sqlite3.connect(made.parent / "home" / "prefect" / "prefect.db")) as database:
                database.execute("VACUUM INTO ?", [str(made)])
    folder.mkdir(mode=0o700, parents=True)
    (folder / "prefect.db").touch(mode=0o600)
    shutil.copyfile(made, folder / "prefect.db")
    return home


@contextmanager
def embedded(home: Path) -> Iterator[str]:
    """Run the embedded server of a home, and point Prefect's client of this process at it; yields its address."""
    server = PrefectServer(seed(home))
    try:
        url = server.start()
        with connected(server.api(url)), temporary_settings({PREFECT_HOME: home / "client"}):
            yield url
    finally:
        server.stop()


def ask(method: Any, path: Any, body: Any = None) -> Any:
    """Ask the server at which Prefect's client points; returns the JSON of its reply, None for an empty one."""
    with get_client(sync_client=True) as client:
        reply = client.request(method, path, json=body)
        return reply.json() if reply.content else None


def password_of(home: Path) -> dict[str, str]:
    """Give the header by which the server of a home knows its user."""
    secret = PrefectServer(home).auth_string()
    return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}


def request(home: Path, url: str, method: str, path: str, body: Any = None, timeout: float = 20.0) -> httpx.Response:
    """Send one request to the server of a home, whichever process it runs in; returns the reply as it is."""
    headers, client = password_of(home), uuid.uuid4().hex
    if method != "GET":
        token = httpx.get(f"{url}/csrf-token?client={client}", headers=headers, timeout=timeout)
        if not token.is_success:
            return token
        headers |= {"Prefect-Csrf-Token": token.json()["token"], "Prefect-Csrf-Client": client}
    return httpx.request(method, f"{url}{path}", json=body, headers=headers, timeout=timeout)


@contextmanager
def serving(replies: Mapping[str, tuple[int, str]], password: str = "") -> Iterator[str]:
    """A server of a few paths, and with a password one that asks for it but for its health; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = replies.get(self.path, (404, "nothing here"))
            if password and not self.path.endswith("/health") and self.headers["Authorization"] != password:
                status, body = 401, '{"exception_message": "Unauthorized"}'
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
