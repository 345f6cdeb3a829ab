"""The words of some queries in one part of the corpus, weighted, as an index of bm25s; exact nearest passages by it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Positions = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

_FREQUENT = 8  # a word in more than one of so many passages is looked up, and not walked through


@dataclass(frozen=True)
class Corpus:
    """What BM25 knows of the whole corpus of a dataset, and its two settings.

    passages: how many there are. words: in a passage, on average.
    """

    passages: int
    words: float
    k1: float
    b: float

    def rarity(self, frequencies: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return Lucene's inverse document frequency of words that stand in so many passages each."""
        return np.asarray(np.log(1 + (self.passages - frequencies + 0.5) / (frequencies + 0.5)), dtype=np.float64)

    def saturation(self, counts: npt.NDArray[Any], words: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return how much a word counts that stands `counts` times in a passage of `words` words: 0 to 1."""
        return counts / (counts + self.k1 * (1 - self.b + self.b * words / self.words))


class PartIndex:
    """BM25 weights of words in the passages of one dataset in one part.

    Words are ordered by their frequency in the whole corpus, then by their hash. Scores are sums of float32 in this
    order, so they depend neither on the part nor on the other queries.
    """

    def __init__(self, asked: pl.DataFrame, postings: pl.DataFrame, words: pl.Series, corpus: Corpus) -> None:
        """Weigh the words.

        Args:
            asked: `term` and `passages`: the distinct words of the queries, and in how many passages of the whole
                corpus each stands.
            postings: `term`, `doc` (row of the passage, from 0) and `count`, of this dataset alone.
            words: of each passage, how many words it has.
            corpus: the statistics of the whole.
        """
        import bm25s

        ordered = asked.sort("passages", "term").with_columns(word=pl.int_range(pl.len(), dtype=pl.Int64))
        self.terms = ordered.select("term", "word")
        found = postings.join(ordered, on="term").sort("word", "doc")
        rarity = corpus.rarity(found["passages"].to_numpy())
        lengths = words.gather(found["doc"]).to_numpy()
        weights = rarity * corpus.saturation(found["count"].to_numpy(), lengths)
        self._size = words.len()
        self._frequent = int((ordered["passages"] * _FREQUENT <= corpus.passages).sum())  # the first frequent word
        starts = np.searchsorted(found["word"].to_numpy(), np.arange(ordered.height + 1))
        self._bm25: Any = bm25s.BM25(k1=corpus.k1, b=corpus.b, method="lucene", backend="numpy")
        self._bm25.nonoccurrence_array = None
        self._bm25.scores = {
            "data": weights.astype(np.float32),
            "indices": found["doc"].to_numpy().astype(np.int64),
            "indptr": starts.astype(np.int64),
            "num_docs": self._size,
        }

    @cached_property
    def _rows(self) -> Scores:
        """The weights of the frequent words: one row per word, one column per passage."""
        scores = self._bm25.scores
        rows = np.zeros((len(scores["indptr"]) - 1 - self._frequent, self._size), dtype=np.float32)
        for row, word in enumerate(range(self._frequent, len(scores["indptr"]) - 1)):
            inside = slice(scores["indptr"][word], scores["indptr"][word + 1])
            rows[row, scores["indices"][inside]] = scores["data"][inside]
        return rows

    @cached_property
    def _highest(self) -> Scores:
        """The largest weight of each frequent word."""
        return np.asarray(self._rows.max(axis=1, initial=0), dtype=np.float32)

    def nearest(self, words: Positions, depth: int) -> tuple[Positions, Scores]:
        """Return the passages with the `depth` highest scores, all that tie with the last, and their scores.

        A passage without any of the words is not among them.

        Args:
            words: of one query, with repetitions, ascending; as `terms` numbers them.
            depth: how many.
        """
        rare, frequent = words[words < self._frequent], words[words >= self._frequent] - self._frequent
        scores: Scores = self._bm25.get_scores_from_ids(rare)
        passages = np.flatnonzero(scores)
        if len(frequent):
            passages = self._worth_a_look(scores, passages, float(self._highest[frequent].sum()), depth)
        kept = scores[passages]
        for row in frequent:
            kept += self._rows[row, passages]
        if len(kept) > depth:
            inside = kept >= np.partition(kept, len(kept) - depth)[len(kept) - depth]
            passages, kept = passages[inside], kept[inside]
        return passages[kept > 0], kept[kept > 0]

    def _worth_a_look(self, scores: Scores, reached: Positions, further: float, depth: int) -> Positions:
        """Return the passages that frequent words, which add `further` at most, can bring among the first `depth`."""
        if len(reached) > depth:
            partial = scores[reached]
            least = float(np.partition(partial, len(partial) - depth)[len(partial) - depth]) * (1 - 1e-5)
            if further < least:
                return reached[partial >= least - further]
        return np.arange(self._size)

    def walk(self, asked: pl.DataFrame, depth: int) -> Iterator[tuple[int, Positions, Scores]]:
        """Yield for each query its row and what `nearest` finds.

        asked: `row` of the query, `term` and `count`; terms that no query was announced with are left out.
        """
        known = asked.join(self.terms, on="term").sort("row", "word")
        for (row,), words in known.group_by("row", maintain_order=True):
            yield int(str(row)), *self.nearest(np.repeat(words["word"].to_numpy(), words["count"].to_numpy()), depth)
