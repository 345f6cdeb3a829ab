"""A request to an engine and its answer, the same for every kind of engine."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

TOO_LONG = "too_long"
REFUSED = "refused"
ERROR = "error: "
UNAVAILABLE = "unavailable: "  # every try is used up; the endpoint may answer at another time

_BYTE = re.compile(r"<0x([0-7][0-9A-Fa-f])>")
_SPACES = re.compile(r"^[\u0120\u2581]+")  # how tokenizers write the spaces before a word
_MOST_LOGPROB = 1.0  # above the 0 of certainty, which rounding may pass


class EndpointError(ValueError):
    """The endpoint cannot be used as configured: a wrong key, model, address or field; another try does not help."""

    of_every_part = True  # the other parts of the stage would fail too, and are not begun


class Request(Protocol):
    """One chat to be answered, with its limits."""

    @property
    def call_id(self) -> str:
        """Hash of everything that decides the answer; the same chat asked again has the same."""
        ...

    @property
    def chat(self) -> Sequence[Mapping[str, str]]:
        """`[{"role": …, "content": …}, …]`."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens to generate."""
        ...

    @property
    def top(self) -> int:
        """Log-probabilities of the first token that are wanted; 0 for none."""
        ...

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """JSON schema of the answer, as far as the engine can enforce one."""
        ...


@dataclass(frozen=True)
class Answer:
    """One answer to one chat.

    text: what was generated. logprobs: natural log-probabilities of the likeliest first tokens, by decoded text, most
    likely first. finish_reason: `stop`, `length`, `too_long` for a prompt that was not sent, `refused`, `error: …`, and
    `unavailable: …` for what may be answered another time.
    cached_tokens: tokens of the prompt that a prefix cache served. fingerprint: the model's version, as the
    endpoint names it.
    """

    text: str = ""
    logprobs: Mapping[str, float] = field(default_factory=dict)
    finish_reason: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    fingerprint: str = ""


def merge_logprobs(tokens: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Add the probabilities of tokens that decode to the same text, most likely first.

    >>> merge_logprobs([("Yes", math.log(0.25)), ("No", math.log(0.5)), ("Yes", math.log(0.25)), ("yes", -9.0)])
    {'No': -0.6931471805599453, 'Yes': -0.6931471805599453, 'yes': -9.0}
    """
    merged: dict[str, list[float]] = {}
    for text, logprob in tokens:
        merged.setdefault(text, []).append(logprob)
    total = {
        text: values[0] if len(values) == 1 else math.log(math.fsum(map(math.exp, values)))
        for text, values in merged.items()
    }
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def first_logprobs(choice: Mapping[str, Any]) -> dict[str, float]:
    """Return the log-probabilities of the first token, by its text; none where the endpoint gives none.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError: they have another form, or are none.
    """
    logprobs = choice.get("logprobs") or {}
    content, older = logprobs.get("content") or [], logprobs.get("top_logprobs")
    if not content and isinstance(older, list) and older and isinstance(older[0], dict):  # as in older completions
        return merge_logprobs((_decoded(str(token)), _logprob(value)) for token, value in older[0].items())
    top = content[0].get("top_logprobs") or [] if content else []
    return merge_logprobs((_token_of(entry), _logprob(entry["logprob"])) for entry in top)


def _logprob(said: Any) -> float:  # noqa: ANN401 - any JSON
    value = float(said)
    if not value <= _MOST_LOGPROB:  # NaN too
        raise ValueError(f"{value} is no log-probability")
    return value


def _token_of(entry: Mapping[str, Any]) -> str:
    """Return the text of a token: of its bytes, where an endpoint gives them and they are whole characters."""
    raw = entry.get("bytes")
    if isinstance(raw, list) and raw:
        try:
            return _decoded(bytes(raw).decode())
        except (TypeError, ValueError):
            pass
    return _decoded(str(entry["token"]))


def _decoded(token: str) -> str:
    """Return a token's text where an endpoint gives it as its tokenizer writes it.

    >>> _decoded("\u0120Yes"), _decoded("\u2581Yes"), _decoded("<0x59>"), _decoded(" Yes")
    (' Yes', ' Yes', 'Y', ' Yes')
    """
    if byte := _BYTE.fullmatch(token):
        return chr(int(byte.group(1), 16))
    return _SPACES.sub(lambda found: " " * len(found.group()), token)
