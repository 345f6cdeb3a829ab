"""The losses of rerankers: each query is scored with the passages of its own row alone.

The label of a row holds the numbers of its texts: the query, its positive, its negatives; -1 where a row has none. Only
the pairs that are there are scored, row by row.
"""

from typing import Any, Literal

import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits


class RowLoss(nn.Module):
    """The loss of a batch of rows; the mean over the rows, so that workers with parts of a batch agree with one."""

    def __init__(self, model: CrossEncoder, objective: Literal["softmax", "pairs"]) -> None:
        super().__init__()
        self.model = model
        self._of_rows = {"softmax": share_of_positive, "pairs": each_pair}[objective]

    def forward(self, features: list[dict[str, Any]], labels: Tensor, **_: Any) -> Tensor:
        """Score the pairs of the batch. features: one entry, the model's inputs."""
        scores = self.model(features[0])["scores"].view(-1).float()
        present = labels[:, 1:] >= 0
        table = torch.zeros(present.shape, device=scores.device).masked_scatter(present, scores)
        return self._of_rows(table, present).mean()


def share_of_positive(scores: Tensor, present: Tensor) -> Tensor:
    """Return -log(share of the first passage) of each row; 0 for a row without negatives.

    scores, present: shape (rows, passages).

    >>> share_of_positive(torch.zeros(1, 4), torch.tensor([[True, True, False, False]]))
    tensor([0.6931])
    """
    there = scores.masked_fill(~present, torch.finfo(scores.dtype).min)
    return torch.logsumexp(there, dim=1) - scores[:, 0]


def each_pair(scores: Tensor, present: Tensor) -> Tensor:
    """Return the cross-entropy of each row's pairs: the positive's, and the mean of the negatives', each by half.

    A row without negatives has its positive's alone.

    >>> each_pair(torch.zeros(1, 3), torch.tensor([[True, True, True]]))
    tensor([0.6931])
    """
    wanted = torch.zeros_like(scores)
    wanted[:, 0] = 1.0
    losses = binary_cross_entropy_with_logits(scores, wanted, reduction="none").masked_fill(~present, 0.0)
    negatives = present[:, 1:].sum(dim=1)
    mean = losses[:, 1:].sum(dim=1) / negatives.clamp(min=1)
    return torch.where(negatives > 0, (losses[:, 0] + mean) / 2, losses[:, 0])
