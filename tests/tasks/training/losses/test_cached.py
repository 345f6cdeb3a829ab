"""GradCache gives the loss and the gradients of the whole batch, piece by piece."""

import pytest
import torch

from tasks.training.losses.cached import CachedInfoNCE
from tasks.training.losses.infonce import InfoNCE
from tasks.training.losses.pairs import Pairs
from tests.tasks.training.losses.toys import Bag, batch


def test_pieces_of_two_texts_give_the_loss_and_the_gradients_of_the_whole() -> None:
    whole, pieces = Bag(), Bag()
    known = Pairs.of(30, [0, 2], [1, 7])
    features, labels = batch([0, 0, 5], [1, 1, 6], [2, 2, 7], [3, 3, -1], [4, 4, 8])
    expected = InfoNCE(whole, scale=20.0, known=known)(features, labels)
    loss = CachedInfoNCE(pieces, scale=20.0, known=known, mini_batch_size=2)(features, labels)
    expected.backward()
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(pieces.table.weight.grad, whole.table.weight.grad, atol=1e-5)


def test_without_gradients_the_loss_is_the_same() -> None:
    model = Bag()
    features, labels = batch([0, 0, 5], [1, 1, 6])
    cached = CachedInfoNCE(model, scale=20.0, known=Pairs.of(30, [], []), mini_batch_size=1)
    with torch.no_grad():
        found = cached(features, labels)
    assert found.item() == pytest.approx(cached(features, labels).item(), abs=1e-6)
