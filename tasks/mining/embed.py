"""Ask an endpoint for vectors, some texts at a time, so that what was paid for is kept whatever happens next."""

import logging
import time
from collections.abc import Callable
from typing import Any, Literal

import polars as pl

from tasks.protocols import PaidEncoder

_log = logging.getLogger(__name__)
_PROGRESS_SECONDS = 30.0
_ANY_TEXT = "text"  # tells how many numbers a vector has, where there are no texts
_NAMED = 3  # texts without a vector that an error names


def embed(
    texts: pl.DataFrame,
    engine: PaidEncoder,
    role: Literal["query", "passage"],
    at_once: int,
    keep: Callable[[pl.DataFrame, str], None],
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Encode texts in shares of `at_once`, and keep the vectors of each share before the next one is asked for.

    Args:
        texts: `text_hash`, `id` and `shown`, each hash once.
        engine: the endpoint.
        role: whether they are queries or passages.
        at_once: texts that are asked for and kept together.
        keep: takes `text_hash` and `vector` of what came, and the name of the model that answered; it may raise, and
            then nothing more is asked.

    Returns:
        `text_hash` and `vector` of all texts, in their order; `calls`, `prompt_tokens` and the `model` that answered.

    Raises:
        ValueError: some texts have no vector; all others were asked for and are kept. Or the endpoint refuses all.
        OSError: the endpoint does not answer; what came before is kept.
    """
    if texts.is_empty():
        return _nothing(engine, role)
    made, refused = list[pl.DataFrame](), list[str]()
    calls, tokens, model, told = 0, 0, "", time.monotonic()
    for start in range(0, texts.height, at_once):
        share = texts.slice(start, at_once)
        came = engine.embed(share["shown"].to_list(), role)
        if came.found:
            found = share["text_hash"].gather(list(came.found))
            made.append(pl.DataFrame({"text_hash": found, "vector": came.vectors}))
            keep(made[-1], came.model)
        if came.error is not None:
            raise came.error
        refused += [f"{share['id'][place]}: {why}" for place, why in came.refused.items()]
        calls, tokens, model = calls + came.calls, tokens + came.prompt_tokens, came.model or model
        if time.monotonic() - told >= _PROGRESS_SECONDS:
            told = time.monotonic()
            _log.info("%d of %d texts encoded", start + share.height, texts.height)
    if refused:
        more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        raise ValueError(
            f"{len(refused)} of {texts.height} {role} texts have no vector: {'; '.join(refused[:_NAMED])}{more}. The "
            "others are kept. Change these texts or leave them out of the source, or take another model"
        )
    return pl.concat(made), {"calls": calls, "prompt_tokens": tokens, "model": model}


def _nothing(engine: PaidEncoder, role: Literal["query", "passage"]) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return no vectors; how many numbers each would have, the endpoint shows by that of one word."""
    came = engine.embed([_ANY_TEXT], role)
    if came.error is not None:
        raise came.error
    empty = pl.DataFrame({"text_hash": pl.Series([], dtype=pl.String), "vector": came.vectors.clear()})
    return empty, {"calls": came.calls, "prompt_tokens": came.prompt_tokens, "model": came.model}
