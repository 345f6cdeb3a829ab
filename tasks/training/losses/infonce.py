"""InfoNCE: the negative logarithm of the positive's share among the passages of the batch that may be negatives.

With no known pair and no margin it is `MultipleNegativesRankingLoss` of sentence-transformers. The margin is that of
Qwen3-Embedding (arXiv 2506.05176): a passage that is much nearer to the query than its positive is probably relevant.
"""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn

from tasks.training.losses.batch import Compared, Lookup, compare
from tasks.training.losses.pairs import Pairs


class InfoNCE(nn.Module):
    """InfoNCE with a mask. scale: 1 / temperature. known: the mask. score_margin: see `TrainConfig`."""

    def __init__(
        self, model: SentenceTransformer, *, scale: float, known: Pairs, score_margin: float | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.score_margin = score_margin
        self.known = Lookup(known)

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the mean over the rows."""
        return self.of_embeddings(embed_columns(self.model, features), labels)

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """Return the mean over the rows; see `compare` for the arguments."""
        return rank_one(compare(embeddings, labels, self.known), self.scale, self.score_margin)


def rank_one(compared: Compared, scale: float, score_margin: float | None, further: Tensor | None = None) -> Tensor:
    """Return the mean of -log(share of the positive). further: more passages that are no negatives, as `hidden`."""
    positive = compared.of_own()
    logits = hide(compared, score_margin, further).logits(scale)
    logits = logits.scatter(1, compared.own, positive * scale)
    return (torch.logsumexp(logits, dim=1) - positive[:, 0] * scale).mean()


def hide(compared: Compared, score_margin: float | None, further: Tensor | None = None) -> Compared:
    """Hide what exceeds the query's best positive by more than the margin, and what `further` names."""
    hidden = compared.hidden if further is None else compared.hidden | further
    if score_margin is not None:
        best = compared.of_own().masked_fill(~compared.present, -1.0).amax(dim=1, keepdim=True)
        hidden = hidden | (compared.cosines.detach() > best.detach() + score_margin)
    return Compared(compared.cosines, hidden, compared.own, compared.present)
