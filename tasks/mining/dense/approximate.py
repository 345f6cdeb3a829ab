"""Compare a query with few of the texts: those in the lists nearest to it (faiss' IndexIVFFlat).

The texts of several parts of a corpus are put into one index at a time, so memory stays bounded. What a query finds in
an index is scored exactly, and goes into one list with what it found before. Clustering and search have a single thread
in each call, so the result does not depend on the number of threads. It does depend on which texts share an index.

Some queries are also compared with all texts, to measure what the lists miss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tasks.mining.dense.corpus import Block, Waiting
from tasks.mining.dense.nearest import Groups, Nearest, is_in
from tasks.mining.encode import Positions, Vectors
from tasks.mining.search import SearchConfig

_BYTES = 512 * 2**20  # of the vectors in one index
_POINTS = 39  # texts that a list needs; faiss warns below
_MORE = 32  # texts found beyond the depth: some are masked
_SAMPLE = 200  # queries that are compared with all texts


@dataclass(frozen=True)
class Measured:
    """Of the texts nearest to some queries by an exact search, how many an approximate one found.

    exactly: texts that were compared with all queries, because they were too few for lists.
    """

    queries: int
    nearest: int
    found: int
    exactly: int


class Sampled:
    """The texts that wait for an index, the indexes' settings, and the queries that are compared with all texts."""

    def __init__(self, config: SearchConfig, hashes: pl.Series, vectors: Vectors) -> None:
        """Choose these queries by the hashes of their texts; `vectors` has a row for each query."""
        self._config = config
        self._rows = np.sort(hashes.arg_sort().head(_SAMPLE).to_numpy().astype(np.int64))
        self.exact = Nearest(vectors[self._rows], config.depth)
        self._waiting = Waiting()
        self._exactly = 0

    def wait(self, block: Block) -> bool:
        """Keep a block; returns whether there are enough texts for an index."""
        self._waiting.add(block)
        return self._waiting.nbytes >= _BYTES

    def take(self) -> tuple[Vectors, Groups]:
        """Return the vectors and groups of the texts that wait; none waits afterwards."""
        return self._waiting.take()

    def build(self, vectors: Vectors) -> Any | None:  # noqa: ANN401 - faiss has no types
        """Cluster vectors into lists; None if there are too few of them, and all must be compared."""
        import faiss

        lists = count_lists(self._config.nlist, len(vectors))
        if not lists:
            self._exactly += len(vectors)
            return None
        faiss.omp_set_num_threads(1)
        dimension = vectors.shape[1]
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = self._config.seed
        index.train(vectors)
        index.add(vectors)
        index.nprobe = min(self._config.nprobe, lists)
        return index

    def find(self, index: Any, queries: Vectors) -> Positions:  # noqa: ANN401 - faiss has no types
        """Return positions of texts for each query, -1 for none; pass the same queries together each time."""
        import faiss

        faiss.omp_set_num_threads(1)
        found: Positions = index.search(queries, min(self._config.depth + _MORE, index.ntotal))[1]
        return found

    def measure(self, rows: Positions, texts: Positions) -> Measured:
        """Compare what was found, as rows of queries and numbers of texts, with the nearest of the sampled queries."""
        own, nearest, _ = self.exact.result()
        first = np.arange(len(own)) - np.searchsorted(own, own) < self._config.depth
        own, nearest = self._rows[own[first]], nearest[first]
        count = int(max(nearest.max(initial=0), texts.max(initial=0))) + 1
        there = is_in(own * count + nearest, np.sort(rows * count + texts))
        return Measured(len(self._rows), len(own), int(there.sum()), self._exactly)


def count_lists(wanted: int | None, texts: int) -> int:
    """Return how many lists an index of so many texts has; 0 if they are too few for as many as are wanted.

    >>> count_lists(None, 1_000), count_lists(None, 50_000), count_lists(100, 3_900), count_lists(100, 3_899)
    (0, 446, 100, 0)
    """
    lists = wanted or 2 * math.isqrt(texts)
    return lists if texts >= _POINTS * lists else 0


def recall_of(several: Sequence[Measured]) -> dict[str, Any]:
    """Sum up several datasets: `recall` is the share of the nearest texts that was found.

    >>> recall_of([Measured(2, 10, 9, 0), Measured(2, 10, 10, 30)])
    {'recall': 0.95, 'recall_queries': 4, 'recall_nearest': 20, 'searched_exactly': 30}
    """
    nearest = sum(each.nearest for each in several)
    return {
        "recall": round(sum(each.found for each in several) / nearest, 4) if nearest else 1.0,
        "recall_queries": sum(each.queries for each in several),
        "recall_nearest": nearest,
        "searched_exactly": sum(each.exactly for each in several),
    }
