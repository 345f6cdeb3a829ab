"""Asking an endpoint for vectors: in shares, each kept before the next is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pytest

from tasks.mining.embed import embed


@dataclass
class Came:
    found: Sequence[int]
    vectors: pl.Series
    refused: Mapping[int, str] = field(default_factory=dict)
    error: Exception | None = None
    calls: int = 1
    prompt_tokens: int = 10
    model: str = "m-1"


class Lengths:
    """Encodes a text as its length; refuses texts that begin with an x, and fails at one that begins with an !."""

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self.asked: list[list[str]] = []

    def embed(self, texts: Sequence[str], role: str) -> Came:
        """Encode."""
        self.asked.append(list(texts))
        stop = next((place for place, text in enumerate(texts) if text[0] == "!"), len(texts))
        found = [place for place, text in enumerate(texts[:stop]) if text[0] != "x"]
        vectors = pl.Series([[float(len(texts[place]))] for place in found], dtype=pl.Array(pl.Float32, 1))
        refused = {place: "not this" for place in range(stop) if place not in found}
        return Came(found, vectors, refused, ConnectionError("gone") if stop < len(texts) else None)


def _texts(*shown: str) -> pl.DataFrame:
    rows = [(f"h{number}", f"d{number}", text) for number, text in enumerate(shown)]
    return pl.DataFrame(rows, schema=["text_hash", "id", "shown"], orient="row")


def _kept(engine: Lengths, *shown: str, at_once: int = 2) -> tuple[list[str], Any, Any]:
    """Return what was kept, what came, and the error."""
    kept: list[str] = []
    try:
        made = embed(_texts(*shown), engine, "passage", at_once, lambda rows, _: kept.extend(rows["text_hash"]))
    except (ValueError, OSError) as error:
        return kept, None, error
    return kept, made, None


def test_texts_are_asked_for_in_shares_and_each_share_is_kept() -> None:
    engine = Lengths()
    kept, (made, facts), _ = _kept(engine, "a", "bb", "ccc")
    assert engine.asked == [["a", "bb"], ["ccc"]]
    assert kept == ["h0", "h1", "h2"]
    assert made.rows() == [("h0", [1.0]), ("h1", [2.0]), ("h2", [3.0])]
    assert facts == {"calls": 2, "prompt_tokens": 20, "model": "m-1"}


def test_a_text_without_a_vector_is_named_once_all_others_are_kept() -> None:
    kept, _, error = _kept(Lengths(), "a", "x1", "x2", "d")
    assert kept == ["h0", "h3"]
    assert str(error).startswith(
        "2 of 4 passage texts have no vector: d1: not this; d2: not this. The others are kept."
    )
    _, _, many = _kept(Lengths(), *["x"] * 5)
    assert "; and 2 more" in str(many)


def test_an_endpoint_that_fails_is_asked_no_more_and_what_came_is_kept() -> None:
    engine = Lengths()
    kept, _, error = _kept(engine, "a", "b", "c", "!", "e")
    assert kept == ["h0", "h1", "h2"]
    assert isinstance(error, ConnectionError)
    assert len(engine.asked) == 2


def test_without_texts_one_word_tells_how_many_numbers_a_vector_has() -> None:
    engine = Lengths()
    made, facts = embed(
        _texts().cast(pl.String), engine, "query", 2, lambda *_: pytest.fail("there is nothing to keep")
    )
    assert made.schema == {"text_hash": pl.String, "vector": pl.Array(pl.Float32, 1)}
    assert made.is_empty()
    assert (len(engine.asked), facts["calls"]) == (1, 1)
