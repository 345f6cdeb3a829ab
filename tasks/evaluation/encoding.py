"""A model that is evaluated: loaded from its folder, and asked for vectors by the similarity it was made for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tasks.mining.encode import Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Similarity = Literal["cosine", "dot"]


@dataclass(frozen=True)
class Model:
    """A model of sentence-transformers.

    similarity: of the model itself. With `dot`, its vectors keep their lengths; with `cosine`, they are unit vectors.
    Either way the inner product is the score.
    """

    encoder: "SentenceTransformer"
    similarity: Similarity
    batch_size: int

    def encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        """Encode texts, with the prompt before each, to shape (texts, dimension).

        Each distinct text is encoded once, so that equal texts have equal scores.
        """
        distinct = sorted(set(texts))
        vectors = self.encoder.encode(
            distinct,
            prompt=prompt,  # also an empty one: without any, the model's default prompt would be added
            batch_size=self.batch_size,
            normalize_embeddings=self.similarity == "cosine",
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        rows = {text: row for row, text in enumerate(distinct)}
        return np.ascontiguousarray(vectors.float().cpu().numpy()[[rows[text] for text in texts]])


def load_model(folder: Path, *, device: str, dtype: str, max_seq_length: int, batch_size: int) -> Model:
    """Load a model of sentence-transformers; it reads at most `max_seq_length` tokens of a text.

    Raises:
        ValueError: the model was made for another similarity than cosine or dot product.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        str(folder), device=device, local_files_only=True, model_kwargs={"dtype": getattr(torch, dtype)}
    )
    similarity = encoder.similarity_fn_name
    if similarity not in ("cosine", "dot"):
        raise ValueError(
            f"evaluate: a model with the similarity cosine or dot expected, {folder.name} has {similarity!r} "
            "(similarity_fn_name in config_sentence_transformers.json); such models are not evaluated"
        )
    if isinstance(encoder.max_seq_length, int):  # models of static vectors have no limit
        encoder.max_seq_length = min(max_seq_length, encoder.max_seq_length)
    return Model(encoder, similarity, batch_size)
