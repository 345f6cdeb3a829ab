"""What the method needs from the machine, stated over builtins and polars only; infra's engines fit by shape."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import polars as pl


class Encoder(Protocol):
    """Turns texts into L2-normalised vectors."""

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"]) -> pl.Series:
        """Encode `n` texts into a Series of `Array(Float32, dimension)` of length `n`, in the texts' order."""
        ...


class Request(Protocol):
    """One chat to be answered; `tasks.judging.calls.Call` is one."""

    @property
    def call_id(self) -> str:
        """Hash of everything that decides the answer (32 hexadecimal digits)."""
        ...

    @property
    def chat(self) -> Sequence[Mapping[str, str]]:
        """`[{"role": …, "content": …}, …]`, ending with the user's turn."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens to generate."""
        ...

    @property
    def top(self) -> int:
        """How many log-probabilities of the first token are wanted; 0 for none."""
        ...

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """JSON schema that the answer must obey, as far as the engine can enforce one."""
        ...


class Answer(Protocol):
    """One answer of an LLM to one chat."""

    @property
    def text(self) -> str:
        """The generated text."""
        ...

    @property
    def logprobs(self) -> Mapping[str, float]:
        """Natural log-probabilities of the most likely first tokens, by decoded token text."""
        ...

    @property
    def finish_reason(self) -> str:
        """`stop` or `length` as the engine says, or why there is none.

        `too_long` for a prompt not sent, `refused`, `unavailable: …` for what may pass, `error: …` otherwise.
        """
        ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, the chat template's included."""
        ...

    @property
    def cached_tokens(self) -> int:
        """Those of the prompt that a prefix cache served."""
        ...

    @property
    def output_tokens(self) -> int:
        """Tokens generated."""
        ...

    @property
    def fingerprint(self) -> str:
        """What the endpoint says of the model that answered; empty where the weights' digest says it all."""
        ...


class LLM(Protocol):
    """Answers chats."""

    def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer `n` chats greedily, in order; one that cannot be answered gets a reason and harms no other."""
        ...


class CrossEncoder(Protocol):
    """Scores pairs of texts together."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        """Give P(relevant) in 0..1 for `n` pairs of (query, passage), in order."""
        ...


class Ledger(Protocol):
    """Remembers what was paid for, row by row, across parts, runs and datasets."""

    def recall(self, judge: str, entries: Mapping[str, str]) -> Mapping[str, str]:
        """Look up entries (id → the hash it is filed under, its first subject); returns id → payload of the known."""
        ...

    def remember(self, judge: str, rows: Sequence[tuple[str, Sequence[str], str]]) -> None:
        """Keep rows of (id, subjects, payload): subjects are the hashes of all texts the row speaks of.

        Returns at once; a kill before `flush` has returned may lose it, all of it or nothing.
        """
        ...

    def flush(self) -> None:
        """Wait until everything handed over is durable."""
        ...
