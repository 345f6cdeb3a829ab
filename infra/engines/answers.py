"""A request to an engine and its answer, the same for every kind of engine."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

TOO_LONG = "too_long"
REFUSED = "refused"
ERROR = "error: "
UNAVAILABLE = "unavailable: "  # every try is used up; the endpoint may answer at another time


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
