"""Split texts into words and count these: any script, and the endings and empty words of a language if one is named.

A word is a run of letters, marks and digits. Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer,
Burmese) give pairs of neighbouring characters, as Lucene's CJKAnalyzer does: "東京都" gives "東京" and "京都".

Words are kept as 64-bit hashes. They have one width, and tables of them hold no text.
"""

import hashlib
from functools import cache
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

Language = Literal[
    "any", "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "english", "esperanto", "estonian",
    "finnish", "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian",
    "nepali", "norwegian", "persian", "polish", "portuguese", "romanian", "russian", "serbian", "sesotho", "spanish",
    "swedish", "tamil", "turkish", "yiddish",
]  # fmt: skip

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\u{30fc}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_UNSPACED}]+|[\w--[_{_UNSPACED}]]+"
_IS_UNSPACED = rf"^[{_UNSPACED}]"
# bm25s' lists of words that say nothing, by language; it has none for the others.
_EMPTY_WORDS = {
    "danish": "STOPWORDS_DANISH",
    "dutch": "STOPWORDS_DUTCH",
    "english": "STOPWORDS_EN",
    "french": "STOPWORDS_FRENCH",
    "german": "STOPWORDS_GERMAN",
    "italian": "STOPWORDS_ITALIAN",
    "norwegian": "STOPWORDS_NORWEGIAN",
    "portuguese": "STOPWORDS_PORTUGUESE",
    "russian": "STOPWORDS_RUSSIAN",
    "spanish": "STOPWORDS_SPANISH",
    "swedish": "STOPWORDS_SWEDISH",
    "turkish": "STOPWORDS_TURKISH",
}
_BITS = 32  # of a word's number, beside the number of its text
_COUNTS = {"row": pl.Int32, "term": pl.UInt64, "count": pl.Int32}


class WordsConfig(BaseModel):
    """What counts as one word."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    language: Language = Field(
        "any",
        description="`any`: words as they are, of any script; a language: without their endings (Snowball), and "
        "without words that say nothing (bm25s' lists, where it has one)",
    )


def count_words(texts: pl.Series, config: WordsConfig) -> pl.DataFrame:
    """Count the words of texts.

    Returns:
        row (Int32, of the text), term (UInt64, the word's hash), count (Int32): one line per text and distinct word,
        sorted by row and term. A text without words has no line.
    """
    found = texts.str.normalize("NFKC").str.to_lowercase().str.extract_all(_WORD)
    rows = np.repeat(np.arange(found.len(), dtype=np.int64), found.list.len().fill_null(0).to_numpy())
    # Words are numbered once, and whatever follows works on numbers: that takes a fraction of the time of strings.
    words = found.explode().drop_nulls().to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    keys, counts = np.unique((rows << _BITS) | words.indices.to_numpy(), return_counts=True)
    numbers = pl.DataFrame({"row": keys >> _BITS, "word": keys & ((1 << _BITS) - 1), "count": counts})
    terms = _terms(pl.Series(words.dictionary, dtype=pl.String), config)
    joined = numbers.join(terms, on="word")
    if terms["word"].is_duplicated().any() or terms["term"].is_duplicated().any():
        joined = joined.group_by("row", "term").agg(pl.col("count").sum())
    return joined.sort("row", "term").select(pl.col(name).cast(dtype) for name, dtype in _COUNTS.items())


def _terms(words: pl.Series, config: WordsConfig) -> pl.DataFrame:
    """Return `word` (the place of a distinct word) and `term`: several without spaces between words, none if empty."""
    spaced, pairs = list[tuple[int, str]](), list[tuple[int, str]]()
    for place, (word, unspaced) in enumerate(zip(words, words.str.contains(_IS_UNSPACED), strict=True)):
        if unspaced:
            pairs += [(place, pair) for pair in _pairs(word)]
        else:
            spaced.append((place, word))
    empty = _empty_words(config.language)
    spaced = [(place, word) for place, word in spaced if word not in empty]
    stems = _stemmed([word for _, word in spaced], config.language)
    pairs += [(place, stem) for (place, _), stem in zip(spaced, stems, strict=True)]
    hashes = {stem: hash_term(stem) for _, stem in pairs}
    found = {"word": [place for place, _ in pairs], "term": [hashes[stem] for _, stem in pairs]}
    return pl.DataFrame(found, schema={"word": pl.Int64, "term": pl.UInt64})


def hash_term(word: str) -> int:
    """Hash a word to 64 bits, the same on every machine.

    >>> hash_term("heron")
    5459160207008692845
    """
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def _pairs(run: str) -> list[str]:
    """Return the pairs of neighbouring characters of a run, or its only character."""
    return [run[at : at + 2] for at in range(max(len(run) - 1, 1))]


def _stemmed(words: list[str], language: str) -> list[str]:
    """Cut the endings off, where a language is named."""
    if language == "any":
        return words
    import Stemmer

    stemmer: Any = Stemmer.Stemmer(language)
    return list(stemmer.stemWords(words))


@cache
def _empty_words(language: str) -> frozenset[str]:
    if language not in _EMPTY_WORDS:
        return frozenset()
    from bm25s import stopwords

    return frozenset(getattr(stopwords, _EMPTY_WORDS[language]))
