"""Compare each query with the passages of its own row, and look their soft labels up."""

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn

from tasks.training.losses.batch import Lookup
from tasks.training.losses.pairs import Pairs


class SoftLoss(nn.Module):
    """What the losses from soft labels share. scale: 1 / temperature. soft: the labels, by pair."""

    def __init__(self, model: SentenceTransformer, *, scale: float, soft: Pairs) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.soft = Lookup(soft)

    def own(self, features: list[dict[str, Tensor]], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scaled cosines, soft labels, and which passages have one; each of shape (rows, passages of a row)."""
        query, *passages = embed_columns(self.model, features)
        cosines = [torch.cosine_similarity(query, column, dim=1) for column in passages]
        targets = self.soft.values_of(labels[:, :1], labels[:, 1:])
        there = ~targets.isnan()
        return torch.stack(cosines, dim=1) * self.scale, targets.masked_fill(~there, 0.0), there
