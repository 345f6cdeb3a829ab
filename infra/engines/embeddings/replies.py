"""What is sent to an endpoint for embeddings, and what its responses mean, one at a time."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.engines.answers import TOO_LONG
from infra.engines.openai_requests import Reply, Trouble, read_object, tokens_in
from infra.engines.refusals import OTHERWISE, remedy_of_access
from infra.engines.specs import OpenAIEmbeddingsSpec

CHARACTERS_PER_TOKEN = 4
DIMENSIONS, ENCODING, MODEL = "dimensions", "encoding_format", "model"  # kinds of trouble that every request has

_FLOAT = np.dtype("<f4")
_MAY_BE_LENGTH = frozenset({"400", "413", "422", "500"})
# One text is too long, or all of a request together are too much: either way less is sent.
_TOO_MUCH = re.compile(
    r"must have less than \d+ tokens|too (?:long|large to process)|too many (?:tokens|inputs)"
    r"|array_above_max_length|max_tokens_per"
    r"|\bexceed\w*.{0,60}\b(?:tokens?|length|context|limit)|\b(?:maximum|max)\b.{0,40}\btokens|batch[ _-]?size",
    re.I,
)
_TOO_LARGE_FOR_THE_LIMIT = re.compile(r"request too large", re.I)  # of tokens per minute: waiting does not help
_OF_DIMENSIONS = re.compile(r"\bdimensions?\b|matryoshka", re.I)
_OF_ENCODING = re.compile(r"encoding_format|\bbase64\b", re.I)
_NUMBER = re.compile(r"(?<![\w-])\d{2,7}\b(?!-\d)")  # none that is part of a name or of a date
_LEAST_LIMIT = 16  # tokens
_SHORTER, _LEAST, _MOST = 0.5, 0.1, 0.9  # share of a text that is kept where the endpoint names no limit; its bounds
_MARGIN = 0.95
_SHOWN = 5  # places in an error
_ADVICE = {
    DIMENSIONS: "set the encoder's `dimensions` to what its vectors have, or to null where the model gives one number",
    ENCODING: "set the encoder's `encoding_format: float`",
    MODEL: "name one model that does not change (a dated name); where it was changed on purpose, set the encoder's "
    "`revision` to a new text, and every text is encoded anew",
    "body": "check that `base_url` leads to OpenAI's interface for embeddings; if it orders vectors in its own way, "
    "set the encoder's `batch_size: 1`",
}


@dataclass(frozen=True)
class Page:
    """The vectors of one response, in the order of its texts.

    vectors: float32, shape (texts, dimension), as they came. tokens: that were read; 0 if the endpoint does not say.
    model: as the endpoint names it; empty where it does not.
    """

    vectors: npt.NDArray[np.float32]
    tokens: int
    model: str

    @property
    def unusable(self) -> list[int]:
        """The places of vectors that are no direction: with a NaN or an infinite number, or of zeros alone."""
        finite = np.isfinite(self.vectors).all(axis=1)
        return [int(place) for place in np.flatnonzero(~finite | ~self.vectors.any(axis=1))]


def request_of(spec: OpenAIEmbeddingsSpec, texts: Sequence[str]) -> dict[str, Any]:
    """Build the body of one request.

    >>> request_of(OpenAIEmbeddingsSpec(model="m", dimensions=2), ["a text"])
    {'model': 'm', 'input': ['a text'], 'encoding_format': 'base64', 'dimensions': 2}
    """
    body: dict[str, Any] = {"model": spec.model, "input": list(texts), "encoding_format": spec.encoding_format}
    if spec.dimensions is not None:
        body["dimensions"] = spec.dimensions
    return body | spec.extra_body


def read_page(reply: Reply, count: int, dimension: int | None, *, sized: bool = False) -> Page | Trouble:
    """Turn the response to a request with `count` texts into their vectors.

    dimension: numbers that each vector must have; None where that is not known yet. sized: the request asked for them.
    """
    body = read_object(reply)
    if isinstance(body, Trouble):
        return _of_the_request(body, sized=sized)
    try:
        vectors = _in_order(body.get("data"), count)
        usage = body.get("usage") or {}
        tokens = tokens_in(usage.get("prompt_tokens") or usage.get("total_tokens"))
        lengths = sorted({len(vector) for vector in vectors})
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        return Trouble("body", f"{error or type(error).__name__}", passing=True)
    if lengths != [dimension or lengths[0]] or not lengths[0]:
        wanted = f"{dimension} numbers in each vector" if dimension else "vectors of one length"
        return Trouble(DIMENSIONS, f"{wanted} expected, {', '.join(map(str, lengths[:4]))} came", fatal=True)
    return Page(np.stack(vectors), tokens, str(body.get("model") or ""))


def _in_order(data: Any, count: int) -> list[npt.NDArray[np.float32]]:  # noqa: ANN401 - any JSON
    """Return the vectors by their `index`; the only one of one text needs none.

    Raises:
        ValueError: they are no list, or one is missing, there twice, or no list of numbers.
    """
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise ValueError("a list of vectors expected in `data`")
    places = [item.get("index") for item in data]
    if count == 1 and places == [None]:
        return [_numbers(data[0]["embedding"])]
    if sorted(place for place in places if type(place) is int) != list(range(count)) or len(places) != count:
        raise ValueError(f"{count} vectors with the `index` 0 to {count - 1} expected, got {_named(places)}")
    by_place = {item["index"]: item["embedding"] for item in data}
    return [_numbers(by_place[place]) for place in range(count)]


def _named(places: Sequence[Any]) -> str:
    shown = ", ".join(str(place)[:8] for place in places[:_SHOWN])
    return f"{len(places)} ({shown}{', …' if len(places) > _SHOWN else ''})" if places else "none"


def _numbers(said: Any) -> npt.NDArray[np.float32]:  # noqa: ANN401 - any JSON
    """Read a vector: a list of numbers, or the bytes of float32 numbers in base64."""
    if isinstance(said, str):
        raw = base64.b64decode(said, validate=True)
        if len(raw) % _FLOAT.itemsize:
            raise ValueError(f"whole float32 numbers expected in base64, {len(raw)} bytes came")
        return np.frombuffer(raw, _FLOAT).astype(np.float32)
    if not isinstance(said, list) or not all(type(number) in (int, float) for number in said):
        raise ValueError("a vector expected as a list of numbers or in base64, something else came")
    with np.errstate(over="ignore"):  # an infinite number is found and told
        return np.asarray(said, dtype=np.float64).astype(np.float32)


def _of_the_request(trouble: Trouble, *, sized: bool) -> Trouble:
    """Tell a fault of the texts' length, and of a field that every request has, from others."""
    said = trouble.text
    if trouble.kind == "429":
        return Trouble(TOO_LONG, said) if _TOO_LARGE_FOR_THE_LIMIT.search(said) else trouble
    if trouble.kind not in _MAY_BE_LENGTH:
        return trouble
    of_dimensions = sized and not trouble.passing and _OF_DIMENSIONS.search(said)  # such words may name a limit too
    if not of_dimensions and _TOO_MUCH.search(" ".join([*sorted(trouble.codes), said])):
        return Trouble(TOO_LONG, said)
    if trouble.passing:
        return trouble
    for kind, pattern in ((DIMENSIONS, _OF_DIMENSIONS), (ENCODING, _OF_ENCODING)):
        if pattern.search(said):
            return Trouble(kind, said, fatal=True)
    return trouble


def shortened(text: str, words: str) -> str:
    """Return the beginning of a text that was too long: in proportion, where the endpoint names its limit.

    >>> len(shortened("a" * 1000, "maximum context length is 512 tokens, you requested 640 tokens"))
    760
    >>> len(shortened("a" * 1000, "the input is too long"))
    500
    """
    numbers = {int(number) for number in _NUMBER.findall(words)}
    *_, limit, length = (0, 0, *sorted(number for number in numbers if number >= _LEAST_LIMIT))
    share = _MARGIN * limit / length if limit else _SHORTER
    return text[: int(len(text) * min(_MOST, max(_LEAST, share)))]


def advise(kind: str, words: str, key: str) -> str:
    """Return what to change after a fault of every request. key: the variable that holds the key.

    >>> advise("401", "wrong", "MY_KEY")
    'check the key in the variable MY_KEY'
    """
    if kind in _ADVICE and "text/html" not in words:
        return _ADVICE[kind]
    return remedy_of_access(kind, words, key) or OTHERWISE
