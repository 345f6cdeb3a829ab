"""MarginMSE: margins, over the pairs with labels."""

import pytest

from tasks.training.losses.margin_mse import MarginMSE
from tasks.training.losses.pairs import Pairs
from tests.tasks.training.losses.toys import Bag, batch, cosine


def test_it_is_the_squared_difference_of_margins_over_pairs_with_labels() -> None:
    model = Bag()
    soft = Pairs.of(30, [0, 0, 1], [0, 5, 1], [3.0, 1.0, 2.0])
    features, labels = batch([0, 0, 5, 6], [1, 1, 5, 6])
    loss = MarginMSE(model, scale=10.0, soft=soft)(features, labels)
    margin = 10 * (cosine(model, 0, 0) - cosine(model, 0, 5))
    assert loss.item() == pytest.approx((margin - 2.0) ** 2, abs=1e-3)


def test_a_batch_without_labels_has_no_loss() -> None:
    features, labels = batch([0, 0, 5])
    loss = MarginMSE(Bag(), scale=10.0, soft=Pairs.of(30, [], [], []))(features, labels)
    loss.backward()
    assert loss.item() == 0.0
