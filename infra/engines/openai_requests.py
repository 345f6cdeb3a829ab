"""What is sent to an OpenAI-compatible endpoint, and what its responses mean, one at a time or from a batch's files."""

import html
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import openai

from infra.engines.answers import (
    ERROR,
    REFUSED,
    TOO_LONG,
    UNAVAILABLE,
    Answer,
    EndpointError,
    Request,
    first_logprobs,
)
from infra.engines.rate_limit import wait_asked
from infra.engines.refusals import names_a_field
from infra.engines.specs import OpenAISpec
from infra.redact import redact

_MOST_LOGPROBS = 20  # what the interface allows
_CHARACTERS_PER_TOKEN = 4
_TEXT_LENGTH = 300
_MIB = 2**20
_MOST_BYTES = 8 * _MIB  # of a reply, unpacked
_LARGER = {"content": 512 * _MIB, "embeddings": 64 * _MIB}  # a batch's answers, vectors; by the end of the path

_OK, _REDIRECT, _BAD_REQUEST, _FORBIDDEN, _TOO_LARGE, _UNPROCESSABLE, _BUSY, _SERVER = (
    200, 300, 400, 403, 413, 422, 429, 500,
)  # fmt: skip
_NOT_ALLOWED = frozenset({401, 402, _FORBIDDEN, 404, 405})
_MAY_PASS = frozenset({408, 409, 425, _BUSY})
_FATAL_CODES = frozenset({"model_not_found", "unsupported_parameter", "unsupported_value", "unknown_parameter"})
_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
# Not every compatible server sends a code, so the words of the message are searched too.
_SPENT = re.compile(r"\b(?:per|this|a)[-_ ](?:day|month)\b|\bdaily\b|\bmonthly\b", re.I)
_FILTERED = re.compile(
    r"content_filter|content_policy|invalid_prompt|content management policy|moderation|flagged", re.I
)
_LENGTHY = re.compile(
    r"context_length|string_above_max_length|maximum context length|context window|(prompt|input) is too long"
    r"|\b(?:prompt|input|context)\b.{0,80}\bexceed.{0,60}(?:context|tokens?\b|length)"
    r"|\binputs?\b.{0,3} tokens \+|reduce the length of|max_tokens must be at least 1, got -",
    re.I,
)
# The status that an error in a body of status 200 stands for, where its code is a word.
_BY_WORD = (
    (_BUSY, re.compile(r"rate_?limit|too_?many|exhausted|quota", re.I)),
    (401, re.compile(r"authentication|api_?key|unauthori[sz]ed", re.I)),
    (_FORBIDDEN, re.compile(r"permission|forbidden", re.I)),
    (404, re.compile(r"not_?found", re.I)),
    (_BAD_REQUEST, re.compile(r"invalid|bad_?request|badrequest|validation|unsupported|unprocessable|extra_", re.I)),
    (503, re.compile(r"overloaded|unavailable|server_?error|internal|timeout", re.I)),
)
_ENDED = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "complete", "completed"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_length", "model_length", "token_limit"), "length"),
    **dict.fromkeys(("content_filter", "safety", "refusal", "recitation", "blocklist", "prohibited_content"), REFUSED),
}  # `finish_reason` in lower case
_PAGE = re.compile(r"\s*<(?:!doctype\s+html|html|head|body)\b", re.I)
_TITLE = re.compile(r"<(title|h1)[^>]{0,200}>(.{1,500}?)</\1", re.I | re.S)
_PAGE_START = 20_000  # characters of a page in which its title is sought
# A validator repeats what was sent, and OpenAI says "Invalid 'input': maximum …".
_ECHO = re.compile(
    r"""['"]?\binput(?:_value)?['"]?\s*[:=](?:(?<!nvalid ['"]input['"]:)|\s*['"\[{]).*""", re.S
)  # fmt: skip
_NAMES_OF_WORDS = ("message", "msg", "detail", "error", "errors", "error_message", "reason", "title")
_MOST_TOKENS = 2**31
_DEPTH = 6  # objects in which an error's words are sought


class TooLarge(openai.OpenAIError):
    """A reply has more bytes than any answer; the client passes its own kind of errors on as they are."""


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """A client that reads no more of a reply than `_MOST_BYTES`, unpacked."""

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:  # noqa: ANN401 - as the client's own
        """Send a request and read its reply; the body is there when this returns.

        Raises:
            TooLarge: the body is larger than any answer.
        """
        response = await super().send(request, stream=True, **options)
        most = _LARGER.get(request.url.path.rpartition("/")[2], _MOST_BYTES)
        body = bytearray()
        try:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > most:
                    raise TooLarge(f"a reply of at most {most // _MIB} MiB expected, more came")
        finally:
            await response.aclose()
        packing = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in packing]
        return type(response)(
            response.status_code,
            headers=headers,
            content=bytes(body),
            request=request,
            extensions=response.extensions,
        )


@dataclass(frozen=True)
class Reply:
    """An HTTP response: its status, headers by lower-case name, and text."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trouble:
    """Why a request has no answer.

    kind: `429`, `timeout`, `connection`, `body`, `refused`, …; failures are counted by it. text: the endpoint's words.
    passing: another try may succeed. fatal: every other request would fail too. wait: seconds the endpoint asks us to
    wait; None where it asks for none. codes: of the endpoint's error.
    """

    kind: str
    text: str = ""
    passing: bool = False
    fatal: bool = False
    wait: float | None = None
    codes: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def concerns_all(self) -> bool:
        """Whether equal ones in a row tell of a fault of every request: not an outage, and not this text's length."""
        return self.kind not in (REFUSED, TOO_LONG) and not (self.passing and self.kind.isdigit())

    def __str__(self) -> str:
        reason = f"status {self.kind}" if self.kind.isdigit() else self.kind
        return f"{reason}: {self.text}" if self.text else reason

    def as_answer(self) -> Answer:
        """Return an answer with the reason; of a passing trouble only its kind, so that equal ones are counted."""
        if self.kind in (REFUSED, TOO_LONG):
            return Answer(finish_reason=self.kind)
        if self.passing:
            return Answer(finish_reason=UNAVAILABLE + str(Trouble(self.kind)))
        return Answer(finish_reason=ERROR + str(self))


def request_body(spec: OpenAISpec, request: Request) -> dict[str, Any]:
    """Build the body of one chat completion.

    Raises:
        EndpointError: the chat ends with the beginning of the answer, and the spec does not say how to go on with it.
    """
    messages: list[dict[str, Any]] = [dict(message) for message in request.chat]
    body: dict[str, Any] = {"model": spec.model, "messages": messages, spec.max_tokens_field: request.max_tokens}
    if messages and messages[-1]["role"] == "assistant":
        if spec.continues == "never":
            raise EndpointError("the prompt begins the answer; set the engine's `continues`, or take another prompt")
        if spec.continues == "prefix":
            messages[-1]["prefix"] = True
        elif spec.continues == "vllm":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    if spec.temperature is not None:
        body["temperature"] = spec.temperature
    if spec.seed is not None:
        body["seed"] = spec.seed
    if request.top > 0:
        body |= {"logprobs": True, "top_logprobs": min(request.top, _MOST_LOGPROBS)}
    if request.schema is not None and spec.structured == "json_schema":
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.schema is not None and spec.structured == "json_object":
        body["response_format"] = {"type": "json_object"}
    return body | spec.extra_body


def serialise(body: Mapping[str, Any]) -> str | Trouble:
    """Write a body as JSON, or return why it cannot be sent, such as a text with half a surrogate pair."""
    try:
        text = json.dumps(body, ensure_ascii=False, sort_keys=True)
        text.encode()
    except (TypeError, ValueError) as error:
        return Trouble("request", f"cannot be written as JSON: {type(error).__name__}")
    return text


def estimate_tokens(request: Request) -> int:
    """Estimate how much of the limit of tokens per minute a request will use."""
    characters = sum(len(message.get("content", "")) for message in request.chat)
    return characters // _CHARACTERS_PER_TOKEN + request.max_tokens


def read_completion(reply: Reply) -> Answer | Trouble:
    """Turn the response to a chat completion into its answer."""
    body = read_object(reply)
    if isinstance(body, Trouble):
        return body
    try:
        choice = body["choices"][0]
        message = choice["message"]
        usage = body.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        answer = Answer(
            text="" + (message.get("content") or ""),
            logprobs=first_logprobs(choice),
            finish_reason=_finish_reason(choice, message),
            prompt_tokens=tokens_in(usage.get("prompt_tokens")),
            cached_tokens=tokens_in(details.get("cached_tokens")),
            output_tokens=tokens_in(usage.get("completion_tokens")),
            fingerprint=_cut(f"{body.get('model') or ''} {body.get('system_fingerprint') or ''}"),
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        missing = "its choices are empty" if body.get("choices") == [] else type(error).__name__
        return Trouble("body", f"no chat completion: {missing}", passing=True)
    return answer


def tokens_in(said: Any) -> int:  # noqa: ANN401 - any JSON
    """Return a number of tokens; 0, as for one that is not given, for a number that no request can have used.

    Raises:
        TypeError, ValueError, OverflowError: it is no number.
    """
    count = int(said or 0)
    return count if 0 <= count <= _MOST_TOKENS else 0


def read_object(reply: Reply) -> dict[str, Any] | Trouble:
    """Return the JSON object of a reply, or why there is none. An event stream that is complete is put together."""
    trouble = read_status(reply)
    if trouble is not None:
        return trouble
    body = _parse(reply.text)
    if body is None and reply.text.lstrip().startswith(("data:", "event:", "id:", ":")):
        body = _of_stream(reply.text)
        if body is None:
            return Trouble("body", "a JSON object expected, an event stream that ends early came", passing=True)
    if not isinstance(body, dict):
        page = _page(reply)
        came = f"{page} came; is base_url right?" if page else f"got {_cut(reply.text) or 'nothing'}"
        return Trouble("body", f"a JSON object expected, {came}", passing=True)
    error = _error_in(body)
    if error is None:
        return body
    status = _status_of(error)
    said = Reply(status or _BAD_REQUEST, json.dumps({"error": error}), reply.headers)
    return (read_status(said) if status else None) or Trouble("error", _error_of(said)[1], passing=True)


def read_status(reply: Reply) -> Trouble | None:
    """Return what an HTTP status means for this request and for later ones; None where it is a success."""
    status = reply.status
    if _OK <= status < _REDIRECT:
        return None
    codes, text = _error_of(reply)
    said = " ".join([*sorted(codes), text])
    if status in (_BAD_REQUEST, _FORBIDDEN, _UNPROCESSABLE) and _FILTERED.search(said):
        return Trouble(REFUSED, text)
    if status == _TOO_LARGE or (status in (_BAD_REQUEST, _UNPROCESSABLE) and _LENGTHY.search(said)):
        return Trouble(TOO_LONG, text)
    wait = wait_asked(reply.headers)
    if (
        status < _BAD_REQUEST
        or status in _NOT_ALLOWED
        or codes & _FATAL_CODES
        or (status in (_BAD_REQUEST, _UNPROCESSABLE) and names_a_field(said))
        or (status == _BUSY and (codes & _NO_QUOTA or (wait is None and _SPENT.search(said))))
    ):
        return Trouble(str(status), text, fatal=True, codes=codes)
    if status in _MAY_PASS or status >= _SERVER:
        return Trouble(str(status), text, passing=True, wait=wait, codes=codes)
    return Trouble(str(status), text, codes=codes)


def _of_stream(text: str) -> dict[str, Any] | None:
    """Put the events of a stream together as one completion; None where the stream is no completion or not complete."""
    lines = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("data:")]
    events = [_parse(line) for line in lines if line and line != "[DONE]"]
    if not events or not all(isinstance(event, dict) for event in events):
        return None
    choices = [event["choices"][0] for event in events if isinstance(event.get("choices"), list) and event["choices"]]
    failed = next((event for event in events if _error_in(event)), None)
    if failed is not None or not all(isinstance(choice, dict) for choice in choices):
        return failed
    whole = next((event for event in events if _is_whole(event)), None)
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    if whole is not None or not (reasons or "[DONE]" in lines):
        return whole
    deltas = [choice.get("delta") or {} for choice in choices]
    logprobs = [token for choice in choices for token in (choice.get("logprobs") or {}).get("content") or []]
    message = {name: "".join(d[name] for d in deltas if d.get(name)) or None for name in ("content", "refusal")}
    choice = {"message": message, "finish_reason": reasons[-1] if reasons else None, "logprobs": {"content": logprobs}}
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    return {**events[0], "choices": [choice], "usage": usage}


def _is_whole(event: Mapping[str, Any]) -> bool:
    choices = event.get("choices")
    return bool(choices) and isinstance(choices[0], dict) and "message" in choices[0]  # type: ignore[index]


def _error_in(body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    """Return the error that a body of status 200 holds; None where it holds none."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    for error in (body.get("error"), first.get("error")):
        if error:
            return error
    is_error = body.get("object") == "error" or ("detail" in body and "choices" not in body)
    return dict(body) if is_error else None


def _status_of(error: Any) -> int:  # noqa: ANN401 - any JSON
    """Return the HTTP status that an error of status 200 stands for, by its code; 0 where its code says none."""
    if not isinstance(error, dict):
        return 0
    codes = [str(error.get(name)) for name in ("code", "status", "type") if error.get(name)]
    codes += [str(item["type"]) for item in _items(error.get("detail")) if item.get("type")]
    for code in codes:
        if re.fullmatch(r"[3-5]\d\d", code):
            return int(code)
    return next((status for code in codes for status, word in _BY_WORD if word.search(code)), 0)


def _items(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _page(reply: Reply) -> str:
    """Name the web page that came in place of JSON, with its title; empty where none came."""
    if not _PAGE.match(reply.text) and "text/html" not in reply.headers.get("content-type", ""):
        return ""
    title = _TITLE.search(reply.text[:_PAGE_START])
    return f'text/html ("{_cut(html.unescape(title.group(2)))}")' if title else "text/html"


def _finish_reason(choice: Mapping[str, Any], message: Mapping[str, Any]) -> str:
    """Return how an answer ended; one that does not say so counts as ended, as a reader notices a missing end."""
    given = choice.get("finish_reason")
    reason = "stop" if given is None else _ENDED.get(str(given).lower(), f"{ERROR}finish_reason {_cut(str(given))}")
    if message.get("refusal"):
        return REFUSED
    return f"{ERROR}no content" if reason == "stop" and message.get("content") is None else reason


def _error_of(reply: Reply) -> tuple[frozenset[str], str]:
    """Read an error's codes and its words, in the form that OpenAI gives them or in any other."""
    body = _parse(reply.text)
    error = (body.get("error") or body) if isinstance(body, dict) else body
    words = _cut(_ECHO.sub("", _words(error)) or _page(reply) or reply.text)
    if not isinstance(error, dict):
        return frozenset(), words
    inner = error.get("innererror")
    codes = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    return frozenset(str(code) for code in codes if code), words


def _words(said: Any, depth: int = _DEPTH) -> str:  # noqa: ANN401 - any JSON
    """Return an error's words: a text, an object with a message, or a list of refused fields as FastAPI writes it.

    >>> _words({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "not permitted", "input": 1}]})
    'extra_forbidden: seed: not permitted'
    """
    if isinstance(said, str) or not depth:
        return said if isinstance(said, str) else ""
    if isinstance(said, list):
        return "; ".join(filter(None, (_words(item, depth - 1) for item in said[:3])))
    if not isinstance(said, dict):
        return ""
    words = next(filter(None, (_words(said.get(name), depth - 1) for name in _NAMES_OF_WORDS)), "")
    steps = said.get("loc") if isinstance(said.get("loc"), list) else []
    place = ".".join(str(step) for step in steps or [] if step != "body")
    return ": ".join(str(part) for part in (said.get("type"), place, words) if part) if place else words


def _parse(text: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _cut(text: str) -> str:
    """Return a text in one line and in few characters, without secrets and what a terminal would obey.

    A body is searched for secrets when it comes, but JSON can write each letter as a number.
    """
    words = " ".join(redact(text)[: 10 * _TEXT_LENGTH].split())
    return "".join(c for c in words if c == " " or unicodedata.category(c)[0] not in "CZ")[:_TEXT_LENGTH]
