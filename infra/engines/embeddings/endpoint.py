"""Embeddings by an OpenAI-compatible endpoint: many texts in a request, many requests at a time, tried again.

The first request goes ahead of the others. It tells whether key, model and fields are accepted, and how many numbers a
vector has. A request that is refused for its texts is cut in halves until the text is alone. That one is sent shorter
if it is too long, and else gets its reason. All other texts get their vectors, which are paid for.
"""

import functools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from infra.engines.answers import TOO_LONG, EndpointError
from infra.engines.embeddings.replies import (
    CHARACTERS_PER_TOKEN,
    DIMENSIONS,
    MODEL,
    Page,
    advise,
    read_page,
    request_of,
    shortened,
)
from infra.engines.encoder import as_unit_vectors
from infra.engines.openai_endpoint import Endpoint, weigh
from infra.engines.openai_requests import Reply, Trouble
from infra.engines.rate_limit import run, together
from infra.engines.refusals import EqualFaults
from infra.engines.specs import OpenAIEmbeddingsSpec

_LOG = logging.getLogger(__name__)
_TIMES_SHORTER = 12  # a text of 8,000 characters is down to two then
_NO_DIRECTION = "the endpoint's vector holds numbers that are not finite, or zeros alone"


@dataclass(frozen=True)
class Embedded:
    """What came of some texts.

    found: places of the texts that have a vector, ascending. vectors: theirs, Array(Float32, dimension), of length 1.
    refused: why a text has none, by its place. error: why texts without a reason were not asked; None if all were.
    calls: requests that were answered. prompt_tokens: that the endpoint read. model: as the endpoint names it.
    """

    found: Sequence[int]
    vectors: pl.Series
    refused: Mapping[int, str]
    error: Exception | None
    calls: int
    prompt_tokens: int
    model: str


@dataclass
class _Work:
    """The texts of one call, without their prompt, and what came of them so far."""

    prompt: str
    texts: list[str]
    vectors: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    shorter: Counter[int] = field(default_factory=Counter)
    calls: int = 0
    tokens: int = 0
    unavailable: str = ""


class OpenAIEmbeddings:
    """One endpoint and one embedding model; `counts` holds retries and failures by reason."""

    def __init__(self, spec: OpenAIEmbeddingsSpec) -> None:
        """Read the key and prepare the client; nothing is sent yet.

        Raises:
            ValueError: the variable that should hold the key is not set, or the address is missing or no HTTP one, or
                it would get the key unencrypted.
        """
        self._spec = spec
        self._prompts = {"query": spec.query_prompt, "passage": spec.passage_prompt}
        self._endpoint = Endpoint(spec, functools.partial(advise, key=spec.api_key_env))
        self._faults = EqualFaults()
        self._dimension = spec.dimensions
        self._model = ""
        self._refusal = ""

    @property
    def counts(self) -> Counter[str]:
        """Retries and failures so far, by reason, and how many texts were `shortened`."""
        return self._endpoint.counts

    def embed(self, texts: Sequence[str], role: Literal["query", "passage"]) -> Embedded:
        """Ask for the vectors of texts. What is paid for is returned, also where the endpoint fails in between.

        Raises:
            EndpointError: an earlier call found that the endpoint refuses the key, the model or our way of asking.
            ValueError: `role` is neither "query" nor "passage".
        """
        if role not in self._prompts:
            raise ValueError(f'role: "query" or "passage" expected, got {role!r}')
        if self._refusal:
            raise EndpointError(self._refusal)
        work = _Work(self._prompts[role], [text[: self._spec.max_chars] for text in texts])
        run(self._embed(work))
        _LOG.info("%s: %d of %d texts; so far %s", self._endpoint.address, len(work.vectors), len(texts), self.counts)
        return self._sum_up(work)

    def close(self) -> None:
        """Close the connections; the engine cannot be used afterwards."""
        run(self._endpoint.close())

    def _sum_up(self, work: _Work) -> Embedded:
        found = sorted(work.vectors)
        matrix = np.stack([work.vectors[place] for place in found]) if found else np.empty((0, self._dimension or 1))
        error: Exception | None = EndpointError(self._refusal) if self._refusal else None
        if error is None and work.unavailable:
            error = ConnectionError(work.unavailable)
        return Embedded(
            found=found,
            vectors=pl.Series("vector", as_unit_vectors(matrix), dtype=pl.Array(pl.Float32, matrix.shape[1])),
            refused=dict(sorted(work.refused.items())),
            error=error,
            calls=work.calls,
            prompt_tokens=work.tokens,
            model=self._model,
        )

    async def _embed(self, work: _Work) -> None:
        size = self._spec.batch_size
        batches = [range(at, min(at + size, len(work.texts))) for at in range(0, len(work.texts), size)]
        if batches and not self._faults.answers:
            await self._ask(work, batches.pop(0))
        await together([self._ask(work, batch) for batch in batches])

    async def _ask(self, work: _Work, places: Sequence[int]) -> None:
        """Ask for some vectors in one request, and in smaller ones where that fails for its texts."""
        body = request_of(self._spec, [work.prompt + work.texts[place] for place in places])
        tokens = sum(map(len, body["input"])) // CHARACTERS_PER_TOKEN
        async with self._endpoint.slots:
            if self._refusal or work.unavailable:
                return
            heard = self._endpoint.heard
            try:
                result = await self._endpoint.call(self._asking(body), self._reading(len(places)), tokens)
            except EndpointError as refusal:  # of every request; what came so far is paid for and is kept
                self._refusal = self._refusal or str(refusal)
                return
        if isinstance(result, Page):
            await self._take(work, places, result, tokens)
        elif result.passing:
            work.unavailable = work.unavailable or self._why(result, heard)
        elif len(places) > 1:
            half = len(places) // 2
            await together([self._ask(work, places[:half]), self._ask(work, places[half:])])
        else:
            await self._alone(work, places, result)

    async def _take(self, work: _Work, places: Sequence[int], page: Page, estimated: int) -> None:
        """Keep the vectors of a response; those that are no direction are asked for once more, each alone."""
        if not page.tokens:
            self.counts["no_usage"] += 1
        used = page.tokens or estimated  # without usage a budget would never be used up
        self._endpoint.settle(estimated, used)
        work.calls += 1
        work.tokens += used
        unusable = {places[row] for row in page.unusable}
        work.vectors |= {p: vector for p, vector in zip(places, page.vectors, strict=True) if p not in unusable}
        if len(places) > 1:
            await together([self._ask(work, [place]) for place in sorted(unusable)])
        else:
            work.refused |= dict.fromkeys(unusable, _NO_DIRECTION)

    async def _alone(self, work: _Work, places: Sequence[int], trouble: Trouble) -> None:
        """Send a text that is too long shorter; note why any other has no vector."""
        (place,) = places
        if trouble.kind != TOO_LONG:
            work.refused[place] = str(trouble)
            return
        shorter = shortened(work.texts[place], trouble.text)
        if not shorter or work.shorter[place] >= _TIMES_SHORTER:
            work.refused[place] = f"{trouble}; it stays too long: lower the encoder's `max_chars`, or its prompt"
            return
        self.counts["shortened"] += not work.shorter[place]
        work.shorter[place] += 1
        work.texts[place] = shorter
        await self._ask(work, places)

    def _asking(self, body: dict[str, Any]) -> Callable[[], Awaitable[Any]]:
        async def ask() -> Any:  # noqa: ANN401 - the client's raw response
            if self._refusal:  # every request was refused while this one waited for its next try
                raise EndpointError(self._refusal)
            return await self._endpoint.embed(body)

        return ask

    def _reading(self, count: int) -> Callable[[Reply], Page | Trouble]:
        def read(reply: Reply) -> Page | Trouble:
            result = read_page(reply, count, self._dimension, sized=self._spec.dimensions is not None)
            if isinstance(result, Page):
                result = self._same_model(result)
            if isinstance(result, Trouble):
                return result if result.kind in (DIMENSIONS, MODEL) else weigh(self._faults, result)
            self._faults.note_answer()
            return result

        return read

    def _same_model(self, page: Page) -> Page | Trouble:
        """Refuse a response of another model than the first: their vectors cannot be compared."""
        if page.model and self._model and page.model != self._model:
            words = f"the endpoint answered as {self._model!r} before, and as {page.model!r} now"
            return Trouble(MODEL, words, fatal=True)
        self._model = self._model or page.model
        self._dimension = page.vectors.shape[1]
        return page

    def _why(self, trouble: Trouble, heard: int) -> str:
        """Say why there is no vector after all tries."""
        address, tries = self._endpoint.address, self._spec.max_retries + 1
        if self._endpoint.heard == heard and trouble.kind == "connection":
            return f"{address}: no response to {tries} tries ({trouble}); check base_url, and that the server runs"
        advice = advise("body", trouble.text, "") if trouble.kind == "body" else "run again later"
        return f"{address}: no vectors after {tries} tries ({trouble}); {advice}"
