"""InfoNCE with GradCache (arXiv 2101.06983): large batches in the memory of small ones, with the same gradients."""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from torch import Tensor

from tasks.training.losses.infonce import InfoNCE
from tasks.training.losses.pairs import Pairs


class CachedInfoNCE(CachedLossMixin, InfoNCE):  # type: ignore[misc]  # the library has no types
    """As InfoNCE. mini_batch_size: texts encoded at once, each twice."""

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        scale: float,
        known: Pairs,
        score_margin: float | None = None,
        mini_batch_size: int = 32,
    ) -> None:
        InfoNCE.__init__(self, model, scale=scale, known=known, score_margin=score_margin)
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = None
        self.show_progress_bar = False

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the mean over the rows."""
        loss: Tensor = CachedLossMixin.forward_cached(self, features, labels)
        return loss

    def calculate_loss(self, reps: list[list[Tensor]], labels: Tensor, *, with_backward: bool = False) -> Tensor:
        """Return the loss of embeddings that were made in pieces. with_backward: and send their gradients back."""
        loss = self.of_embeddings([torch.cat(column) for column in reps], labels)
        if with_backward:
            loss.backward()  # type: ignore[no-untyped-call]
            loss = loss.detach()
        return loss
