"""Embeddings by sentence-transformers: texts in, unit vectors out, or vectors as they are for inner products."""

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
            ValueError: the folder is missing, `max_seq_length` is more than the model has positions for, or the model
                was made for another similarity than cosine and the spec names none.
        """
        if not Path(spec.model).is_dir():
            raise ValueError(f"model: a folder with the encoder's weights expected, {spec.model!r} is none")
        self._spec = spec
        self._prompts = {"query": spec.query_prompt, "passage": spec.passage_prompt}
        self._model = _load(spec)
        _refuse_other_similarity(spec, self._model.similarity_fn_name)
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
        made = _Made(texts, self.dimension, as_they_are=self._spec.similarity == "dot")
        hook = self._model.register_forward_hook(made.take)
        try:
            rows = self._model.encode(
                list(texts),
                prompt=self._prompts[role],
                batch_size=self._spec.batch_size,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        finally:
            hook.remove()
        return pl.Series("vector", made.in_order(rows), dtype=dtype)

    def close(self) -> None:
        """Release the model's memory; the engine cannot be used afterwards."""
        self._model = None
        gc.collect()


class _Made:
    """The vectors of some texts, taken out of the model batch by batch and written to where they belong.

    sentence-transformers keeps a tensor for each text and puts them all together at the end: the vectors twice, and we
    made unit vectors of them, a third copy. So it is given the number of the row to which a vector was written in place
    of the vector, and hands these numbers back in the order of the texts.
    """

    def __init__(self, texts: Sequence[str], dimension: int, *, as_they_are: bool) -> None:
        """Make room. as_they_are: the vectors are not divided by their lengths."""
        self._as_they_are = as_they_are
        self._vectors = np.empty((len(texts), dimension), np.float32)
        # The order in which sentence-transformers encodes. Where it has another one, `in_order` makes a copy.
        self._order = np.argsort([-len(text) for text in texts])
        self._taken = 0

    def take(self, _model: Any, _inputs: Any, output: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - torch's
        """Write the vectors of a batch; returns the model's output with the numbers of their rows instead."""
        import torch

        vectors = output["sentence_embedding"][:, : self._vectors.shape[1]].float().cpu().numpy()
        rows = self._order[self._taken : self._taken + len(vectors)]
        self._vectors[rows] = vectors if self._as_they_are else as_unit_vectors(vectors)
        self._taken += len(vectors)
        return {**output, "sentence_embedding": torch.as_tensor(rows[:, None])}

    def in_order(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the vectors in the order of the texts, given the numbers that came back.

        Raises:
            RuntimeError: numbers of rows did not come back, but something else.
        """
        if self._taken != len(self._vectors) or rows.shape != (len(self._vectors), 1):
            raise RuntimeError(
                f"{len(self._vectors)} numbers of rows expected of sentence-transformers, {rows.shape} came after "
                f"{self._taken} vectors: this version works in another way; install the pinned one"
            )
        rows = rows[:, 0]
        return self._vectors if np.array_equal(rows, np.arange(len(rows))) else self._vectors[rows]


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


def _refuse_other_similarity(spec: SentenceTransformersSpec, similarity: str) -> None:
    """Refuse a model whose vectors must not be made unit vectors: their lengths are a part of what it says."""
    if spec.similarity is None and similarity != "cosine":
        raise ValueError(
            f"{spec.model} was made for the similarity {similarity!r} (config_sentence_transformers.json), and the "
            "search for candidates is by cosine; set encoder.similarity: cosine to search by cosine all the same, or "
            "name a model made for cosine"
        )


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
