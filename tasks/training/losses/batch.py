"""Compare the queries of a batch with its passages, and find the passages that are no negatives of a query.

The label of a row holds the numbers of its texts: the query, then its passages by column; -1 where a row has none.
"""

from dataclasses import dataclass

import torch
from sentence_transformers.util import all_gather, cos_sim, get_rank
from torch import Tensor, nn

from tasks.training.losses.pairs import Pairs


class Lookup(nn.Module):
    """Looks pairs of a batch up in sorted pairs, on the model's device."""

    keys: Tensor
    values: Tensor

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self._texts = pairs.texts
        values = torch.empty(0) if pairs.values is None else torch.from_numpy(pairs.values)
        self.register_buffer("keys", torch.from_numpy(pairs.keys), persistent=False)
        self.register_buffer("values", values, persistent=False)

    def forward(self, queries: Tensor, texts: Tensor) -> Tensor:
        """Return whether each pair is there.

        queries, texts: numbers, of shapes that broadcast; a text of -1 is in no pair.
        """
        return self._find(queries, texts)[0]

    def values_of(self, queries: Tensor, texts: Tensor) -> Tensor:
        """Return the value of each pair; NaN for a pair that is not there."""
        found, places = self._find(queries, texts)
        missing = torch.full(places.shape, torch.nan, device=places.device)
        return torch.where(found, self.values[places], missing) if len(self.keys) else missing

    def _find(self, queries: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        keys = queries * self._texts + texts
        if not len(self.keys):
            return torch.zeros_like(keys, dtype=torch.bool), torch.zeros_like(keys)
        places = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return (self.keys[places] == keys) & (texts >= 0), places


@dataclass(frozen=True)
class Compared:
    """The queries of one worker against the passages of all workers.

    cosines: shape (queries, passages). The passages stand column by column: all first positives, then all second.
    hidden: same shape; passages that are no negatives of the query, own positives included.
    own: shape (queries, columns of positives); where each query's own positives stand. present: same; which there are.
    """

    cosines: Tensor
    hidden: Tensor
    own: Tensor
    present: Tensor

    def logits(self, scale: float) -> Tensor:
        """Scale the cosines, and make the hidden ones so small that they add nothing to a sum of exponentials."""
        scaled = self.cosines * scale
        return scaled.masked_fill(self.hidden, torch.finfo(scaled.dtype).min)

    def of_own(self) -> Tensor:
        """Return the cosine of each query with its own positives, as `own`."""
        return self.cosines.gather(1, self.own)


def compare(embeddings: list[Tensor], labels: Tensor, known: Lookup, positives: int = 1) -> Compared:
    """Compare each query with all passages of the batch; with several workers, of all their batches.

    Args:
        embeddings: of the queries, then of each column of passages; shape (rows, dimensions) each.
        labels: shape (rows, 1 + columns of passages).
        known: pairs in which the text is no negative of the query.
        positives: how many of the columns hold positives; they come first.
    """
    rows = len(labels)
    numbers = all_workers(labels)[:, 1:]
    passages = torch.cat([all_workers(column, with_grad=True) for column in embeddings[1:]])
    cosines = cos_sim(embeddings[0], passages).float()  # sums of exponentials are too coarse in half precision
    texts = numbers.T.reshape(1, -1)
    hidden = known(labels[:, :1], texts) | (texts < 0)
    first = torch.arange(rows, device=labels.device) + get_rank() * rows
    own = first[:, None] + torch.arange(positives, device=labels.device)[None, :] * len(numbers)
    return Compared(cosines, hidden.scatter(1, own, value=True), own, labels[:, 1 : 1 + positives] >= 0)


def all_workers(tensor: Tensor, *, with_grad: bool = False) -> Tensor:
    """Join the rows of all workers, those of the first worker first."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    joined: Tensor = all_gather(tensor, with_grad=with_grad)
    return joined
