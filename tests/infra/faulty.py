"""A small HTTP proxy on loopback that spoils requests to a real S3 server, by a seeded plan.

It passes everything through unchanged, the Host header too, which the client's signature covers.
"""

import asyncio
import hashlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

KINDS = (
    "500",
    "503",
    "slow",  # answers late
    "reset before",  # the connection breaks before the request reached the server
    "reset after",  # the server has done it, and the answer is lost
    "cut answer",  # the body of the answer ends in the middle
    "cut upload",  # the server sees the beginning of a body only
    "error in 200",  # for copies and multipart uploads: the status says yes, the body says no
)
_CODES = {"500": "InternalError", "503": "SlowDown"}


@dataclass
class Plan:
    """What goes wrong: a share of the requests by a seed, and single requests that a test names."""

    seed: int = 0
    rate: float = 0.0
    kinds: tuple[str, ...] = KINDS
    injected: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    _next: list[tuple[str, str, str]] = field(default_factory=list)
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def once(self, kind: str, method: str, part: str = "") -> None:
        """Spoil the next request of this method whose path holds `part`."""
        with self._lock:
            self._next.append((kind, method, part))

    def choose(self, method: str, target: str, headers: Mapping[str, str]) -> str:
        """Name what happens to a request; the empty string is nothing."""
        with self._lock:
            self.requests[method] += 1
            self._number += 1
            kind = self._named(method, target)
            if not kind:
                digest = hashlib.sha256(f"{self.seed}/{self._number}".encode()).digest()
                drawn = int.from_bytes(digest[:4], "big") / 2**32
                kind = self.kinds[digest[5] % len(self.kinds)] if drawn < self.rate else ""
            if not _fits(kind, method, target, headers):
                return ""
            self.injected[kind] += 1
            return kind

    def _named(self, method: str, target: str) -> str:
        for wanted in self._next:
            if wanted[1] == method and wanted[2] in target:
                self._next.remove(wanted)
                return wanted[0]
        return ""


def _fits(kind: str, method: str, target: str, headers: Mapping[str, str]) -> bool:
    if kind == "cut answer":
        return method == "GET"
    if kind == "cut upload":
        return int(headers.get("content-length", 0)) > 1
    if kind == "error in 200":
        return "x-amz-copy-source" in headers or (method == "POST" and "uploadId=" in target)
    return bool(kind)


class FaultyProxy:
    """Runs in a thread of its own between a client and `upstream` (an http address)."""

    def __init__(self, upstream: str, plan: Plan) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self.plan = plan
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20), self._loop
        ).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Handle one request; tells whether the connection lives on."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, headers = _parse(head)
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        kind = self.plan.choose(method, target, headers)
        if kind == "reset before":
            return _reset(writer)
        if kind in _CODES:
            writer.write(_failure(kind, method))
            await writer.drain()
            return True
        if kind == "slow":
            await asyncio.sleep(0.05 + (self.plan._number % 10) * 0.05)
        answer = await self._forward(_without(head, b"expect"), body, cut=kind == "cut upload")
        if kind in ("reset after", "cut upload"):
            return _reset(writer)
        if kind == "error in 200":
            answer = _failure("200", method)
        if kind == "cut answer":
            start = answer.index(b"\r\n\r\n") + 4
            writer.write(answer[: start + (len(answer) - start) // 2])
            await writer.drain()
            return False
        writer.write(answer)
        await writer.drain()
        return True

    async def _forward(self, head: bytes, body: bytes, *, cut: bool) -> bytes:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(head[:-2] + b"Connection: close\r\n\r\n")
            writer.write(body[: len(body) // 2] if cut else body)
            await writer.drain()
            if cut:
                await asyncio.sleep(0.02)
                _reset(writer)
                return b""
            return _without(await reader.read(), b"connection")
        finally:
            writer.close()


def _parse(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines if line)
    return method, target, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _without(message: bytes, name: bytes) -> bytes:
    """Leave one header out of a message."""
    head, mark, body = message.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(name + b":")]
    return b"\r\n".join(lines) + mark + body


def _failure(status: str, method: str) -> bytes:
    code = _CODES.get(status, "InternalError")
    body = b"" if method == "HEAD" else f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    return f"HTTP/1.1 {status} Injected\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Break the connection: the other side sees a reset, not an end."""
    broken: socket.socket = writer.get_extra_info("socket")
    broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


@contextmanager
def faulty(upstream: str, **plan: object) -> Iterator[FaultyProxy]:
    """Put a proxy before a server for the duration of a test."""
    proxy = FaultyProxy(upstream, Plan(**plan))  # type: ignore[arg-type]
    try:
        yield proxy
    finally:
        proxy.close()
