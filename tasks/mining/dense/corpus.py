"""Read a corpus part by part: the hashes of the passages, their vectors, and their texts only where they are needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import polars as pl

from tasks.mining.dense.nearest import Groups
from tasks.mining.encode import Vectors, matrix_of

Frames = pl.DataFrame | Iterable[pl.DataFrame]
_Item = TypeVar("_Item")


class _Several(Protocol):
    """Frames that are read one by one, each when it is asked for."""

    def __getitem__(self, place: int, /) -> pl.DataFrame: ...


Texts = pl.DataFrame | _Several


@dataclass(frozen=True)
class Block:
    """What one part of the corpus holds of one dataset.

    passages: as `tasks.mining.hashing.HASHES`, and `place`, the row of the passage's text in `vectors`.
    vectors: one row for each distinct text.
    groups: a number for each text, equal where the texts are copies.
    read: returns the passages with their texts.
    """

    dataset: str
    passages: pl.DataFrame
    vectors: Vectors
    groups: Groups
    read: Callable[[], pl.DataFrame]


class Waiting:
    """Vectors and groups of blocks that are compared together, so that fewer are kept that later ones push out."""

    def __init__(self) -> None:
        """Begin without any."""
        self._kept: list[tuple[Vectors, Groups]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return sum(vectors.nbytes for vectors, _ in self._kept)

    def add(self, block: Block) -> None:
        """Keep the vectors of a block."""
        self._kept.append((block.vectors, block.groups))

    def take(self) -> tuple[Vectors, Groups]:
        """Return what was kept, in order; nothing is kept afterwards. Each block is dropped when it is copied."""
        kept, self._kept = self._kept[::-1], []
        if not kept:
            return np.empty((0, 0), np.float32), np.empty(0, np.uint64)
        groups = np.concatenate([groups for _, groups in kept[::-1]])
        if len(kept) == 1:
            return kept[0][0], groups
        vectors, start = np.empty((len(groups), kept[0][0].shape[1]), np.float32), 0
        while kept:
            block, _ = kept.pop()
            vectors[start : start + len(block)] = block
            start += len(block)
        return vectors, groups


def read_blocks(
    hashes: Frames, embeddings: Frames, passages: Texts, datasets: frozenset[str], dimension: int
) -> Iterator[Block]:
    """Read the parts of a corpus one by one.

    Args:
        hashes: one frame for each part; a single frame is a part.
        embeddings: the same parts, in the same order.
        passages: the same parts. One is read when its texts are asked for.
        datasets: others are left out.
        dimension: of the queries' vectors.

    Raises:
        ValueError: a passage has no embedding, or vectors have another dimension.
    """
    pairs = zip(frames_of(hashes), frames_of(embeddings), strict=True)
    for part, (found, encoded) in enumerate(pairs):
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
        for own in placed.partition_by("dataset", maintain_order=True):
            yield _block(own, vectors, partial(_read, passages, part, str(own["dataset"][0])))


def ahead(items: Iterable[_Item], count: int = 1) -> Iterator[_Item]:
    """Yield items; while the caller works on one, the next ones, up to `count`, are made in another thread."""
    source, end = iter(items), object()
    pool = ThreadPoolExecutor(1, "ahead")
    try:
        coming = deque(pool.submit(next, source, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)


def frames_of(several: Frames) -> Iterator[pl.DataFrame]:
    """Yield the parts of a corpus; a single frame is a part."""
    return iter([several] if isinstance(several, pl.DataFrame) else several)


def _read(passages: Texts, part: int, dataset: str) -> pl.DataFrame:
    found = passages if isinstance(passages, pl.DataFrame) else passages[part]
    return found.filter(pl.col("dataset") == dataset)


def _block(passages: pl.DataFrame, vectors: Vectors, read: Callable[[], pl.DataFrame]) -> Block:
    used, rows = np.unique(passages["place"].to_numpy(), return_inverse=True)
    of_text = np.empty(len(used), np.int64)
    of_text[rows[::-1]] = np.arange(len(rows))[::-1]  # of several passages with one text, the first
    return Block(
        dataset=str(passages["dataset"][0]),
        passages=passages.with_columns(place=pl.Series(rows.astype(np.int64))),
        vectors=vectors if len(used) == len(vectors) else vectors[used],
        groups=passages["guard_hash"].gather(of_text).hash().to_numpy(),
        read=read,
    )


def _refuse_missing(placed: pl.DataFrame) -> None:
    missing = placed.filter(pl.col("place").is_null())["text_hash"].unique().sort()
    if missing.len():
        raise ValueError(
            f"{missing.len()} of {placed['text_hash'].n_unique()} distinct passages have no embedding (first: "
            f"{missing[0]}); encode the same texts that are used here"
        )
