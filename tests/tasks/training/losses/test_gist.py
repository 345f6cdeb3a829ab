"""A guide takes away negatives that it finds nearer to the query than the positive."""

import pytest

from tasks.training.losses.gist import Guided
from tasks.training.losses.pairs import Pairs
from tests.tasks.training.losses.toys import Bag, batch, cosine, loss_of_row


def test_what_the_guide_finds_nearer_is_no_negative_and_the_guide_is_not_trained() -> None:
    model, guide = Bag(0), Bag(1)
    order = sorted(range(5, 29), key=lambda passage: cosine(guide, 0, passage))
    far, middle, near = order[0], order[12], order[-1]
    features, labels = batch([0, middle, far, near])
    loss = Guided(model, scale=20.0, known=Pairs.of(30, [], []), guide=guide)(features, labels)
    loss.backward()
    assert loss.item() == pytest.approx(loss_of_row(model, 0, middle, [far]), abs=1e-5)
    assert guide.table.weight.grad is None
    lenient = Guided(model, scale=20.0, known=Pairs.of(30, [], []), guide=guide, guide_margin=-3.0)
    assert lenient(features, labels).item() == pytest.approx(loss_of_row(model, 0, middle, [far, near]), abs=1e-5)
