"""MarginMSE (arXiv 2010.02666): the model's margin of positive over negative shall be that of the soft labels."""

from collections.abc import Iterable
from typing import Any

from sentence_transformers.util import get_world_size
from torch import Tensor

from tasks.training.losses.batch import all_workers
from tasks.training.losses.soft import SoftLoss


class MarginMSE(SoftLoss):
    """The mean squared difference of the margins, over each positive with each negative of its row that has a label."""

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the mean over the pairs; 0 if no pair of the batch has labels.

        Of several workers, each returns its share of the mean over the pairs of all: torch averages what they return.
        """
        scores, targets, there = self.own(list(features), labels)
        margins, wanted = scores[:, :1] - scores[:, 1:], targets[:, :1] - targets[:, 1:]
        both = there[:, :1] & there[:, 1:]
        pairs = all_workers(both.sum()[None]).sum() / get_world_size()
        loss: Tensor = ((margins - wanted).square() * both).sum() / pairs.clamp(min=1 / get_world_size())
        return loss
