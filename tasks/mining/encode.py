"""Encode each distinct text once, and look vectors up by the hash of the text.

A vector that is remembered is taken as it is, whatever part its text was in when it was encoded. The last bits of a
vector depend on the texts that are encoded with it (1e-7), so they are those of the first time.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.mining.embed import embed
from tasks.protocols import Encoder, PaidEncoder, VectorFiles
from tasks.protocols import Vectors as Remembered
from tasks.schemas import PASSAGES

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_LONG_RUN = 16  # pairs with one left row, on average
_CHECKED_AT_ONCE = 4096
_PAIRS_AT_ONCE = 128  # rows gathered and multiplied at a time: they stay in the cache


class EncodeConfig(BaseModel):
    """No settings: model, prompts, length and batch size are settings of the engine.

    found: the engine has files of vectors and is asked by id and hash; set by the flow.
    split: of the queries that are encoded; set by the flow.
    at_once: texts that an endpoint is asked for before their vectors are kept, 0 where the engine is none; set by the
        flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    found: bool = Field(False, json_schema_extra={"keyed_when_set": True})
    split: str = Field("train", json_schema_extra={"keyed_when_set": True})
    at_once: int = Field(0, ge=0, json_schema_extra={"operational": True})


def encode_passages(
    config: EncodeConfig,
    *,
    passages: pl.DataFrame | Iterable[pl.DataFrame],
    engine: Encoder | PaidEncoder | VectorFiles,
    vectors: Remembered | None = None,
) -> dict[str, Any]:
    """Encode passages, title and text joined, to `embeddings` with one row per distinct text.

    Args:
        config: whether the vectors are in files.
        passages: the texts; in frames that are read here, nobody else holds them while they are encoded.
        engine: encodes the texts of which no vector is remembered, for money or not, or finds all vectors in files.
        vectors: what is remembered, if anything is.

    Returns:
        `embeddings`; `facts`: how many vectors were `remembered` and how many texts were `encoded`, of an endpoint also
        the `calls` and the `prompt_tokens`; or how many were `found` in files.

    Raises:
        ValueError: the engine did not return one finite vector per text.
    """
    return _encode(config, _read(passages), engine, "passage", vectors)


def encode_queries(
    config: EncodeConfig,
    *,
    queries: pl.DataFrame,
    engine: Encoder | PaidEncoder | VectorFiles,
    vectors: Remembered | None = None,
) -> dict[str, Any]:
    """Encode the queries of one split to `embeddings`, as passages are. None are mined for held-out queries.

    Raises:
        ValueError: the engine did not return one finite vector per text.
    """
    texts = queries.filter(pl.col("split") == config.split).select("dataset", "text_hash", id="query_id", shown="text")
    return _encode(config, texts, engine, "query", vectors)


def _read(passages: pl.DataFrame | Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return passages as they are shown to the encoder (`tasks.texts.show_passage`)."""
    frames = [passages] if isinstance(passages, pl.DataFrame) else [PASSAGES.empty(), *passages]
    shown = pl.when(pl.col("title") == "").then("text").otherwise(pl.concat_str("title", "text", separator=" "))
    return pl.concat(frames).select("dataset", "text_hash", id="doc_id", shown=shown)


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
    engine: Encoder | PaidEncoder | VectorFiles,
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

    def keep(made: pl.DataFrame, model: str = "") -> None:
        _refuse_two_models(known, made, paid=bool(config.at_once))
        if remembered is not None and model:
            _refuse_another_name(remembered.first_model(model), model)
        if remembered is not None and made.height:
            remembered.remember(role, made)

    asked: dict[str, Any] = {}
    if config.at_once:
        made, asked = embed(distinct, cast("PaidEncoder", engine), role, config.at_once, keep)
        _check(made["vector"], distinct["text_hash"], role)
    else:
        hashes, shown = distinct["text_hash"], distinct["shown"].to_list()
        del texts, distinct  # a part's texts are held once while they are encoded
        made = _encode_all(hashes, shown, cast("Encoder", engine), role)
        del shown
        keep(made)
    facts = {"remembered": 0 if known is None else known.height, "encoded": made.height, **asked}
    made = made.sort("text_hash") if known is None else pl.concat([known, made]).sort("text_hash")
    return {"embeddings": made, "facts": facts}


def _encode_all(
    hashes: pl.Series, shown: list[str], engine: Encoder, role: Literal["query", "passage"]
) -> pl.DataFrame:
    """Encode texts, and return their vectors sorted by hash; the copy in the order of the texts is dropped here."""
    vectors = engine.encode(shown, role)
    _check(vectors, hashes, role)
    return pl.DataFrame({"text_hash": hashes, "vector": vectors}).sort("text_hash")


def _refuse_two_models(known: pl.DataFrame | None, made: pl.DataFrame, *, paid: bool) -> None:
    """Refuse vectors of another length than those that are remembered of the same encoder.

    Raises:
        ValueError: they are; with what to do.
    """
    if known is None or known["vector"].dtype == made["vector"].dtype:
        return
    why = "two models have one digest; remove `vectors/` from the store"
    if paid:
        why = "the endpoint has another model now; set the encoder's `revision` to a new text to encode every text anew"
    raise ValueError(
        f"the encoder returned {made['vector'].dtype}, and the vectors that are remembered of it are "
        f"{known['vector'].dtype}: {why}"
    )


def _refuse_another_name(first: str, model: str) -> None:
    """Refuse vectors of a model with another name than that of those that are remembered of the same endpoint.

    Raises:
        ValueError: they are; with what to do.
    """
    if model != first:
        raise ValueError(
            f"the endpoint answered as {first!r} before, and as {model!r} now; vectors of several models cannot be "
            "compared. Name one model that does not change, and set the encoder's `revision` to a new text: then every "
            "text is encoded anew"
        )


def _find(distinct: pl.DataFrame, files: VectorFiles, role: Literal["query", "passage"]) -> dict[str, Any]:
    """Find vectors in files: they depend on ids too, and are at hand, so none is remembered."""
    vectors = files.find(distinct.select("dataset", "id", "text_hash"), role)
    _check(vectors, distinct["text_hash"], role)
    found = pl.DataFrame({"text_hash": distinct["text_hash"], "vector": vectors}).sort("text_hash")
    return {"embeddings": found, "facts": {"found": found.height}}


def _check(vectors: pl.Series, hashes: pl.Series, role: str) -> None:
    """Check that the engine returned one finite Array(Float32) per text."""
    if not isinstance(vectors.dtype, pl.Array) or vectors.dtype.inner != pl.Float32 or vectors.len() != hashes.len():
        raise ValueError(
            f"the encoder must return Array(Float32) of length {hashes.len()}, "
            f"got {vectors.dtype} of length {vectors.len()}"
        )
    matrix, finite = matrix_of(vectors), np.empty(hashes.len(), bool)
    for start in range(0, len(matrix), _CHECKED_AT_ONCE):
        rows = slice(start, start + _CHECKED_AT_ONCE)
        finite[rows] = np.isfinite(matrix[rows]).all(axis=1)
    if not finite.all():
        first = hashes[int(finite.argmin())]
        raise ValueError(
            f"{int((~finite).sum())} of {hashes.len()} {role} vectors are not finite (first text_hash: {first}); "
            "check the encoder's weights and precision"
        )


def matrix_of(vectors: pl.Series) -> Vectors:
    """Convert a Series of Array(Float32, d) with n rows (n may be 0) to a matrix of shape (n, d)."""
    if not isinstance(vectors.dtype, pl.Array):
        raise ValueError(f"vectors must be an Array of Float32, got {vectors.dtype}")
    # Of a table without rows the dimension may be unknown, which is 0.
    return np.ascontiguousarray(vectors.to_numpy(), dtype=np.float32).reshape(len(vectors), vectors.dtype.size)
