"""Each row is compared with its own passages, and knows which have a soft label."""

import pytest
import torch

from tasks.training.losses.pairs import Pairs
from tasks.training.losses.soft import SoftLoss
from tests.tasks.training.losses.toys import Bag, batch, cosine


def test_scores_are_scaled_cosines_and_labels_are_looked_up_by_query_and_text() -> None:
    model = Bag()
    features, labels = batch([0, 0, 5], [1, 0, -1])
    scores, targets, there = SoftLoss(model, scale=2.0, soft=Pairs.of(30, [0, 1], [0, 5], [4.0, 1.0])).own(
        features, labels
    )
    assert scores[0].tolist() == pytest.approx([2 * cosine(model, 0, 0), 2 * cosine(model, 0, 5)], abs=1e-6)
    assert torch.equal(there, torch.tensor([[True, False], [False, False]]))
    assert targets.tolist() == [[4.0, 0.0], [0.0, 0.0]]
