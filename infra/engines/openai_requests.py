"""What is sent to an OpenAI-compatible endpoint, and what its responses mean, one at a time or from a batch's files."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from infra.engines.answers import ERROR, REFUSED, TOO_LONG, UNAVAILABLE, Answer, Request, merge_logprobs
from infra.engines.specs import OpenAISpec

_MOST_LOGPROBS = 20  # what the interface allows
_CHARACTERS_PER_TOKEN = 4
_TEXT_LENGTH = 300

_OK, _REDIRECT, _BAD_REQUEST, _FORBIDDEN, _TOO_LARGE, _UNPROCESSABLE, _BUSY, _SERVER = (
    200, 300, 400, 403, 413, 422, 429, 500,
)  # fmt: skip
_NOT_ALLOWED = frozenset({401, 402, _FORBIDDEN, 404, 405})
_MAY_PASS = frozenset({408, 409, 425, _BUSY})
_FATAL_CODES = frozenset({"model_not_found", "unsupported_parameter", "unsupported_value", "unknown_parameter"})
_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
# Not every compatible server sends a code, so the words of the message are searched too.
_FILTERED = re.compile(
    r"content_filter|content_policy|invalid_prompt|content management policy|moderation|flagged", re.I
)
_LENGTHY = re.compile(
    r"context_length|string_above_max_length|maximum context length|context window|(prompt|input) is too long", re.I
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


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
    wait; None where it asks for none.
    """

    kind: str
    text: str = ""
    passing: bool = False
    fatal: bool = False
    wait: float | None = None

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
    """Build the body of one chat completion."""
    body: dict[str, Any] = {
        "model": spec.model,
        "messages": [dict(message) for message in request.chat],
        spec.max_tokens_field: request.max_tokens,
    }
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
            logprobs=_first_logprobs(choice),
            finish_reason=_finish_reason(choice, message),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            cached_tokens=int(details.get("cached_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
            fingerprint=f"{body.get('model') or ''} {body.get('system_fingerprint') or ''}".strip(),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return Trouble("body", f"no chat completion: {type(error).__name__}", passing=True)
    return answer


def read_object(reply: Reply) -> dict[str, Any] | Trouble:
    """Return the JSON object of a reply, or why there is none."""
    trouble = read_status(reply)
    if trouble is not None:
        return trouble
    body = _parse(reply.text)
    if not isinstance(body, dict):
        return Trouble("body", f"a JSON object expected, got {_cut(reply.text) or 'nothing'}", passing=True)
    return body


def read_status(reply: Reply) -> Trouble | None:
    """Return what an HTTP status means for this request and for later ones; None where it is a success."""
    status = reply.status
    if _OK <= status < _REDIRECT:
        return None
    codes, text = _error_of(reply.text)
    said = " ".join([*sorted(codes), text])
    if status in (_BAD_REQUEST, _FORBIDDEN, _UNPROCESSABLE) and _FILTERED.search(said):
        return Trouble(REFUSED, text)
    if status == _TOO_LARGE or (status in (_BAD_REQUEST, _UNPROCESSABLE) and _LENGTHY.search(said)):
        return Trouble(TOO_LONG, text)
    if (
        status < _BAD_REQUEST
        or status in _NOT_ALLOWED
        or codes & _FATAL_CODES
        or (status == _BUSY and codes & _NO_QUOTA)
    ):
        return Trouble(str(status), text, fatal=True)
    if status in _MAY_PASS or status >= _SERVER:
        return Trouble(str(status), text, passing=True, wait=wait_asked(reply.headers))
    return Trouble(str(status), text)


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds an endpoint wants us to wait.

    >>> wait_asked({"retry-after-ms": "250"}), wait_asked({"retry-after": "2"}), wait_asked({})
    (0.25, 2.0, None)
    >>> wait_asked({"x-ratelimit-reset-requests": "1m2s", "x-ratelimit-reset-tokens": "20ms"})
    62.0
    """
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    after = _seconds(headers.get("retry-after", ""))
    if after is not None:
        return after
    limits = ("requests", "tokens")
    resets = {limit: _seconds(headers.get(f"x-ratelimit-reset-{limit}", "")) for limit in limits}
    spent = [limit for limit in limits if headers.get(f"x-ratelimit-remaining-{limit}", "0").strip() == "0"]
    known = [seconds for limit in spent if (seconds := resets[limit]) is not None]
    return max(known or [seconds for seconds in resets.values() if seconds is not None], default=None)


def _seconds(text: str) -> float | None:
    """Read `2`, `0.5`, `1m2s`, `20ms` or an HTTP date as seconds from now."""
    text = text.strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    if re.fullmatch(f"({_DURATION.pattern})+", text):
        return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _first_logprobs(choice: Mapping[str, Any]) -> dict[str, float]:
    content = (choice.get("logprobs") or {}).get("content") or []
    top = content[0].get("top_logprobs") or [] if content else []
    return merge_logprobs((str(entry["token"]), float(entry["logprob"])) for entry in top)


def _finish_reason(choice: Mapping[str, Any], message: Mapping[str, Any]) -> str:
    reason = choice.get("finish_reason")
    if reason == "content_filter" or message.get("refusal"):
        return REFUSED
    if reason == "stop":
        return "stop" if message.get("content") is not None else f"{ERROR}no content"
    return "length" if reason == "length" else f"{ERROR}finish_reason {reason}"


def _error_of(text: str) -> tuple[frozenset[str], str]:
    """Read an error's codes and its message, in the form that OpenAI gives them or in any other."""
    body = _parse(text)
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return frozenset(), _cut(str(error or text))
    inner = error.get("innererror")
    codes = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    return frozenset(str(code) for code in codes if code), _cut(str(error.get("message") or text))


def _parse(text: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text)
    except ValueError:
        return None


def _cut(text: str) -> str:
    return " ".join(text.split())[:_TEXT_LENGTH]
