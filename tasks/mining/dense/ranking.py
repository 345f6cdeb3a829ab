"""Rank the passages of a whole corpus block by block of queries, and write them as hits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks import schemas
from tasks.mining.dense.nearest import Scores, are_first, is_in
from tasks.mining.encode import Positions

_QUERY = ["dataset", "query_id"]
_HASHES = ["text_hash", "shown_hash", "guard_hash"]
_DENSE = "dense"


@dataclass(frozen=True)
class Hits:
    """Rows of queries and of passages, the latter sorted by doc_id, with score and rank; sorted by the rows."""

    rows: Positions
    passages: Positions
    scores: Scores
    ranks: Positions

    @classmethod
    def join(cls, several: Sequence["Hits"]) -> "Hits":
        """Put hits together whose rows follow each other."""
        columns = ("rows", "passages", "scores", "ranks")
        return cls(*(np.concatenate([getattr(hits, name) for hits in several]) for name in columns))

    def take(self, places: slice | Positions) -> "Hits":
        """Return some of them."""
        return Hits(self.rows[places], self.passages[places], self.scores[places], self.ranks[places])


@dataclass(frozen=True)
class Ranked:
    """The hits of one dataset's queries, ready to be written part by part."""

    queries: pl.DataFrame
    ranking: "Ranking"
    hits: Hits

    def hits_of(self, part: int) -> pl.DataFrame:
        """Return the hits of the queries of one part, as `schemas.HITS`."""
        rows = self.queries.filter(pl.col("part") == part)["row"]
        if not rows.len():
            return schemas.HITS.empty()
        inside = slice(*np.searchsorted(self.hits.rows, (rows[0], rows[-1] + 1)))
        return self.ranking.frame(self.queries, self.hits.take(inside))


@dataclass(frozen=True)
class Ranking:
    """What decides the ranks of hits besides their scores.

    passages: sorted by doc_id: their rows decide between equal scores.
    by_text: rows of the passages, text by text; those of text t are at `starts[t]` to `starts[t + 1]`.
    copies: for each passage, the first row with the same normalised text.
    own, masked: keys of pairs (row of the query * passages + row of the passage), sorted; `repeats` of the first.
    """

    passages: pl.DataFrame
    by_text: Positions
    starts: Positions
    copies: Positions
    own: Positions
    repeats: pl.Series
    masked: Positions
    depth: int

    @classmethod
    def of(
        cls,
        passages: Sequence[pl.DataFrame],
        own: Sequence[pl.DataFrame],
        masked: Sequence[pl.DataFrame],
        depth: int,
    ) -> "Ranking":
        """Put the parts of the corpus together."""
        empty = pl.DataFrame(schema=dict.fromkeys(["doc_id", *_HASHES], pl.String) | {"place": pl.Int64})
        ordered = pl.concat([empty, *passages]).sort("doc_id").with_row_index("number")
        places = ordered["place"].to_numpy()
        by_text = np.argsort(places, kind="stable")
        texts = int(places.max(initial=-1)) + 1
        pairs = [_number(several, ordered).sort("key") for several in (own, masked)]
        return cls(
            passages=ordered.select("doc_id", *_HASHES),
            by_text=by_text,
            starts=np.searchsorted(places[by_text], np.arange(texts + 1)),
            copies=ordered.select(pl.col("number").min().over("guard_hash"))["number"].to_numpy().astype(np.int64),
            own=pairs[0]["key"].to_numpy(),
            repeats=pairs[0]["repeats"] if "repeats" in pairs[0].columns else pl.Series(dtype=pl.String),
            masked=pairs[1]["key"].to_numpy(),
            depth=depth,
        )

    def rank(self, rows: Positions, texts: Positions, scores: Scores) -> Hits:
        """Rank the passages with these texts, and keep those up to the last of the first `depth` that count.

        Counted is what can be a negative: it is not masked, and no copy of one before it.
        """
        counts = self.starts[texts + 1] - self.starts[texts]
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        hits = (np.repeat(rows, counts), self.by_text[np.repeat(self.starts[texts], counts) + offsets])
        scores = np.repeat(scores, counts)
        order = np.lexsort((hits[1], -scores, hits[0]))
        rows, passages, scores = hits[0][order], hits[1][order], scores[order]

        free = np.flatnonzero(~is_in(rows * self.passages.height + passages, self.masked))
        free = free[are_first(rows[free] * self.passages.height + self.copies[passages[free]])]
        counted = np.zeros(len(rows) + 1, np.int64)
        counted[free + 1] = 1
        before = np.cumsum(counted)[:-1]
        starts = np.searchsorted(rows, rows)
        kept = np.flatnonzero(before - before[starts] < self.depth) if len(rows) else starts
        ranks = (np.arange(len(rows)) - starts + 1)[kept]
        by_key = np.lexsort((passages[kept], rows[kept]))
        return Hits(rows[kept], passages[kept], scores[kept], ranks).take(by_key)

    def frame(self, queries: pl.DataFrame, hits: Hits) -> pl.DataFrame:
        """Write hits as `schemas.HITS`."""
        keys = hits.rows * self.passages.height + hits.passages
        at = pl.Series(np.searchsorted(self.own, keys)).set(~pl.Series(is_in(keys, self.own)), None)
        return (
            pl.concat(
                [
                    queries.select(_QUERY)[hits.rows],
                    self.passages[hits.passages],
                    pl.DataFrame(
                        {
                            "repeats": self.repeats.gather(at),
                            "rank": hits.ranks.astype(np.int32),
                            "score": hits.scores.astype(np.float64),
                        }
                    ),
                ],
                how="horizontal",
            )
            .with_columns(retriever=pl.lit(_DENSE))
            .select(*schemas.HITS.columns)
        )


def _number(pairs: Sequence[pl.DataFrame], passages: pl.DataFrame) -> pl.DataFrame:
    """Add the `key` of each pair: row of the query * passages + number of the passage."""
    empty = pl.DataFrame(schema={"row": pl.UInt32, "doc_id": pl.String})
    numbers = passages.select("doc_id", "number")
    joined = pl.concat([empty, *pairs], how="diagonal").join(numbers, on="doc_id")
    return joined.with_columns(key=pl.col("row").cast(pl.Int64) * passages.height + pl.col("number"))
