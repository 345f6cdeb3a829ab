"""Embeddings by sentence-transformers: texts in, unit vectors out."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from infra.engines.specs import SentenceTransformersSpec

_ROWS = 4096  # vectors that are normalised at a time


class EncoderEngine:
    """One loaded embedding model; the same list of texts gives the same bytes, in any process of one machine."""

    def __init__(self, spec: SentenceTransformersSpec) -> None:
        """Load the model from its folder; no code from the model is run, nothing is downloaded.

        Raises:
            ValueError: the folder is missing, or `max_seq_length` is more than the model has positions for.
        """
        if not Path(spec.model).is_dir():
            raise ValueError(f"model: a folder with the encoder's weights expected, {spec.model!r} is none")
        self._spec = spec
        self._prompts = {"query": spec.query_prompt, "passage": spec.passage_prompt}
        self._model = _load(spec)
        self.dimension = int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"]) -> pl.Series:
        """Encode texts into a Series of `Array(Float32, dimension)`, in their order; texts of like length go together.

        Raises:
            ValueError: `role` is neither "query" nor "passage".
        """
        if role not in self._prompts:
            raise ValueError(f'role: "query" or "passage" expected, got {role!r}')
        dtype = pl.Array(pl.Float32, self.dimension)
        if not texts:
            return pl.Series("vector", [], dtype=dtype)
        raw = self._model.encode(
            list(texts),
            prompt=self._prompts[role],
            batch_size=self._spec.batch_size,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return pl.Series("vector", as_unit_vectors(np.asarray(raw)), dtype=dtype)

    def close(self) -> None:
        """Release the model's memory; the engine cannot be used afterwards."""
        self._model = None
        gc.collect()


def as_unit_vectors(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Divide vectors (n, dimension) by their lengths, and return them as float32; a vector of zeros stays.

    This is done in float64: the lengths of a bfloat16 model's vectors are wrong by up to a hundredth. A few rows at a
    time, as float64 takes twice the memory of the vectors.
    """
    unit = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), _ROWS):
        rows = vectors[start : start + _ROWS].astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit[start : start + _ROWS] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit


def _load(spec: SentenceTransformersSpec) -> Any:  # noqa: ANN401 - sentence-transformers is not read by the checker
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        spec.model,
        device=spec.device,
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"dtype": getattr(torch, spec.dtype), "use_safetensors": True},
    )
    transformer = getattr(model[0], "auto_model", None)
    if transformer is None:  # a model of word vectors, such as StaticEmbedding, reads a text of any length
        return model.eval()
    positions = getattr(getattr(transformer, "config", None), "max_position_embeddings", None)
    if positions is not None and spec.max_seq_length > positions:
        raise ValueError(
            f"max_seq_length={spec.max_seq_length} is more than the {positions} positions of {spec.model}; lower it"
        )
    model.max_seq_length = spec.max_seq_length
    return model.eval()
