"""InfoNCE whose negatives a guide checks (GISTEmbed, arXiv 2402.16829): what it finds nearer than the positive is none.

The guide is the model as it was before training.
"""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor

from tasks.training.losses.batch import compare
from tasks.training.losses.infonce import InfoNCE, rank_one
from tasks.training.losses.pairs import Pairs


class Guided(InfoNCE):
    """As InfoNCE. guide: a model with the same tokenizer; it is not trained. guide_margin: see `TrainConfig`."""

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        scale: float,
        known: Pairs,
        guide: SentenceTransformer,
        guide_margin: float = 0.0,
        score_margin: float | None = None,
    ) -> None:
        super().__init__(model, scale=scale, known=known, score_margin=score_margin)
        self.guide = guide.requires_grad_(False).eval()
        self.guide_margin = guide_margin

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the mean over the rows."""
        columns = list(features)
        copies = [dict(column) for column in columns]  # a model writes its outputs into what it is given
        compared = compare(embed_columns(self.model, columns), labels, self.known)
        with torch.no_grad():
            guided = compare(embed_columns(self.guide.eval(), copies), labels, self.known)
            nearer = guided.cosines > guided.of_own() - self.guide_margin
        return rank_one(compared, self.scale, self.score_margin, nearer)
