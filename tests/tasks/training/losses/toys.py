"""A model of a vector per text, and batches for it by the numbers of their texts."""

from typing import Any

import torch
from torch import Tensor, nn

_QUERIES = 30  # the number of a query's vector, above those of the passages


class Bag(nn.Module):
    """Ids in, the mean of their vectors out."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(60, 8)
        with torch.no_grad():
            self.table.weight.copy_(torch.randn(60, 8, generator=torch.Generator().manual_seed(seed)))

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {**features, "sentence_embedding": self.table(features["input_ids"]).mean(dim=1)}


def batch(*rows: list[int]) -> tuple[list[dict[str, Tensor]], Tensor]:
    """Features by column, and labels. rows: the numbers of query and passages; -1 for an empty place."""
    labels = torch.tensor(rows)
    columns = [labels[:, 0] + _QUERIES, *(labels[:, column] + 1 for column in range(1, labels.shape[1]))]
    ids = [column[:, None].repeat(1, 2) for column in columns]
    return [{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids], labels


def cosine(model: Bag, query: int, passage: int) -> float:
    vectors = model.table.weight.detach()[[query + _QUERIES, passage + 1]]
    return float(torch.cosine_similarity(vectors[0], vectors[1], dim=0))


def loss_of_row(model: Bag, query: int, positive: int, negatives: list[int], scale: float = 20.0) -> float:
    """InfoNCE of one row, written out: what a row's loss is if exactly these passages are its negatives."""
    scores = torch.tensor([cosine(model, query, one) * scale for one in (positive, *negatives)])
    return float(torch.logsumexp(scores, dim=0) - scores[0])
