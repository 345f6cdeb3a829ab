"""Bring passages that may be near duplicates together: put them into buckets, and pair those of one bucket.

Both stages work on a piece of the corpus: first a part of the passages, then a shard of the buckets. Which pairs are
made depends on the texts alone, not on the parts.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from tasks.data.ingesting.text_store import from_hex, part_of_hashes
from tasks.fetching.want import WANTED
from tasks.guards.config import SketchConfig
from tasks.guards.sketches import BANDS, bucket_keys, shingle
from tasks.guards.tables import BANDS as BAND_TABLE
from tasks.guards.tables import NEAR_CANDIDATES, number_texts
from tasks.texts import show_passage

_SIDES = ("left", "right")
_NEIGHBOURS = 8  # texts after it, in one bucket, that a text is compared with
_TEXT = ["dataset", "doc_id", "text_hash"]
Scattered = Iterator[tuple[int, pl.DataFrame]]


def show(passages: pl.DataFrame) -> pl.Series:
    """Return the texts of passages as they are shown: title and text."""
    shown = [show_passage(title, text) for title, text in passages.select("title", "text").iter_rows()]
    return pl.Series("shown", shown, dtype=pl.String)


def sketch_passages(config: SketchConfig, *, passages: pl.DataFrame) -> dict[str, Any]:
    """Put the passages of one part into buckets.

    Returns:
        bands: for each shard of the buckets, a table of BANDS, sorted.
    """
    keys = bucket_keys(shingle(show(passages)))
    rows = np.repeat(np.arange(passages.height), BANDS)
    bands = passages.select(_TEXT)[rows].with_columns(key=pl.Series(keys.ravel(), dtype=pl.UInt64))
    return {"bands": scatter(bands, pl.col("key") % config.shards, list(BAND_TABLE.columns))}


def pair_texts(config: SketchConfig, *, bands: pl.DataFrame) -> dict[str, Any]:
    """Pair the texts of the buckets of one shard. Passages of several datasets with one text are one text.

    A text is paired with the first text of its bucket and with the next `_NEIGHBOURS`, in the order of their hashes.
    So the number of pairs grows with that of the texts, also where a bucket holds thousands of them.

    Returns:
        pairs: for each shard, that of a pair's first text, a table of NEAR_CANDIDATES.
        wanted: for each part of the passages that may hold a text of these pairs, `part` (the shard that needs it),
            `dataset`, `doc_id` and `text_hash`.
    """
    texts = bands.sort("key", "text_hash", "dataset", "doc_id").unique(["key", "text_hash"], maintain_order=True)
    pairs = _neighbours(texts).unique()
    pairs = pairs.with_columns((number_texts("left_hash") % config.shards).cast(pl.Int32).alias("part"))
    sides = [
        pairs.select("part", **{name: f"{side}_{name.removeprefix('text_')}" for name in _TEXT}) for side in _SIDES
    ]
    wanted = pl.concat(sides).unique()
    return {
        "pairs": scatter(pairs, pl.col("part"), list(NEAR_CANDIDATES.columns)),
        "wanted": scatter_by_holder(wanted, config.generations),
    }


def _neighbours(texts: pl.DataFrame) -> pl.DataFrame:
    """Pair each text with the first of its bucket and with those after it; `left` has the smaller hash.

    `texts` are sorted by key and hash.
    """
    key = texts["key"].to_numpy()
    new = np.concatenate([[True], key[1:] != key[:-1]])[: len(key)]
    first = np.maximum.accumulate(np.where(new, np.arange(len(key)), 0)) if len(key) else np.zeros(0, dtype=np.int64)
    lefts, rights = [first[~new]], [np.flatnonzero(~new)]
    for shift in range(1, min(_NEIGHBOURS, len(key) - 1) + 1):
        found = np.flatnonzero(key[shift:] == key[:-shift])
        lefts.append(found)
        rights.append(found + shift)
    named = [{name: f"{side}_{name.removeprefix('text_')}" for name in _TEXT} for side in _SIDES]
    rows = np.concatenate(lefts), np.concatenate(rights)
    sides: list[pl.DataFrame] = [texts.select(_TEXT).rename(names)[at] for names, at in zip(named, rows, strict=True)]
    return pl.concat(sides, how="horizontal")


def scatter(frame: pl.DataFrame, index: pl.Expr, columns: list[str]) -> Scattered:
    """Yield the rows of each index with these columns, sorted; an index without rows is left out."""
    ordered = frame.with_columns(_index=index.cast(pl.Int64)).sort("_index", *columns)
    for piece in ordered.partition_by("_index", maintain_order=True):
        yield piece["_index"][0], piece.select(columns)


def scatter_by_holder(wanted: pl.DataFrame, generations: tuple[int, ...]) -> Scattered:
    """Yield the wanted texts for each part of the passages that may hold them: one of each generation.

    generations: the number of parts of each generation, in order.
    """
    high, low = from_hex(wanted["text_hash"])
    offset = 0
    for count in generations:
        part = pl.Series("to", part_of_hashes(high, low, count)).cast(pl.Int64) + offset
        yield from scatter(wanted.with_columns(part), pl.col("to"), list(WANTED.columns))
        offset += count
