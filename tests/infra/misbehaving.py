"""A real HTTP server on loopback that speaks the OpenAI interface and misbehaves on purpose.

Troubles come by a marker in a message (`[[429]]` always, `[[429*2]]` the first two times) or from a seeded mix, which
depends on the message and on how often it was asked, never on which thread came first. Every trouble served is counted.
"""

import base64
import hashlib
import json
import math
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PASSING = ("429", "500", "503", "hang", "reset", "bad_json", "empty", "no_choices")  # gone when asked again
LASTING = ("truncated", "refusal", "content_filter", "filtered", "garbage", "too_long", "null_content", "tool_calls",
           "bad_request", "quota", "forbidden", "unsupported")  # fmt: skip
FATES = ("completed", "failed", "expired", "cancelled", "missing", "doubled", "unknown", "no_output", "no_room",
         "unreadable", "lost_create")  # fmt: skip
STAGES = ("validating", "in_progress", "finalizing")
_MARKER = re.compile(r"\[\[(\w+)(?:\*(\d+))?\]\]")
_REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {
    "500": (500, {"message": "the server had an error", "code": None}),
    "503": (503, {"message": "overloaded", "code": None}),
    "429": (429, {"message": "Rate limit reached", "code": "rate_limit_exceeded"}),
    "content_filter": (400, {"message": "The response was filtered", "code": "content_filter"}),
    "too_long": (400, {"message": "This model's maximum context length is 8 tokens", "code": None}),
    "bad_request": (400, {"message": "something is odd about this one", "code": None}),
    "quota": (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
    "forbidden": (403, {"message": "not for you", "code": None}),
    "unsupported": (400, {"message": "Unsupported parameter: 'seed'", "code": "unsupported_parameter"}),
}
_BODIES = {"bad_json": b"<html>not what you asked for</html>", "empty": b""}

SECRET = "sk-proj-0123456789abcdef"
SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"enum": ["yes", "no"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}

Reply = Callable[[Mapping[str, Any]], tuple[str, Mapping[str, float]]]
# Status, content type and bytes that answer a chat or a request for vectors; None answers it as usual.
Raw = Callable[[Mapping[str, Any]], tuple[int, str, bytes] | None]


@dataclass(frozen=True)
class Call:
    """One HTTP request as it came."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Asked:
    """A request as the engines take it, known by its content."""

    content: str
    max_tokens: int = 1
    top: int = 5
    schema: Mapping[str, Any] | None = None

    @property
    def call_id(self) -> str:
        return f"id of {self.content}"

    @property
    def chat(self) -> Sequence[Mapping[str, str]]:
        return [{"role": "system", "content": "You judge."}, {"role": "user", "content": self.content}]


class MisbehavingServer:
    """A context manager; `url` is the base URL, `calls` what came, `counts` the troubles served, `paid` what was run.

    troubles: probability of each of PASSING and LASTING, and of FATES for batches not named in `fates`.
    key: the key that must be presented; the refusal of a wrong one repeats it. reply: (text, log-probabilities) of a
    body; the default answers Yes or No by the last message's hash, or fills the schema. hang: seconds. retry_after:
    headers of a 429. fates: what becomes of the batches, in the order of their creation. held: batches do not end.
    raw: answers with bytes of its own, counted as `raw`. dimension: of vectors. longest: characters of a text that it
    encodes; a request with a longer one is refused. embedded: the texts that were encoded, and how often.
    """

    def __init__(
        self,
        troubles: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
        key: str | None = None,
        reply: Reply | None = None,
        hang: float = 30.0,
        retry_after: Mapping[str, str] | None = None,
        fates: Sequence[str] = (),
        raw: Raw | None = None,
        dimension: int = 8,
        longest: int = 10**6,
    ) -> None:
        self.raw = raw
        self.dimension, self.longest, self.embedded = dimension, longest, Counter[str]()
        self.troubles, self.seed, self.key, self.hang = dict(troubles or {}), seed, key, hang
        unknown = set(self.troubles) - {*PASSING, *LASTING, *FATES}
        if unknown:
            raise ValueError(f"troubles: some of {PASSING}, {LASTING}, {FATES} expected, got {sorted(unknown)}")
        self.reply = reply or answer_by_hash
        self.retry_after = {"retry-after": "0"} if retry_after is None else dict(retry_after)
        self.fates = list(fates)
        self.held = False
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._asked: Counter[str] = Counter()
        self._fate: dict[str, str] = {}
        self._lock = threading.RLock()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_side": self}))

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def __enter__(self) -> "MisbehavingServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    # ---- chats ----

    def chat(self, body: Mapping[str, Any]) -> tuple[str, int, Any]:
        """Answer one chat: the trouble's name or nothing, the status, and the body."""
        content = body["messages"][-1].get("content", "")
        with self._lock:
            trouble = self._draw(content)
            self.counts[trouble or "answered"] += 1
            if trouble in (*_REFUSALS, *PASSING):
                status, error = _REFUSALS.get(trouble, (200, {}))
                return trouble, status, {"error": error} if error else {"choices": []}
            self.paid[content] += 1
        return trouble, 200, self._completion(body, content, trouble)

    def _draw(self, content: str) -> str:
        self._asked[content] += 1
        for kind, times in _MARKER.findall(content):
            if not times or self._asked[content] <= int(times):
                return str(kind)
        kinds = [*self._pick(PASSING, content, self._asked[content]), *self._pick(LASTING, content, 0)]
        return kinds[0] if kinds else ""

    def _pick(self, kinds: Sequence[str], content: str, attempt: int) -> list[str]:
        mix = {kind: self.troubles[kind] for kind in kinds if kind in self.troubles}
        drawn = random.Random(f"{self.seed} {attempt} {kinds[0]} {content}").random()
        for kind, share in mix.items():
            drawn -= share
            if drawn < 0:
                return [kind]
        return []

    def _completion(self, body: Mapping[str, Any], content: str, trouble: str) -> dict[str, Any]:
        text, logprobs = self.reply(body)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        finish = {"truncated": "length", "filtered": "content_filter", "tool_calls": "tool_calls"}.get(trouble, "stop")
        if trouble == "truncated":
            message["content"] = text[: len(text) // 2]
        elif trouble in ("refusal", "null_content"):
            message |= {"content": None, "refusal": "I cannot help with that" if trouble == "refusal" else None}
        elif trouble == "garbage":
            message["content"] = "\ufffd{[ nonsense"
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        if body.get("logprobs") and trouble not in ("refusal", "null_content", "garbage"):
            top = [{"token": token, "logprob": value} for token, value in logprobs.items()][: body["top_logprobs"]]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}] if top else []}
        usage = {
            "prompt_tokens": len(content) // 4 + 1,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": len(content) // 8},
        }
        return {"object": "chat.completion", "model": f"{body['model']}-dated", "system_fingerprint": "fp_1",
                "choices": [choice], "usage": usage}  # fmt: skip

    # ---- vectors ----

    def embed(self, body: Mapping[str, Any]) -> tuple[str, int, Any]:
        """Encode texts: the trouble's name or nothing, the status, and the body."""
        texts = body["input"]
        with self._lock:
            trouble = next(filter(None, map(self._draw, texts)), "")
            if not trouble and max(map(len, texts)) > self.longest:
                trouble = "too_long"
            self.counts[trouble or "answered"] += 1
            if trouble in (*_REFUSALS, *PASSING):
                status, error = _REFUSALS.get(trouble, (200, {}))
                return trouble, status, {"error": error} if error else {"data": []}
            self.embedded.update(texts)
        width = body.get("dimensions") or self.dimension
        data = [
            {"object": "embedding", "index": place, "embedding": as_asked(vector_of(text, width), body)}
            for place, text in enumerate(texts)
        ]
        tokens = sum(len(text) // 4 + 1 for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return trouble, 200, {"object": "list", "model": f"{body['model']}-dated", "data": data, "usage": usage}

    # ---- batches ----

    def add_file(self, text: str) -> dict[str, Any]:
        with self._lock:
            name = f"file-{len(self.files)}"
            self.files[name] = text
        return {"id": name, "object": "file", "status": "processed", "purpose": "batch"}

    def add_batch(self, fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Create a batch; gives its fate as well."""
        with self._lock:
            name = f"batch-{len(self.batches):04d}"
            drawn = self._pick(FATES, self.files[fields["input_file_id"]], len(self.batches))
            fate = self.fates.pop(0) if self.fates else (drawn or ["completed"])[0]
            self.counts[fate] += 1
            self._fate[name] = fate
            self.batches[name] = {
                "id": name,
                "object": "batch",
                "status": "validating",
                "created_at": int(time.time()),
                "input_file_id": fields["input_file_id"],
                "metadata": fields.get("metadata"),
                "endpoint": fields["endpoint"],
                "completion_window": fields["completion_window"],
                "output_file_id": None,
                "error_file_id": None,
                "errors": None,
            }
            return fate, dict(self.batches[name])

    def look_at(self, name: str) -> dict[str, Any]:
        """Give a batch's state; each look moves it one stage on, unless batches are held."""
        with self._lock:
            batch = self.batches[name]
            stages = [*STAGES, "cancelling"] if self._fate[name] == "cancelled" else STAGES
            if batch["status"] in stages and not (self.held and batch["status"] == "in_progress"):
                position = stages.index(batch["status"]) + 1
                if position < len(stages):
                    batch["status"] = stages[position]
                else:
                    self._end(batch, self._fate[name])
            return dict(batch)

    def list_batches(self, limit: int, after: str | None) -> dict[str, Any]:
        """Give a page of the batches, the newest first."""
        with self._lock:
            names = sorted(self.batches, reverse=True)
            start = names.index(after) + 1 if after else 0
            page = names[start : start + limit]
            data = [dict(self.batches[name]) for name in page]
        last = page[-1] if page else None
        return {"object": "list", "data": data, "last_id": last, "has_more": start + limit < len(names)}

    def _end(self, batch: dict[str, Any], fate: str) -> None:
        if fate in ("failed", "no_room"):
            code = "token_limit_exceeded" if fate == "no_room" else "invalid_json_line"
            batch |= {"status": "failed", "errors": {"data": [{"code": code, "message": f"told to fail: {fate}"}]}}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        run = lines[: len(lines) // 2] if fate in ("expired", "cancelled") else lines
        rows = [row for line in run if (row := self._row(line)) is not None]
        random.Random(self.seed).shuffle(rows)
        done = [row for row in rows if row["response"]["status_code"] == 200]
        bad = [row for row in rows if row["response"]["status_code"] != 200]
        if fate == "missing":
            done = [row for number, row in enumerate(done) if number % 3]
        elif fate == "doubled":
            done += done
        elif fate == "unknown":
            done += [{**row, "custom_id": f"unknown-{number}"} for number, row in enumerate(done[:2])]
        elif fate == "expired":
            error = {"code": "batch_expired", "message": "not executed in time"}
            bad += [{"custom_id": line["custom_id"], "response": None, "error": error} for line in lines[len(run) :]]
        output = "".join(json.dumps(row) + "\n" for row in done) + ('{"custom_id": "x\n' * (fate == "unreadable"))
        batch["status"] = fate if fate in ("expired", "cancelled") else "completed"
        if output and fate != "no_output":
            batch["output_file_id"] = self.add_file(output)["id"]
        if bad and fate != "no_output":
            batch["error_file_id"] = self.add_file("".join(json.dumps(row) + "\n" for row in bad))["id"]

    def _row(self, line: Mapping[str, Any]) -> dict[str, Any] | None:
        trouble, status, body = self.chat(line["body"])
        if trouble in ("hang", "reset"):
            return None
        response = {"status_code": status, "body": _BODIES.get(trouble, b"").decode() if trouble in _BODIES else body}
        return {"id": "row", "custom_id": line["custom_id"], "response": response, "error": None}


def as_json(body: Any, status: int = 200) -> tuple[int, str, bytes]:
    """Make raw bytes of a JSON value."""
    return status, "application/json", json.dumps(body).encode()


def vector_of(text: str, width: int) -> list[float]:
    """Count the words of a text by their hashes: texts that share words are near each other."""
    numbers = [0.5] + [0.0] * (width - 1)
    for word in re.findall(r"\w+", text.lower()):
        numbers[int(hashlib.md5(word.encode()).hexdigest(), 16) % width] += 1
    return numbers


def as_asked(vector: Sequence[float], body: Mapping[str, Any]) -> Any:
    """Write a vector in the encoding that was asked for."""
    if body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return list(vector)


def answer_by_hash(body: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """Answer Yes or No, by the last message's hash; or fill the schema that is asked for."""
    content = body["messages"][-1].get("content", "")
    draw = random.Random(content)
    yes = 0.02 + 0.96 * int(hashlib.sha256(content.encode()).hexdigest()[:8], 16) / 2**32
    likely = {"Yes": math.log(yes * 0.98), "No": math.log((1 - yes) * 0.98), "Maybe": math.log(0.02)}
    ordered = dict(sorted(likely.items(), key=lambda item: -item[1]))
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    return (next(iter(ordered)) if schema is None else json.dumps(fill(schema, draw))), ordered


def fill(schema: Mapping[str, Any], draw: random.Random) -> Any:
    """Make a value that obeys a JSON schema."""
    if "enum" in schema:
        return draw.choice(list(schema["enum"]))
    if "const" in schema:
        return schema["const"]
    if schema.get("type") == "object":
        return {name: fill(part, draw) for name, part in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [fill(schema["items"], draw) for _ in range(schema.get("minItems", 1))]
    return {"integer": 1, "number": 0.5, "boolean": True}.get(str(schema.get("type")), "text")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: Any) -> None:
        """A client that goes away in the middle is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_side: MisbehavingServer

    def do_GET(self) -> None:
        path, query = self._note(None)
        if not self._allowed():
            return
        if path.endswith("/batches"):
            after = query.get("after", [None])[0]
            self._send(200, self.server_side.list_batches(int(query.get("limit", ["20"])[0]), after))
        elif "/batches/" in path:
            self._send(200, self.server_side.look_at(path.rpartition("/")[2]))
        elif path.endswith("/content") and path.split("/")[-2] in self.server_side.files:
            self._write(200, self.server_side.files[path.split("/")[-2]].encode(), {})
        else:
            self._send(404, {"error": {"message": f"no such path {path}"}})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        multipart = "multipart" in self.headers.get("content-type", "")
        body: Any = data if multipart else json.loads(data)
        path, _ = self._note(body)
        if not self._allowed():
            return
        if path.endswith(("/chat/completions", "/embeddings")):
            self._answer(body, self.server_side.embed if path.endswith("/embeddings") else self.server_side.chat)
        elif path.endswith("/files"):
            self._send(200, self.server_side.add_file(_uploaded(data)))
        elif path.endswith("/batches"):
            fate, batch = self.server_side.add_batch(body)
            self._reset() if fate == "lost_create" else self._send(200, batch)
        else:
            self._send(404, {"error": {"message": f"no such path {path}"}})

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _note(self, body: Any) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server_side.calls.append(Call(self.command, parts.path, query, headers, body))
        return parts.path, query

    def _allowed(self) -> bool:
        """Refuse a wrong path or key; the refusal of a key repeats it, as some servers do."""
        if not self.path.startswith(("/v1/", "/openai/")):
            self._send(404, {"error": {"message": f"no such path {self.path}"}})
            return False
        given = self.headers.get("api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
        if self.server_side.key in (None, given):
            return True
        self._send(401, {"error": {"message": f"Incorrect API key provided: {given}", "code": "invalid_api_key"}})
        return False

    def _answer(self, body: Mapping[str, Any], answer_to: Callable[[Any], tuple[str, int, Any]]) -> None:
        raw = self.server_side.raw(body) if self.server_side.raw else None
        if raw is not None:
            self.server_side.counts["raw"] += 1
            self._write(raw[0], raw[2], {"content-type": raw[1]})
            return
        trouble, status, answer = answer_to(body)
        if trouble == "hang":
            self.server_side.closing.wait(self.server_side.hang)
            self.close_connection = True
        elif trouble == "reset":
            self._reset()
        elif trouble in _BODIES:
            self._write(200, _BODIES[trouble], {})
        else:
            self._send(status, answer, self.server_side.retry_after if trouble == "429" else {})

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        self._write(status, json.dumps(body).encode(), headers or {})

    def _write(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _uploaded(data: bytes) -> str:
    """Take the file out of a form: the part that names one."""
    boundary = data.partition(b"\r\n")[0]
    part = next(part for part in data.split(boundary) if b"filename=" in part)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n").decode()
