"""Cut tables of queries and of their passages into parts. Ids and hashes are joined part by part, as they are long."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks import schemas
from tasks.data.ingesting import records
from tasks.data.ingesting.text_store import to_hex

TRAIN = "train"
_ROWS = 100_000  # that are joined together, about: a join of a few rows costs as much as one of thousands


def held_out_absent(absent: Mapping[str, pl.DataFrame], queries: pl.DataFrame) -> pl.DataFrame:
    """Return the judgements of held-out queries about passages that the corpus does not hold, the highest of each pair.

    No model can find such a passage, and measures say so: it is in the ideal ranking, as in BEIR and trec_eval.

    Args:
        absent: by the split that names them, as `records.ABSENT`.
        queries: all queries by number, with `canonical`, `given` (the split that names the query) and `split`.
    """
    frames = [frame.with_columns(named_in=pl.lit(name)) for name, frame in absent.items()]
    if not frames:
        return records.empty(records.ABSENT)
    every = pl.concat(frames)
    every = every.with_columns(query=queries["canonical"].gather(every["query"]))
    every = every.join(queries.select("given", "split", query="number"), on="query")
    ours = every.filter(pl.col("split") != TRAIN, pl.col("named_in") == pl.col("given").fill_null(TRAIN))
    highest = ours.group_by("query", "doc_id").agg(pl.col("value").max())
    return highest.sort("query", "doc_id").select(*records.ABSENT)


class PairTables:
    """Makes tables with the ids of queries and passages.

    queries: kept queries: `query` (a number), `part`, `dataset`, `query_id`.
    passages: all passages, by number: `id`, `high`, `low`.
    hashes: of passages that queries name: `passage`, and the halves of two hashes, as from `hash_shown_texts`.
    count: how many parts of queries there are.
    """

    def __init__(self, queries: pl.DataFrame, passages: pl.DataFrame, hashes: pl.DataFrame, count: int) -> None:
        self._queries = queries.select("query", "part", "dataset", "query_id").sort("part")
        self._bounds = _bounds_of(self._queries, range(count))
        self._passages, self._hashes, self._count = passages.select("id", "high", "low"), hashes, count

    def parts(self, frame: pl.DataFrame, schema: schemas.Schema) -> Iterator[pl.DataFrame]:
        """Yield a table part by part. As many parts as have `_ROWS` rows are joined together.

        Args:
            frame: `query`, for pairs also `passage`, and further columns of the schema.
            schema: which of `dataset`, `query_id`, `doc_id` and the hashes are joined.
        """
        part = self._queries.select("query", "part")
        ordered = frame.join(part, on="query", how="inner").sort("part")
        bounds = _bounds_of(ordered, range(self._count))
        empty: pl.DataFrame | None = None  # many tables have no row in most parts
        for group in _groups(bounds):
            if bounds[group.start] == bounds[group.stop]:
                empty = self.table(ordered.clear(), schema) if empty is None else empty
                yield from [empty] * len(group)
                continue
            rows = ordered[int(bounds[group.start]) : int(bounds[group.stop])]
            asking = self._queries[int(self._bounds[group.start]) : int(self._bounds[group.stop])]
            found = self._joined(rows, asking, schema).sort("part", *schema.key)
            for start, end in pairwise(_bounds_of(found, group)):
                yield found[int(start) : int(end)].select(*schema.columns)

    def table(self, frame: pl.DataFrame, schema: schemas.Schema) -> pl.DataFrame:
        """Join ids and hashes, and sort by the key. Rows of queries that are not kept are left out."""
        return self._joined(frame, self._queries, schema).select(*schema.columns).sort(schema.key)

    def _joined(self, frame: pl.DataFrame, queries: pl.DataFrame, schema: schemas.Schema) -> pl.DataFrame:
        """Join some queries, and the ids and hashes of passages; returns the columns of the schema and `part`."""
        found = frame.drop("dataset", "query_id", "part", strict=False).join(queries, on="query", how="inner")
        if "passage" in found.columns:
            found = found.with_columns(self._named(found["passage"], schema))
        return found.select("part", *(pl.col(name).cast(dtype) for name, dtype in schema.columns.items()))

    def judged(self, frame: pl.DataFrame, absent: pl.DataFrame) -> pl.DataFrame:
        """Return judgements as `schemas.QRELS`, also those of passages that the corpus does not hold.

        Args:
            frame: `query`, `passage`, `relevance`.
            absent: `query`, `doc_id`, `value`.
        """
        there = self.table(frame, schemas.QRELS)
        beside = self.table(absent.rename({"value": "relevance"}), schemas.QRELS)
        return pl.concat([there, beside]).sort(schemas.QRELS.key)

    def _named(self, passages: pl.Series, schema: schemas.Schema) -> list[pl.Series]:
        of = self._passages[passages]
        columns = [of["id"].alias("doc_id")]
        if "text_hash" in schema.columns:
            columns.append(to_hex(of["high"].to_numpy(), of["low"].to_numpy()).alias("text_hash"))
        if "shown_hash" in schema.columns:
            at = np.searchsorted(self._hashes["passage"].to_numpy(), passages.to_numpy())
            for name in ("shown", "guard"):
                high, low = (self._hashes[f"{name}_{half}"].to_numpy()[at] for half in ("high", "low"))
                columns.append(to_hex(high, low).alias(f"{name}_hash"))
        return columns


def _bounds_of(ordered: pl.DataFrame, parts: range) -> npt.NDArray[np.intp]:
    """Return where the rows of each part begin, of rows that are sorted by `part`, and where the last part ends."""
    bounds: npt.NDArray[np.intp] = np.searchsorted(ordered["part"].to_numpy(), np.arange(parts.start, parts.stop + 1))
    return bounds


def _groups(bounds: npt.NDArray[np.intp]) -> Iterator[range]:
    """Group parts that follow each other, at most `_ROWS` rows together or a part alone.

    >>> [list(group) for group in _groups(np.array([0, 60_000, 60_000, 90_000, 300_000, 300_001]))]
    [[0, 1, 2], [3], [4]]
    """
    start = 0
    while start < bounds.size - 1:
        stop = int(np.searchsorted(bounds, bounds[start] + _ROWS, side="right")) - 1
        group = range(start, min(max(stop, start + 1), bounds.size - 1))
        yield group
        start = group.stop
