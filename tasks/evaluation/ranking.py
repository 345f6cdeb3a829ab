"""Rank the passages of a corpus for queries, exactly, while the corpus goes by part by part."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from tasks.mining.dense.nearest import QUERIES, Nearest
from tasks.mining.encode import Vectors

RANKED = {"query_id": pl.String, "doc_id": pl.String, "score": pl.Float64}
_IDS = {"number": pl.Int64, "doc_id": pl.String}
_PAIR = {"row": pl.Int64, "number": pl.Int64}


class TopPassages:
    """The `depth` passages with the highest inner product with each query's vector.

    The result does not depend on how the corpus is cut into parts. What is kept grows with the queries and the depth,
    and not with the corpus.
    """

    def __init__(self, query_ids: pl.Series, vectors: Vectors, depth: int) -> None:
        """Begin without passages.

        Args:
            query_ids: of the queries, each once.
            vectors: of the queries, shape (queries, dimension).
            depth: passages ranked for each query, at least 1.
        """
        self._query_ids, self._depth = query_ids, depth
        self._blocks = [
            (start, Nearest(vectors[start : start + QUERIES], depth)) for start in range(0, len(vectors), QUERIES)
        ]
        self._rows = pl.DataFrame({"query_id": query_ids}).with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
        self._ids = pl.DataFrame(schema=_IDS)  # of the passages that some query has found
        self._left_out = pl.DataFrame(schema=_PAIR)
        self._seen = 0

    def add(self, doc_ids: pl.Series, vectors: Vectors, left_out: pl.DataFrame | None = None) -> None:
        """Compare passages with all queries.

        Args:
            doc_ids: of the passages.
            vectors: of the passages, shape (passages, dimension).
            left_out: query_id and doc_id of the pairs that are not ranked; of passages of other parts too.
        """
        first, count = self._seen, len(vectors)
        numbers = np.arange(first, first + count)
        here = pl.DataFrame({"number": numbers, "doc_id": doc_ids}, schema=_IDS)
        if left_out is not None:
            pairs = left_out.join(self._rows, on="query_id").join(here, on="doc_id").select(*_PAIR)
            self._left_out = pl.concat([self._left_out, pairs])
            self._block(pairs)
        for _, nearest in self._blocks:
            nearest.add(vectors, numbers.astype(np.uint64), first)
        self._seen += count
        found = [np.empty(0, np.int64), *(nearest.result()[1] for _, nearest in self._blocks)]
        kept = pl.DataFrame({"number": np.unique(np.concatenate(found))})
        self._ids = pl.concat([self._ids, here]).join(kept, on="number", how="semi")

    def _block(self, pairs: pl.DataFrame) -> None:
        """Let these pairs take no other passage's place."""
        rows, numbers = pairs["row"].to_numpy(), pairs["number"].to_numpy()
        for start, nearest in self._blocks:
            inside = (rows >= start) & (rows < start + QUERIES)
            nearest.block(rows[inside] - start, numbers[inside].astype(np.uint64))

    def ranked(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield query_id, doc_id and score for `QUERIES` queries at a time, sorted by rank, and the first one's number.

        Of equal scores the larger doc_id is first, as in trec_eval. A query without passages has no row.
        """
        for start, nearest in self._blocks:
            rows, numbers, scores = nearest.result()
            pairs = pl.DataFrame({"row": rows + start, "number": numbers, "score": scores.astype(np.float64)})
            named = pairs.join(self._ids, on="number").join(self._left_out, on=list(_PAIR), how="anti")
            ordered = named.sort("row", "score", "doc_id", descending=[False, True, True])
            kept = ordered.filter(pl.int_range(pl.len()).over("row") < self._depth)
            yield start, kept.with_columns(query_id=self._query_ids.gather(kept["row"])).select(*RANKED)
