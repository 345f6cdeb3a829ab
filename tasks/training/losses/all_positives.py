"""InfoNCE over several positives of a query at once: the mean over its positives, none of which is another's negative.

It is like the "out" form of supervised contrastive learning (Khosla et al., arXiv 2004.11362, equation 2), but without
the other positives in the denominator.
"""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn

from tasks.training.losses.batch import Lookup, compare
from tasks.training.losses.infonce import hide
from tasks.training.losses.pairs import Pairs


class AllPositives(nn.Module):
    """Each row weighs the same, however many positives it has. positives: columns of positives."""

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        scale: float,
        known: Pairs,
        positives: int,
        score_margin: float | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.positives = positives
        self.score_margin = score_margin
        self.known = Lookup(known)

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the mean over the rows."""
        compared = compare(embed_columns(self.model, features), labels, self.known, self.positives)
        positives = compared.of_own() * self.scale
        logits = hide(compared, self.score_margin).logits(self.scale)
        negatives = torch.logsumexp(logits, dim=1, keepdim=True)
        losses = (torch.logaddexp(positives, negatives) - positives) * compared.present
        return (losses.sum(dim=1) / compared.present.sum(dim=1)).mean()
