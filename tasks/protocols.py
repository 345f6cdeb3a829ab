"""Define what the method needs from engines, ledger and store, as protocols over builtins and polars.

The classes in infra have these methods; they do not inherit from the protocols, so tasks does not import infra.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import polars as pl


class Encoder(Protocol):
    """Turns texts into L2-normalised vectors."""

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"]) -> pl.Series:
        """Encode `n` texts into a Series of `Array(Float32, dimension)` of length `n`, in the texts' order."""
        ...


class Embedded(Protocol):
    """What came of some texts that an endpoint was asked to encode."""

    @property
    def found(self) -> Sequence[int]:
        """The places of the texts that have a vector, ascending."""
        ...

    @property
    def vectors(self) -> pl.Series:
        """Their vectors, L2-normalised, as `Array(Float32, dimension)`."""
        ...

    @property
    def refused(self) -> Mapping[int, str]:
        """Why a text has none, by its place; asking again would not help."""
        ...

    @property
    def error(self) -> Exception | None:
        """Why texts without a reason of their own were not asked; None if all were."""
        ...

    @property
    def calls(self) -> int:
        """Requests that were answered."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens that the endpoint read."""
        ...

    @property
    def model(self) -> str:
        """The model, as the endpoint names it."""
        ...


class PaidEncoder(Protocol):
    """Encodes texts for money."""

    def embed(self, texts: Sequence[str], role: Literal["query", "passage"]) -> Embedded:
        """Encode `n` texts; what is paid for is returned, also where the rest fails."""
        ...


class VectorFiles(Protocol):
    """Finds vectors that were computed elsewhere."""

    def find(self, keys: pl.DataFrame, role: Literal["query", "passage"]) -> pl.Series:
        """Return the vectors of `n` texts, named by `dataset`, `id` and `text_hash`, as `Encoder.encode` does."""
        ...


class Request(Protocol):
    """One chat that an LLM is to answer, such as `tasks.judging.calls.Call`."""

    @property
    def call_id(self) -> str:
        """Hash of everything that decides the answer (32 hexadecimal digits)."""
        ...

    @property
    def chat(self) -> Sequence[Mapping[str, str]]:
        """`[{"role": …, "content": …}, …]`, ending with the user's turn, or with the beginning of the answer."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens to generate."""
        ...

    @property
    def top(self) -> int:
        """How many log-probabilities of the first token to return; 0 for none."""
        ...

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """JSON schema of the answer. Engines that cannot enforce a schema ignore it."""
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
        """`stop` or `length` from the engine, or the reason why there is no answer.

        `too_long`: the prompt was too long and not sent. `refused`. `unavailable: …`: the engine cannot answer now and
        may later. `error: …`: anything else.
        """
        ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, the chat template's included."""
        ...

    @property
    def cached_tokens(self) -> int:
        """How many of the prompt's tokens came from a prefix cache."""
        ...

    @property
    def output_tokens(self) -> int:
        """Tokens generated."""
        ...

    @property
    def fingerprint(self) -> str:
        """The `system_fingerprint` of the endpoint; empty for local models, which their digest identifies."""
        ...


class LLM(Protocol):
    """Answers chats."""

    def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer `n` chats greedily, in order. A chat that cannot be answered gets a reason as `finish_reason`."""
        ...


class CrossEncoder(Protocol):
    """Scores a query and a passage that it reads together."""

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> Sequence[float]:
        """Return P(relevant) in 0..1 for `n` pairs of (query, passage), in order; NaN for a pair it cannot read.

        `instructions`: what relevant means, one for each pair, or none. Only engines with a template take them.
        """
        ...


class Ledger(Protocol):
    """Stores the answers of judges, so that no call is paid for twice across parts, runs and datasets."""

    def recall(self, judge: str, entries: Mapping[str, str]) -> Mapping[str, str]:
        """Return stored payloads by id; `entries` maps each id to the hash it is stored under (its first subject)."""
        ...

    def remember(self, judge: str, rows: Sequence[tuple[str, Sequence[str], str]]) -> None:
        """Store rows of (id, subjects, payload). Subjects are the hashes of all texts that the row is about.

        Returns at once. If the process is killed before `flush` returns, the rows of this call may be lost, all of
        them or none.
        """
        ...

    def flush(self) -> None:
        """Wait until all rows passed to `remember` are stored durably."""
        ...


class Vectors(Protocol):
    """Stores embeddings by the hash of the text, so that no text is encoded twice across parts, runs and datasets."""

    def recall(self, role: Literal["query", "passage"], hashes: pl.Series) -> pl.DataFrame | None:
        """Return `text_hash` and `vector` of the texts that are known, sorted by hash; None if none is."""
        ...

    def remember(self, role: Literal["query", "passage"], embeddings: pl.DataFrame) -> None:
        """Store rows of `text_hash` and `vector`. Returns at once; a kill may lose all rows of this call, or none."""
        ...

    def first_model(self, model: str) -> str:
        """Return the name under which an endpoint first answered with vectors of this encoder; else note this one."""
        ...


class InParts(Protocol):
    """A table that is read part by part."""

    @property
    def parts(self) -> Sequence[int]:
        """The numbers of its parts, in order."""
        ...

    def at(self, part: int) -> pl.DataFrame:
        """Read one part; a part that has no rows gives an empty frame."""
        ...


class Checkpoints(Protocol):
    """Keeps the state of one unfinished training, by steps; it can be sent to other machines."""

    def put(self, step: int, folder: Path, worker: int = 0, workers: int = 1) -> None:
        """Keep the files below a folder as what one of several workers has at a step; then it is durable."""
        ...

    def fetch(self, folder: Path, worker: int = 0, workers: int = 1) -> int | None:
        """Write what the worker, and the first one, kept at the newest step that all workers kept into a folder.

        Returns the step; None where there is none of so many workers.
        """
        ...


class Workers(Protocol):
    """Runs a function in several processes that torch.distributed connects."""

    def run(self, work: Callable[[], None], count: int) -> None:
        """Run `work` in `count` processes at once; returns when all have ended, and raises what one of them raised."""
        ...
