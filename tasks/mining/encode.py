"""Encode each distinct text once, and look vectors up by the hash of the text.

A vector that is remembered is taken as it is, whatever part its text was in when it was encoded. The last bits of a
vector depend on the texts that are encoded with it (1e-7), so they are those of the first time.
"""

from collections.abc import Iterator
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.protocols import Encoder, VectorFiles
from tasks.protocols import Vectors as Remembered
from tasks.texts import show_passage

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_LONG_RUN = 16  # pairs with one left row, on average
_PAIRS_AT_ONCE = 128  # rows gathered and multiplied at a time: they stay in the cache


class EncodeConfig(BaseModel):
    """No settings: model, prompts, length and batch size are settings of the engine.

    found: the engine has files of vectors and is asked by id and hash; set by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    found: bool = Field(False, json_schema_extra={"keyed_when_set": True})


def encode_passages(
    config: EncodeConfig,
    *,
    passages: pl.DataFrame,
    engine: Encoder | VectorFiles,
    vectors: Remembered | None = None,
) -> dict[str, Any]:
    """Encode passages, title and text joined, to `embeddings` with one row per distinct text.

    Args:
        config: whether the vectors are in files.
        passages: the texts.
        engine: encodes the texts of which no vector is remembered, or finds all vectors in files.
        vectors: what is remembered, if anything is.

    Returns:
        `embeddings`; `facts`: how many vectors were `remembered` and how many texts were `encoded`, or how many were
        `found` in files.

    Raises:
        ValueError: the engine did not return one finite vector per text.
    """
    shown = [show_passage(title, text) for title, text in passages.select("title", "text").iter_rows()]
    texts = passages.select("dataset", "text_hash", id="doc_id", shown=pl.Series(shown, dtype=pl.String))
    return _encode(config, texts, engine, "passage", vectors)


def encode_queries(
    config: EncodeConfig, *, queries: pl.DataFrame, engine: Encoder | VectorFiles, vectors: Remembered | None = None
) -> dict[str, Any]:
    """Encode the queries of split "train" to `embeddings`, as passages are. None are mined for held-out queries.

    Raises:
        ValueError: the engine did not return one finite vector per text.
    """
    texts = queries.filter(pl.col("split") == "train").select("dataset", "text_hash", id="query_id", shown="text")
    return _encode(config, texts, engine, "query", vectors)


def vectors_of(embeddings: pl.DataFrame, hashes: pl.Series, *, of: str) -> tuple[Vectors, Positions]:
    """Look up vectors by text hash.

    `embeddings` may hold other texts too, and one text several times (in several parts).

    Returns:
        The distinct vectors, shape (distinct, dimension), and for each hash its row in them, shape (len(hashes),).

    Raises:
        ValueError: some hashes have no embedding; the message counts them and names what they are `of`.
    """
    wanted = pl.DataFrame({"text_hash": hashes.unique().sort()})
    # Parts that were batched differently may hold slightly different vectors of one text; the first one is used.
    known = embeddings.join(wanted, on="text_hash", how="semi").unique("text_hash", keep="first", maintain_order=True)
    if known.height < wanted.height:
        missing = wanted.join(known, on="text_hash", how="anti")["text_hash"]
        raise ValueError(
            f"{missing.len()} of {wanted.height} distinct {of} have no embedding (first: {missing[0]}); "
            "encode the same texts that are used here"
        )
    known = known.sort("text_hash").with_row_index("row")
    rows = pl.DataFrame({"text_hash": hashes}).join(known, on="text_hash", how="left", maintain_order="left")["row"]
    return matrix_of(known["vector"]), rows.to_numpy().astype(np.int64)


def dot_pairs(left: Vectors, right: Vectors, left_rows: Positions, right_rows: Positions) -> pl.Series:
    """Compute the inner products of row pairs, independent of what else is in the batch.

    BLAS rounds differently for batches of different shapes. Here the products are summed in float64 and rounded to
    float32, so equal vectors have exactly equal scores. Returns Float64 of shape (len(left_rows),), the cosine for unit
    vectors.
    """
    if left.shape[1] != right.shape[1] and len(left_rows):
        raise ValueError(
            f"vectors of {left.shape[1]} and {right.shape[1]} dimensions cannot be compared; "
            "encode queries and passages with the same model"
        )
    scores = np.empty(len(left_rows), dtype=np.float32)
    # Pairs that follow each other often have one left row; then it is converted once.
    ends = np.flatnonzero(np.diff(left_rows, append=-1)) + 1
    runs = len(ends) * _LONG_RUN < len(left_rows)
    for start, end in _slices(ends if runs else len(left_rows)):
        rows = left[left_rows[start]] if runs else left[left_rows[start:end]]
        products = rows.astype(np.float64) * right[right_rows[start:end]]
        scores[start:end] = products.sum(axis=1)
    return pl.Series("score", scores.astype(np.float64), dtype=pl.Float64)


def _slices(ends: Positions | int) -> Iterator[tuple[int, int]]:
    """Yield starts and ends of blocks that end at `ends`, or before it, and are not too long."""
    start = 0
    for stop in [ends] if isinstance(ends, int) else ends.tolist():
        for begin in range(start, stop, _PAIRS_AT_ONCE):
            yield begin, min(begin + _PAIRS_AT_ONCE, stop)
        start = stop


def _encode(
    config: EncodeConfig,
    texts: pl.DataFrame,
    engine: Encoder | VectorFiles,
    role: Literal["query", "passage"],
    remembered: Remembered | None,
) -> dict[str, Any]:
    """Encode each distinct hash once, sorted by length and hash, so that the order of the input makes no difference."""
    distinct = texts.unique("text_hash", keep="first", maintain_order=True).sort(
        pl.col("shown").str.len_bytes(), "text_hash"
    )
    if config.found:
        return _find(distinct, cast("VectorFiles", engine), role)
    known = remembered.recall(role, distinct["text_hash"]) if remembered is not None and distinct.height else None
    if known is not None:
        distinct = distinct.join(known, on="text_hash", how="anti", maintain_order="left")
        if distinct.is_empty():
            return {"embeddings": known, "facts": {"remembered": known.height, "encoded": 0}}
    vectors = cast("Encoder", engine).encode(distinct["shown"].to_list(), role)
    _check(vectors, distinct, role)
    made = pl.DataFrame({"text_hash": distinct["text_hash"], "vector": vectors})
    facts = {"remembered": 0 if known is None else known.height, "encoded": made.height}
    if known is not None and known["vector"].dtype != made["vector"].dtype:
        raise ValueError(
            f"the encoder returned {made['vector'].dtype}, and the vectors that are remembered of it are "
            f"{known['vector'].dtype}: two models have one digest; remove `vectors/` from the store"
        )
    if remembered is not None and made.height:
        remembered.remember(role, made)
    return {"embeddings": pl.concat([made] if known is None else [known, made]).sort("text_hash"), "facts": facts}


def _find(distinct: pl.DataFrame, files: VectorFiles, role: Literal["query", "passage"]) -> dict[str, Any]:
    """Find vectors in files: they depend on ids too, and are at hand, so none is remembered."""
    vectors = files.find(distinct.select("dataset", "id", "text_hash"), role)
    _check(vectors, distinct, role)
    found = pl.DataFrame({"text_hash": distinct["text_hash"], "vector": vectors}).sort("text_hash")
    return {"embeddings": found, "facts": {"found": found.height}}


def _check(vectors: pl.Series, texts: pl.DataFrame, role: str) -> None:
    """Check that the engine returned one finite Array(Float32) per text."""
    if not isinstance(vectors.dtype, pl.Array) or vectors.dtype.inner != pl.Float32 or vectors.len() != texts.height:
        raise ValueError(
            f"the encoder must return Array(Float32) of length {texts.height}, "
            f"got {vectors.dtype} of length {vectors.len()}"
        )
    finite = np.isfinite(matrix_of(vectors)).all(axis=1)
    if not finite.all():
        first = texts["text_hash"][int(finite.argmin())]
        raise ValueError(
            f"{int((~finite).sum())} of {texts.height} {role} vectors are not finite (first text_hash: {first}); "
            "check the encoder's weights and precision"
        )


def matrix_of(vectors: pl.Series) -> Vectors:
    """Convert a Series of Array(Float32, d) with n rows (n may be 0) to a matrix of shape (n, d)."""
    if not isinstance(vectors.dtype, pl.Array):
        raise ValueError(f"vectors must be an Array of Float32, got {vectors.dtype}")
    # Of a table without rows the dimension may be unknown, which is 0.
    return np.ascontiguousarray(vectors.to_numpy(), dtype=np.float32).reshape(len(vectors), vectors.dtype.size)
