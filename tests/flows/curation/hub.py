"""A hub on loopback: answers what the library of the hub asks about one data set, and for the commit of a model."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import HfFileSystem

COMMITS = {"main": "a" * 40, "v1": "b" * 40, "a" * 40: "a" * 40, "b" * 40: "b" * 40}


class Hub(ThreadingHTTPServer):
    """Serves one data set, whose files are the same in every revision: those of `COMMITS`, or the one that is given."""

    def __init__(self, files: dict[str, bytes], name: str = "owner/name", revision: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files = files
        self.name = name
        self.commits = {revision: revision} if revision else COMMITS
        self.asked: list[str] = []
        self.model_commit = "c" * 40  # of `owner/model`

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str) -> tuple[bytes, str] | None:
        """Return the body of an answer and the commit; None if there is nothing."""
        parts = unquote(path).strip("/").split("/")
        if parts == ["api", "models", "owner", "model"]:
            facts = {"id": "owner/model", "sha": self.model_commit, "private": False, "tags": [], "siblings": []}
            return json.dumps(facts).encode(), self.model_commit
        named = ["datasets", *self.name.split("/")]
        if parts[:4] == ["api", *named]:
            kind, revision, below = (*parts[4:6], "/".join(parts[6:])) if len(parts) > 5 else ("revision", "main", "")
            if revision not in self.commits:
                return None
            if kind == "revision":
                commit = self.commits[revision]
                facts = {"id": self.name, "sha": commit, "private": False, "tags": [], "siblings": []}
                return json.dumps(facts).encode(), commit
            folders = {name.rpartition("/")[0] for name in self.files if "/" in name and name.startswith(below)}
            tree: list[dict[str, object]] = [
                {"type": "directory", "oid": name, "size": 0, "path": name} for name in folders - {below}
            ]
            tree += [
                {"type": "file", "oid": name, "size": len(data), "path": name}
                for name, data in self.files.items()
                if name.startswith(below)
            ]
            return json.dumps(tree).encode(), self.commits[revision]
        if parts[:4] == [*named, "resolve"] and parts[4] in self.commits:
            data = self.files.get("/".join(parts[5:]))
            return None if data is None else (data, self.commits[parts[4]])
        return None


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(path)
        found = self.server.answer(path)
        body, commit = found or (b"{}", "")
        self.send_response(200 if found else 404)
        if found is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"etag"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@contextmanager
def serving(files: dict[str, bytes], name: str = "owner/name", revision: str = "") -> Iterator[Hub]:
    """Serve a data set while the block runs."""
    hub = Hub(files, name, revision)
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def ask_hub(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let the library of the hub ask this address."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    HfFileSystem.clear_instance_cache()
