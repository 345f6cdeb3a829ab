"""Several positives at once: each against the negatives, none against another."""

import pytest

from tasks.training.losses.all_positives import AllPositives
from tasks.training.losses.infonce import InfoNCE
from tasks.training.losses.pairs import Pairs
from tests.tasks.training.losses.toys import Bag, batch, loss_of_row


def test_the_loss_of_a_row_is_the_mean_over_its_positives_whatever_their_number() -> None:
    model = Bag()
    features, labels = batch([0, 0, 10, 5], [1, 1, -1, 6])
    loss = AllPositives(model, scale=20.0, known=Pairs.of(30, [], []), positives=2)(features, labels)
    two = (loss_of_row(model, 0, 0, [1, 5, 6]) + loss_of_row(model, 0, 10, [1, 5, 6])) / 2
    one = loss_of_row(model, 1, 1, [0, 10, 5, 6])
    assert loss.item() == pytest.approx((two + one) / 2, abs=1e-5)


def test_with_one_positive_it_is_infonce_and_the_mask_holds() -> None:
    model, known = Bag(), Pairs.of(30, [0, 0], [1, 6])
    features, labels = batch([0, 0, 5], [1, 1, 6])
    single = AllPositives(model, scale=20.0, known=known, positives=1)(features, labels)
    assert single.item() == pytest.approx(InfoNCE(model, scale=20.0, known=known)(features, labels).item(), abs=1e-6)
