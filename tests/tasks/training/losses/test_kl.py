"""KL from soft labels: over the labelled passages of each row."""

import pytest
import torch

from tasks.training.losses.kl import SoftLabelKL
from tasks.training.losses.pairs import Pairs
from tests.tasks.training.losses.toys import Bag, batch, cosine


def test_it_is_the_divergence_from_the_labels_over_the_labelled_passages() -> None:
    model = Bag()
    soft = Pairs.of(30, [0, 0, 1], [0, 5, 1], [3.0, 1.0, 2.0])
    features, labels = batch([0, 0, 5, 6], [1, 1, 5, 6])
    loss = SoftLabelKL(model, scale=10.0, soft=soft, soft_temperature=2.0)(features, labels)
    scores = torch.tensor([10 * cosine(model, 0, 0), 10 * cosine(model, 0, 5)])
    wanted = torch.softmax(torch.tensor([1.5, 0.5]), dim=0)
    expected = (wanted * (wanted.log() - torch.log_softmax(scores, dim=0))).sum()
    assert loss.item() == pytest.approx(float(expected) / 2, abs=1e-4)  # the second row has one label: nothing to learn


def test_gradients_are_finite_where_a_row_has_no_label() -> None:
    model = Bag()
    features, labels = batch([0, 0, 5], [1, 1, -1])
    SoftLabelKL(model, scale=10.0, soft=Pairs.of(30, [0, 0], [0, 5], [60.0, -60.0]))(features, labels).backward()
    assert torch.isfinite(model.table.weight.grad).all()
