"""Find the nearest texts of queries exactly, while blocks of vectors go by.

faiss multiplies blocks of queries and texts in float32 and keeps the highest products. BLAS rounds them differently in
blocks of other shapes, so they only decide which texts are certainly not among the nearest: those whose product is
below the bound by more than the largest possible error. The few others are scored by `dot_pairs`. So the result does
not depend on how the texts are cut into blocks, on their order, or on the number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from tasks.mining.encode import Positions, Vectors, dot_pairs

Scores = npt.NDArray[np.float32]
Groups = npt.NDArray[np.uint64]
Keys = npt.NDArray[np.uint64] | npt.NDArray[np.int64]

QUERIES = 1_024  # queries of one block, the most for which sort keys can be packed
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd: tells equal groups of different queries apart
_UNIT = 2.0**-24  # the largest relative error of one float32 operation
_SLACK = 24  # texts searched beyond those wanted: some do not count, and some are as near as the last
_AT_ONCE = 1 << 22  # scores and positions that faiss returns at a time
_GROWTH = 1.5  # pairs are sorted and cut when there are so many times as many as after the last time
_PLACES = 21  # bits of a position in a packed sort key; 32 are the score's, 10 the query's


class Nearest:
    """The nearest texts of up to 1,024 queries.

    Texts of one group count once, and those of a blocked group not at all: as many different groups as are wanted are
    kept, and all texts between them. A group is the first 64 bits of a hash. Two that are equal by chance make the list
    longer, never shorter.
    """

    def __init__(self, queries: Vectors, wanted: int) -> None:
        """Begin without texts.

        Args:
            queries: shape (queries, dimension).
            wanted: how many groups are kept for each query, at least 1.
        """
        self.queries, self._wanted = np.ascontiguousarray(queries), wanted
        self._norms = _norms(self.queries)
        self._longest = 0.0  # of the texts so far
        self._bound = np.full(len(queries), -np.inf, np.float32)  # the score of the last wanted group
        self._blocked: Groups = np.empty(0, np.uint64)
        self._pairs = [_Pairs.empty()]
        self._usual = len(queries) * wanted  # pairs after the last cut

    def block(self, rows: Positions, groups: Groups) -> None:
        """Do not count texts of these groups for these queries (row numbers), from now on."""
        self._blocked = np.unique(np.concatenate([self._blocked, _keys(rows, groups)]))

    def add(self, vectors: Vectors, groups: Groups, first: int, length: float | None = None) -> None:
        """Compare texts with all queries.

        Args:
            vectors: shape (texts, dimension).
            groups: of each text.
            first: the number of the first text, larger than those of all texts before; the others follow.
            length: `longest(vectors)`; the caller computes it once for several blocks of queries.
        """
        self._longest = max(self._longest, longest(vectors) if length is None else length)
        rows, depth = np.arange(len(self.queries)), self._wanted + _SLACK
        while len(rows) and len(vectors):
            depth, again = min(depth, len(vectors)), depth > self._wanted + _SLACK
            size = max(_AT_ONCE // depth, 1)
            left = list[Positions]()
            for some in (rows[start : start + size] for start in range(0, len(rows), size)):
                if again:
                    self._forget(some, first)
                left.append(self._search(some, depth, vectors, groups, first))
            rows, depth = np.concatenate(left), depth * 4
        self._score(vectors, first)

    def add_found(self, vectors: Vectors, groups: Groups, first: int, found: Positions) -> None:
        """Compare each query with some texts alone: `found` has a row of positions for each; -1 stands for none."""
        self._longest = max(self._longest, longest(vectors))
        rows, columns = np.nonzero(found >= 0)
        texts = found[rows, columns]
        scores = dot_pairs(self.queries, vectors, rows, texts).to_numpy().astype(np.float32)
        self._pairs.append(_Pairs.of(rows, texts + first, scores, groups[texts]))
        if self._count() > _GROWTH * self._usual:
            self._cut()

    def result(self) -> tuple[Positions, Positions, Scores]:
        """Return queries' rows, texts' numbers and scores, sorted by row and by score, the highest first.

        Behind the last wanted group there may be a few texts more.
        """
        self._cut()
        pairs = self._pairs[0]
        return pairs.rows.astype(np.int64), pairs.texts.astype(np.int64), pairs.scores

    def _lowest(self, bound: Scores, rows: Positions | slice = slice(None)) -> Scores:
        """Return the score below which a text's exact score cannot reach the bound of its query (-inf: none).

        Any order of summation, and one rounding at the end, leaves an inner product within `error` of the exact one;
        and the bound may be as wrong as the score that is compared with it.
        """
        error = 1.01 * (self.queries.shape[1] + 2) * _UNIT * self._longest * self._norms[rows]
        lowest: Scores = (bound - 2 * error).astype(np.float32)
        return lowest

    def _search(self, rows: Positions, depth: int, vectors: Vectors, groups: Groups, first: int) -> Positions:
        """Take of the `depth` texts with the highest products those that can be among the nearest.

        Returns the rows of the queries for which a text that was left out can be among them too.
        """
        scores, texts = faiss.knn(self.queries[rows], vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
        inside = scores >= self._lowest(self._bound[rows], rows)[:, None]
        found, texts = rows[np.nonzero(inside)[0]], texts[inside]
        self._pairs.append(_Pairs.of(found, texts + first, scores[inside], groups[texts]))
        self._cut()
        left_out = scores[:, -1] >= self._lowest(self._bound[rows], rows)
        return rows[left_out] if depth < len(vectors) else rows[:0]

    def _forget(self, rows: Positions, first: int) -> None:
        """Drop what these queries found in the texts from `first` on: they are searched again."""
        pairs = _Pairs.join(self._pairs)
        found = np.isin(pairs.rows, rows) & (pairs.texts >= first)
        self._pairs = [pairs.take(np.flatnonzero(~found))]

    def _score(self, vectors: Vectors, first: int) -> None:
        """Score the pairs with these texts exactly; before that their scores are those of the matrix product."""
        pairs = _Pairs.join(self._pairs)
        new = np.flatnonzero(pairs.texts >= first)
        rows, texts = pairs.rows[new].astype(np.int64), pairs.texts[new].astype(np.int64)
        scored = dot_pairs(self.queries, vectors, rows, texts - first)
        pairs.scores[new] = scored.to_numpy()
        self._pairs = [pairs]

    def _count(self) -> int:
        return sum(len(pairs.rows) for pairs in self._pairs)

    def _cut(self) -> None:
        """Sort all pairs by query and score, find each query's bound, and drop what is certainly below it."""
        pairs = _Pairs.join(self._pairs)
        pairs = pairs.take(_order(pairs.rows, pairs.scores))
        counted = np.flatnonzero(~is_in(pairs.keys, self._blocked))
        counted = counted[are_first(pairs.keys[counted])]
        rows = pairs.rows[counted]
        starts = np.searchsorted(rows, np.arange(len(self._bound)))
        last = starts + self._wanted - 1
        full = last < np.append(starts[1:], len(rows))
        self._bound[full] = pairs.scores[counted[last[full]]]
        kept = pairs.scores >= self._lowest(self._bound)[pairs.rows]
        self._pairs = [pairs if kept.all() else pairs.take(np.flatnonzero(kept))]
        self._usual = max(self._count(), len(self._bound) * self._wanted)


@dataclass(frozen=True)
class _Pairs:
    """Queries and texts: row of the query, number of the text, score, and the key of both query and group."""

    rows: npt.NDArray[np.int32]
    texts: npt.NDArray[np.int32]
    scores: Scores
    keys: Groups

    @classmethod
    def empty(cls) -> "_Pairs":
        none = np.empty(0, np.int32)
        return cls(none, none, np.empty(0, np.float32), np.empty(0, np.uint64))

    @classmethod
    def of(cls, rows: Positions, texts: Positions, scores: Scores, groups: Groups) -> "_Pairs":
        return cls(rows.astype(np.int32), texts.astype(np.int32), scores, _keys(rows, groups))

    @classmethod
    def join(cls, several: Sequence["_Pairs"]) -> "_Pairs":
        if len(several) == 1:
            return several[0]
        columns = ("rows", "texts", "scores", "keys")
        return cls(*(np.concatenate([getattr(pairs, name) for pairs in several]) for name in columns))

    def take(self, places: Positions) -> "_Pairs":
        return _Pairs(self.rows[places], self.texts[places], self.scores[places], self.keys[places])


def longest(vectors: Vectors) -> float:
    """Return the length of the longest vector, a little too large rather than too small; 0 where there is none.

    >>> 5 <= longest(np.array([[3, 4], [1, 0]], np.float32)) < 5.00001
    True
    """
    return float(_norms(vectors).max(initial=0.0))


def _norms(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Return the lengths of vectors, a little too large rather than too small."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    norms: npt.NDArray[np.float64] = np.sqrt(squares.astype(np.float64)) * (1 + vectors.shape[1] * _UNIT)
    return norms


def _keys(rows: Positions, groups: Groups) -> Groups:
    """Return one number for query and group. Where two are equal by chance, a text too few is counted."""
    keys: Groups = groups + rows.astype(np.uint64) * _SPREAD
    return keys


def is_in(keys: Keys, known: Keys) -> npt.NDArray[np.bool_]:
    """Tell which keys are among sorted ones."""
    if not len(known):
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[at] == keys
    return found


def are_first(keys: Keys) -> npt.NDArray[np.bool_]:
    """Tell which keys are there for the first time."""
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    first = np.ones(len(keys), bool)
    if len(twice):
        places = np.flatnonzero(is_in(keys, twice))
        first[places] = False
        first[places[np.unique(keys[places], return_index=True)[1]]] = True
    return first


def _order(rows: npt.NDArray[np.int32], scores: Scores) -> Positions:
    """Return the order by row and by score, the highest first. One sort of packed numbers is several times faster."""
    if len(rows) >= 1 << _PLACES:
        found: Positions = np.lexsort((-scores, rows)).astype(np.int64)
        return found
    bits = np.ascontiguousarray(scores + np.float32(0.0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    falling = np.where(bits < 0, (1 << 31) + (bits & 0x7FFFFFFF), 0x7FFFFFFF - bits)
    packed = (rows.astype(np.int64) << (32 + _PLACES)) | (falling << _PLACES) | np.arange(len(rows))
    order: Positions = np.sort(packed) & ((1 << _PLACES) - 1)
    return order
