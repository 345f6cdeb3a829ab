"""Read a corpus part by part, each part's passages hashed and with their vectors."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl

from tasks.mining.dense.nearest import Groups
from tasks.mining.encode import Vectors, matrix_of
from tasks.mining.masks import hash_passages

Frames = pl.DataFrame | Iterable[pl.DataFrame]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Block:
    """What one part of the corpus holds of one dataset.

    passages: with `shown_hash`, `guard_hash` and `body_hash`, and `place`, the row of the passage's text in `vectors`.
    vectors: one row for each distinct text.
    groups: a number for each text, equal where the texts are copies.
    """

    dataset: str
    passages: pl.DataFrame
    vectors: Vectors
    groups: Groups


def read_blocks(passages: Frames, embeddings: Frames, datasets: frozenset[str], dimension: int) -> Iterator[Block]:
    """Read the parts of a corpus one by one.

    Args:
        passages: one frame for each part; a single frame is a part.
        embeddings: the same parts, in the same order.
        datasets: others are left out.
        dimension: of the queries' vectors.

    Raises:
        ValueError: a passage has no embedding, or vectors have another dimension.
    """
    for found, encoded in zip(_frames(passages), _frames(embeddings), strict=True):
        wanted = found.filter(pl.col("dataset").is_in(datasets))
        if wanted.is_empty():
            continue
        vectors = matrix_of(encoded["vector"])
        if vectors.shape[1] != dimension:
            raise ValueError(
                f"query vectors have {dimension} dimensions, passage vectors {vectors.shape[1]}; "
                "encode both with the same model"
            )
        rows = (
            encoded.select("text_hash").with_row_index("place").unique("text_hash", keep="first", maintain_order=True)
        )
        placed = wanted.join(rows, on="text_hash", how="left", maintain_order="left")
        _refuse_missing(placed)
        for own in hash_passages(placed).partition_by("dataset", maintain_order=True):
            yield _block(own, vectors)


def ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield items; while the caller works on one, the next one is made in another thread."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item  # type: ignore[misc]


def _frames(several: Frames) -> Iterator[pl.DataFrame]:
    return iter([several] if isinstance(several, pl.DataFrame) else several)


def _block(passages: pl.DataFrame, vectors: Vectors) -> Block:
    used, rows = np.unique(passages["place"].to_numpy(), return_inverse=True)
    of_text = np.empty(len(used), np.int64)
    of_text[rows[::-1]] = np.arange(len(rows))[::-1]  # of several passages with one text, the first
    return Block(
        dataset=str(passages["dataset"][0]),
        passages=passages.with_columns(place=pl.Series(rows.astype(np.int64))),
        vectors=vectors if len(used) == len(vectors) else vectors[used],
        groups=passages["guard_hash"].gather(of_text).hash().to_numpy(),
    )


def _refuse_missing(placed: pl.DataFrame) -> None:
    missing = placed.filter(pl.col("place").is_null())["text_hash"].unique().sort()
    if missing.len():
        raise ValueError(
            f"{missing.len()} of {placed['text_hash'].n_unique()} distinct passages have no embedding (first: "
            f"{missing[0]}); encode the same texts that are used here"
        )
