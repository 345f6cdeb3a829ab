"""Cut queries or passages into parts, so that a part keeps its texts when the source grows.

The texts of the first ingest are generation 0. Texts that an ingest before did not have are a generation of their own,
with parts of its own, numbered after those of the older generations. Within its generation, a text's part is its hash
modulo the number of the generation's parts (`tasks.texts.part_of`).
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks import schemas
from tasks.data.ingesting.text_store import Words, part_of_hashes

_QUERIES = 1_000  # most queries of a part on average
_FEW_QUERIES, _PARTS = 256, 200  # of a smaller set: so many queries a part, up to so many parts
_PASSAGES = 50_000  # most passages of a part on average
_CODE = 4  # bytes of a dataset's hash


class CountParts(Protocol):
    """Returns how many parts a generation has, for the number of its texts and whether it is the first."""

    def __call__(self, texts: int, /, *, first: bool) -> int: ...  # noqa: D102 - as above


@dataclass(frozen=True)
class Before:
    """Where earlier ingests put texts of one kind.

    places: `schemas.PLACES`; of a text that is there twice, the first row counts. counts: how many parts each
    generation has. Texts of later generations than these count as unknown.
    """

    places: pl.DataFrame
    counts: tuple[int, ...]

    @classmethod
    def of(cls, kind: str, places: pl.DataFrame | None, generations: pl.DataFrame | None) -> "Before | None":
        """Take the generations of one kind (`query` or `passage`); None where there was no ingest before."""
        if places is None or generations is None:
            return None
        return cls(places, tuple(generations.filter(kind=kind).sort("generation")["parts"]))


@dataclass(frozen=True)
class Cut:
    """How texts are cut into parts.

    part: of each text. counts: how many parts each generation has; part numbers run on. new: how many texts were not
    there before. places: for the next ingest, generation after generation, each in the order of its keys.
    """

    part: npt.NDArray[np.uint32]
    counts: tuple[int, ...]
    new: int
    places: pl.DataFrame

    @property
    def parts(self) -> int:
        """How many parts there are; some may be empty."""
        return sum(self.counts)

    def places_by_generation(self) -> Iterator[pl.DataFrame]:
        """Yield the places of each generation. Growth adds a generation and leaves the frames of the others equal."""
        return (self.places.filter(pl.col("generation") == number) for number in range(len(self.counts)))


def count_query_parts(queries: int, *, first: bool = True, wanted: int | None = None) -> int:
    """Return how many parts a generation of queries has: hundreds where there are enough, each of seconds to minutes.

    A later generation has no more than it needs, so that growth by one percent has about one percent of the parts.

    wanted: `ingest.query_parts`; a later generation has as many only if its size asks for it.

    >>> [count_query_parts(n) for n in (147, 10_000, 100_000, 680_000)]
    [1, 40, 200, 680]
    >>> [count_query_parts(n, first=False) for n in (300, 1_000, 6_800)]
    [1, 1, 7]
    """
    usual = math.ceil(queries / _QUERIES)
    if first:
        usual = max(usual, min(math.ceil(queries / _FEW_QUERIES), _PARTS))
    return _wanted(usual, wanted, first=first)


def count_passage_parts(passages: int, *, first: bool = True, wanted: int | None = None) -> int:
    """Return how many parts a generation of passages has; `wanted` is `ingest.passage_parts`."""
    return _wanted(math.ceil(passages / _PASSAGES), wanted, first=first)


def _wanted(usual: int, wanted: int | None, *, first: bool) -> int:
    if wanted is None:
        return usual
    return wanted if first else min(usual, wanted)


def cut(texts: pl.DataFrame, before: Before | None, count: CountParts) -> Cut:
    """Cut texts into parts.

    Args:
        texts: `dataset`, `high` and `low` (the halves of the text's hash); no text twice in a dataset.
        before: where texts were before.
        count: returns how many parts a generation has.
    """
    keys = _keys(texts["dataset"], texts["high"].to_numpy())
    order = np.argsort(keys, kind="stable")
    known = np.full(keys.size, -1, dtype=np.int32) if before is None else _find(before, keys[order])
    new = known < 0
    counts = () if before is None else before.counts
    if new.any():
        known[new] = len(counts)
        counts = (*counts, count(int(new.sum()), first=not counts))
    generation = np.empty_like(known)
    generation[order] = known
    return Cut(_parts(texts, generation, counts), counts, int(new.sum()), _places(texts, order, known))


def generations_of(**kinds: Sequence[int]) -> pl.DataFrame:
    """Write the numbers of parts of the generations of each kind as `schemas.GENERATIONS`.

    >>> generations_of(query=(3, 1), passage=(20,)).rows()
    [('passage', 0, 20), ('query', 0, 3), ('query', 1, 1)]
    """
    rows = [(kind, number, parts) for kind in sorted(kinds) for number, parts in enumerate(kinds[kind])]
    return pl.DataFrame(rows, schema=schemas.GENERATIONS.columns, orient="row")


def _parts(texts: pl.DataFrame, generation: npt.NDArray[np.int32], counts: tuple[int, ...]) -> npt.NDArray[np.uint32]:
    high, low = texts["high"].to_numpy(), texts["low"].to_numpy()
    part = np.empty(generation.size, dtype=np.uint32)
    first = 0
    for number, parts in enumerate(counts):
        own = np.flatnonzero(generation == number)
        part[own] = part_of_hashes(high[own], low[own], parts) + np.uint32(first)
        first += parts
    return part


def _places(texts: pl.DataFrame, order: npt.NDArray[np.intp], generation: npt.NDArray[np.int32]) -> pl.DataFrame:
    """List the texts by generation, then in the order of their keys, whatever order they came in."""
    by_generation = np.argsort(generation, kind="stable")
    order = order[by_generation]
    columns = {
        "dataset": _codes(texts["dataset"])[order],
        "high": texts["high"].to_numpy()[order],
        "generation": generation[by_generation].astype(np.uint16),
    }
    return pl.DataFrame(columns, schema=schemas.PLACES.columns)


def _find(before: Before, keys: Words) -> npt.NDArray[np.int32]:
    """Return the generation of each key, or -1 for one that is not known. The keys are in rising order."""
    found = np.full(keys.size, -1, dtype=np.int32)
    if before.places.is_empty():
        return found
    known = before.places["high"].to_numpy() ^ _spread(before.places["dataset"].to_numpy())
    order = np.argsort(known, kind="stable")
    known = known[order]
    at = np.minimum(np.searchsorted(known, keys), known.size - 1)
    generation = before.places["generation"].to_numpy()[order[at]].astype(np.int32)
    same = (known[at] == keys) & (generation < len(before.counts))
    found[same] = generation[same]
    return found


def _keys(datasets: pl.Series, high: Words) -> Words:
    """Return one number for each dataset and text. If two texts had the same, both would be of one generation."""
    keys: Words = high ^ _spread(_codes(datasets))
    return keys


def _spread(codes: npt.NDArray[np.uint32]) -> Words:
    spread: Words = codes.astype(np.uint64) << np.uint64(32)
    return spread


def _codes(datasets: pl.Series) -> npt.NDArray[np.uint32]:
    """Return the beginning of the hash of each dataset's name."""
    named = datasets.cast(pl.Categorical)
    names, numbers = named.unique(), named.to_physical().to_numpy()
    code = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.uint32)
    digests = [hashlib.sha256(name.encode()).digest() for name in names.cast(pl.String)]
    code[names.to_physical().to_numpy()] = [int.from_bytes(digest[:_CODE]) for digest in digests]
    codes: npt.NDArray[np.uint32] = code[numbers]
    return codes
