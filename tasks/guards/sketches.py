"""Shingles of texts, the buckets in which near duplicates meet, and the similarity of two texts.

A text's shingles are its runs of seven characters; a run that begins with a Chinese, Japanese or Korean character has
three, because these say as much. A sketch keeps, of the shingles whose hash falls into each of 80 ranges, the smallest
hash (one permutation hashing); a range without a shingle takes the number of another range, chosen by a fixed order.
Four numbers form the key of a bucket. Two texts of similarity s share one of their 20 buckets with a probability of
about 1 - (1 - s⁴)²⁰: 0.94 at 0.6 and 0.999 at 0.75.

The numbers are computed here, and not by a library, because buckets of different nights and machines must be the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.texts import normalise

Numbers = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

BANDS, ROWS = 20, 4
LONG, SHORT = 7, 3  # characters of a shingle; SHORT where the characters are as words are elsewhere
_SIZE = BANDS * ROWS
_BITS = np.uint64(48)  # of a shingle's hash; the other 16 tell the texts of one slice apart
_MASK = np.uint64(2**48 - 1)
_CHARACTERS, _TEXTS = 1_000_000, 2**16  # in one slice
# `#`, `%`, `&` and `@` change what is meant (C# is not C); other punctuation does not.
_PUNCTUATION = r"[\p{P}\p{Z}\p{C}\s&&[^#%&@]]+"


@dataclass(frozen=True)
class Shingles:
    """The shingles of several texts: those of text i are `values[starts[i] : starts[i + 1]]`, sorted, each once."""

    values: Numbers
    starts: Rows

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.starts) - 1

    def of(self, row: int) -> Numbers:
        """Return the shingles of one text."""
        return self.values[self.starts[row] : self.starts[row + 1]]


def plain(texts: pl.Series) -> pl.Series:
    """Return texts without what makes no difference: case, punctuation, Unicode form and spaces.

    A text of punctuation alone keeps it.

    >>> plain(pl.Series(["How  do I boil an EGG?", "???", "C#"])).to_list()
    ['how do i boil an egg', '???', 'c#']
    """
    normal = pl.Series("text", [normalise(text) for text in texts], dtype=pl.String).to_frame()
    bare = pl.col("text").str.replace_all(_PUNCTUATION, " ").str.strip_chars()
    return normal.select(pl.when(bare == "").then("text").otherwise(bare)).to_series()


def shingle(texts: pl.Series) -> Shingles:
    """Return the shingles of texts, in order; every text has one at least."""
    bare = plain(texts).to_list()
    values, counts = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for start, end in _slices(bare):
        found, count = _shingles(bare[start:end])
        values.append(found)
        counts.append(count)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return Shingles(np.concatenate(values), starts)


def bucket_keys(shingles: Shingles) -> Numbers:
    """Return the keys of the buckets of each text: an array of texts x BANDS. Near duplicates share a key, likely."""
    keys = np.empty((len(shingles), BANDS), dtype=np.uint64)
    for start in range(0, len(shingles), _TEXTS):
        end = min(start + _TEXTS, len(shingles))
        sketch = _sketch(shingles, start, end)
        for band in range(BANDS):
            key = np.full(end - start, band, dtype=np.uint64)
            for row in range(ROWS):
                key = _mix(key ^ sketch[:, band + row * BANDS])
            keys[start:end, band] = key
    return keys


def similarities(left: Shingles, left_rows: Rows, right: Shingles, right_rows: Rows, least: float) -> list[float]:
    """Return the Jaccard similarity of pairs of texts; 0 where it cannot reach `least`.

    Args:
        left: the shingles of the first texts.
        left_rows: the row of each pair's first text.
        right: the shingles of the second texts.
        right_rows: the row of each pair's second text.
        least: a similarity from 0 to 1; pairs whose numbers of shingles differ too much for it are not compared.
    """
    sizes = [np.diff(side.starts)[rows] for side, rows in ((left, left_rows), (right, right_rows))]
    low, high = np.minimum(*sizes), np.maximum(*sizes)
    found = [0.0] * len(left_rows)
    for pair in np.flatnonzero(low >= least * high):
        common = len(np.intersect1d(left.of(left_rows[pair]), right.of(right_rows[pair]), assume_unique=True))
        found[pair] = common / int(low[pair] + high[pair] - common)
    return found


def _slices(texts: list[str]) -> Iterator[tuple[int, int]]:
    """Cut texts into slices of about `_CHARACTERS` characters and at most `_TEXTS` texts."""
    start, size = 0, 0
    for row, text in enumerate(texts):
        if row > start and (size + len(text) > _CHARACTERS or row - start == _TEXTS):
            yield start, row
            start, size = row, 0
        size += len(text)
    if texts:
        yield start, len(texts)


def _shingles(texts: list[str]) -> tuple[Numbers, Rows]:
    """Return the shingles of the texts of one slice one after another, and their number for each."""
    padded = [f" {text} ".ljust(LONG) for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    owner = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(points))  # characters up to the end of the text
    whole, short = points.copy(), points
    for shift in range(1, LONG):
        whole = whole * np.uint64(0x100000001B3) ^ np.roll(points, -shift)
        short = whole if shift == SHORT - 1 else short
    wordlike = _is_wordlike(points)
    chosen = left >= np.where(wordlike, SHORT, LONG)
    hashes = _mix(np.where(wordlike, short, whole)[chosen]) & _MASK
    sorted_ = np.sort(owner[chosen] << _BITS | hashes)
    distinct = sorted_[np.concatenate([[True], sorted_[1:] != sorted_[:-1]])]
    return distinct & _MASK, np.bincount((distinct >> _BITS).astype(np.int64), minlength=len(texts))


def _is_wordlike(points: Numbers) -> npt.NDArray[np.bool_]:
    """Tell which characters are Chinese, Japanese or Korean."""
    ranges = ((0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
    found = np.zeros(len(points), dtype=np.bool_)
    for first, last in ranges:
        found |= (points >= first) & (points <= last)
    return found


def _sketch(shingles: Shingles, start: int, end: int) -> Numbers:
    """Return the sketches of the texts of some rows: an array of texts x _SIZE.

    The shingles of a text are sorted, so those of one range stand together and the smallest stands first.
    """
    counts = np.diff(shingles.starts[start : end + 1])
    values = shingles.values[shingles.starts[start] : shingles.starts[end]]
    rows = np.repeat(np.arange(end - start), counts)
    ranges = (values * np.uint64(_SIZE) >> _BITS).astype(np.int64)
    place = rows * _SIZE + ranges
    first = np.concatenate([[True], place[1:] != place[:-1]])[: len(place)]
    sketch = np.zeros((end - start) * _SIZE, dtype=np.uint64)
    filled = np.zeros((end - start) * _SIZE, dtype=np.bool_)
    sketch[place[first]], filled[place[first]] = values[first], True
    smallest, there = sketch.reshape(-1, _SIZE), filled.reshape(-1, _SIZE)
    every = np.arange(end - start)
    full = np.empty_like(smallest)
    for number, order in enumerate(_orders()):
        full[:, number] = smallest[every, order[there[:, order].argmax(axis=1)]]
    return full


def _orders() -> Rows:
    """Return for each range the order in which other ranges stand in for it; the first is the range itself."""
    numbers = _mix(np.arange(1, _SIZE * _SIZE + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    numbers = numbers.reshape(_SIZE, _SIZE)
    np.fill_diagonal(numbers, 0)
    return np.argsort(numbers, axis=1, kind="stable")


def _mix(values: Numbers) -> Numbers:
    """Spread the bits of numbers (the end of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
