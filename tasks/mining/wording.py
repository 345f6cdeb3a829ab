"""Compare the words of a candidate with those of its query and of the query's positives.

Cosines of a small encoder hardly tell "1D" from "2D", or "first" from "last". Words do: what the query asks for, the
positive has and the candidate lacks is seldom the same answer (docs/experiments.md).
"""

import re
from functools import lru_cache
from typing import NamedTuple

import polars as pl

from tasks.texts import normalise

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Thai to Khmer, kana, Han
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")  # of a script without spaces between words, one character
_LENGTH = 3  # words in a row
_KEPT = 4096  # texts whose words are kept: the positives and queries of a part


def compare_words(pairs: pl.DataFrame) -> pl.DataFrame:
    """Compare the words of pairs, of which `tasks.prompts.prompt.join_texts` gives the texts.

    Returns:
        The key of each pair, in the order of `pairs`, and two shares in 0..1 (Float64):
        `missed_words`: of the query's distinct words, those that a positive has and the candidate lacks.
        `shared_triples`: of the distinct triples of words in a row that the candidate or a positive has, those that
            both have; the largest over the positives. 1 for equal texts.
    """
    rows = [
        (missed_words(query, passage, positives), max((shared_triples(passage, it) for it in positives), default=0.0))
        for query, passage, positives in pairs.select("query", "passage", "positives").iter_rows()
    ]
    schema = {"missed_words": pl.Float64, "shared_triples": pl.Float64}
    return pl.concat(
        [pairs.select("dataset", "query_id", "doc_id"), pl.DataFrame(rows, schema=schema, orient="row")],
        how="horizontal",
    )


def missed_words(query: str, passage: str, positives: list[str]) -> float:
    """Return the share of the query's words that a positive has and the passage lacks; 0 for a query without words.

    >>> missed_words("pool in 2D", "It pools 1D input.", ["It pools 2D input: pool(x)."])
    0.6666666666666666
    """
    asked = _parts(query).words
    had = frozenset[str]().union(*(_parts(positive).words for positive in positives))
    return len((asked & had) - _parts(passage).words) / len(asked) if asked else 0.0


def shared_triples(one: str, other: str) -> float:
    """Return Jaccard's coefficient of the triples of words in a row of two texts; 0 if neither has a word.

    >>> shared_triples("the first n rows", "the first n columns")
    0.3333333333333333
    """
    a, b = _parts(one).triples, _parts(other).triples
    both = len(a & b)
    return both / (len(a) + len(b) - both) if a or b else 0.0


def split_words(text: str) -> list[str]:
    """Split a text into its words, without case; a script without spaces into its characters.

    >>> split_words("Get the 1D array, 数组!")
    ['get', 'the', '1d', 'array', '数', '组']
    """
    return _WORD.findall(normalise(text))


class _Parts(NamedTuple):
    """The distinct words of a text, and its distinct triples of words in a row."""

    words: frozenset[str]
    triples: frozenset[tuple[str, ...]]


@lru_cache(_KEPT)
def _parts(text: str) -> _Parts:
    words = split_words(text)
    triples = frozenset(zip(*(words[at:] for at in range(_LENGTH)), strict=False))
    return _Parts(frozenset(words), triples or frozenset({tuple(words)} if words else ()))
