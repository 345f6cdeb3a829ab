"""KL divergence of the model's distribution over the passages of a row from that of the soft labels.

As in the distillation of the paper's baseline (section 4): no negatives of other rows.
"""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from tasks.training.losses.pairs import Pairs
from tasks.training.losses.soft import SoftLoss


class SoftLabelKL(SoftLoss):
    """Passages without a label are left out. soft_temperature: soft labels are divided by it."""

    def __init__(self, model: SentenceTransformer, *, scale: float, soft: Pairs, soft_temperature: float = 1.0) -> None:
        super().__init__(model, scale=scale, soft=soft)
        self.soft_temperature = soft_temperature

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the mean over the rows."""
        scores, targets, there = self.own(list(features), labels)
        least = torch.finfo(scores.dtype).min
        wanted = torch.softmax((targets / self.soft_temperature).masked_fill(~there, least), dim=1)
        log_share = torch.log_softmax(scores.masked_fill(~there, least), dim=1)
        log_wanted = wanted.clamp(min=torch.finfo(wanted.dtype).tiny).log()
        return torch.where(there, wanted * (log_wanted - log_share), 0.0).sum(dim=1).mean()
