"""What the method needs from the machine, stated over builtins and polars only; infra's engines fit by shape."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import polars as pl


class Encoder(Protocol):
    """Turns texts into L2-normalised vectors."""

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"]) -> pl.Series:
        """Encode `n` texts into a Series of `Array(Float32, dimension)` of length `n`, in the texts' order."""
        ...


class Answer(Protocol):
    """One answer of an LLM to one prompt."""

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
        """`stop` or `length` as the engine says, `too_long` for a refused prompt, `error: …` for the rest."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, the chat template's included."""
        ...

    @property
    def output_tokens(self) -> int:
        """Tokens generated."""
        ...


class LLM(Protocol):
    """Answers chats by their next token."""

    def answer(self, chats: Sequence[Sequence[Mapping[str, str]]], *, max_tokens: int, top: int) -> Sequence[Answer]:
        """Answer `n` chats (`[{"role": …, "content": …}, …]`), greedily, in order, with `top` log-probabilities."""
        ...
