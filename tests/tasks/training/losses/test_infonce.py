"""InfoNCE with a mask: the library's own loss where nothing is masked, and no negative where something is."""

from pathlib import Path

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from tasks.training.losses.infonce import InfoNCE
from tasks.training.losses.pairs import Pairs
from tests.tasks.training.losses.toys import Bag, batch, cosine, loss_of_row

NOTHING = Pairs.of(30, [], [])


def test_with_an_empty_mask_loss_and_gradients_are_those_of_the_library() -> None:
    ours, theirs = Bag(), Bag()
    features, labels = batch([0, 0, 5, 6], [1, 1, 7, 8], [2, 2, 9, 5])
    loss = InfoNCE(ours, scale=20.0, known=NOTHING)(features, labels)
    expected = MultipleNegativesRankingLoss(theirs, scale=20.0)(features, labels)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(ours.table.weight.grad, theirs.table.weight.grad, atol=1e-6)


def test_a_known_passage_is_no_negative_of_its_query_wherever_it_stands() -> None:
    """Passage 1 is the positive of row 1 and relevant to query 0; passage 6 is a negative of row 1, relevant to 0."""
    model = Bag()
    features, labels = batch([0, 0, 5], [1, 1, 6])
    loss = InfoNCE(model, scale=20.0, known=Pairs.of(30, [0, 0, 0], [0, 1, 6]))(features, labels)
    rows = [loss_of_row(model, 0, 0, [5]), loss_of_row(model, 1, 1, [0, 5, 6])]
    assert loss.item() == pytest.approx(sum(rows) / 2, abs=1e-5)


def test_an_empty_place_is_no_negative_and_gets_no_gradient() -> None:
    model = Bag()
    features, labels = batch([0, 0, -1], [1, 1, 6])
    loss = InfoNCE(model, scale=20.0, known=NOTHING)(features, labels)
    loss.backward()
    rows = [loss_of_row(model, 0, 0, [1, 6]), loss_of_row(model, 1, 1, [0, 6])]
    assert loss.item() == pytest.approx(sum(rows) / 2, abs=1e-5)
    assert not model.table.weight.grad[0].any()


def test_a_row_without_any_negative_has_no_loss_and_finite_gradients() -> None:
    model = Bag()
    features, labels = batch([0, 0, -1], [0, 0, -1])
    loss = InfoNCE(model, scale=20.0, known=Pairs.of(30, [0], [0]))(features, labels)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(model.table.weight.grad).all()


def test_a_score_margin_leaves_out_what_is_much_nearer_than_the_positive() -> None:
    model = Bag()
    others = sorted((passage for passage in range(5, 29)), key=lambda passage: cosine(model, 0, passage))
    far, near = others[0], others[-1]
    middle = others[len(others) // 2]
    features, labels = batch([0, middle, far, near])
    margin = (cosine(model, 0, near) - cosine(model, 0, middle)) / 2
    loss = InfoNCE(model, scale=20.0, known=NOTHING, score_margin=margin)(features, labels)
    assert loss.item() == pytest.approx(loss_of_row(model, 0, middle, [far]), abs=1e-5)
    wide = InfoNCE(model, scale=20.0, known=NOTHING, score_margin=3.0)(features, labels)
    assert wide.item() == pytest.approx(loss_of_row(model, 0, middle, [far, near]), abs=1e-5)


ROWS = ([0, 0, 5], [1, 1, 6], [2, 2, 7], [3, 3, 0])
KNOWN = ([0, 1, 2, 3, 0, 2], [0, 1, 2, 3, 7, 6])  # passage 0 is a negative of the last row; 7 is known to the first


def work(rank: int, folder: str) -> None:
    """Half of a batch on one of two workers: loss and gradients into a file."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    model = Bag()
    features, labels = batch(*ROWS[2 * rank : 2 * rank + 2])
    loss = InfoNCE(model, scale=20.0, known=Pairs.of(30, *KNOWN))(features, labels)
    loss.backward()
    torch.save({"loss": loss.detach(), "grad": model.table.weight.grad}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_workers_have_loss_and_gradients_of_one_with_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    model = Bag()
    features, labels = batch(*ROWS)
    whole = InfoNCE(model, scale=20.0, known=Pairs.of(30, *KNOWN))(features, labels)
    whole.backward()
    assert sum(float(half["loss"]) for half in halves) / 2 == pytest.approx(whole.item(), abs=1e-5)
    assert torch.allclose(sum(half["grad"] for half in halves) / 2, model.table.weight.grad, atol=1e-5)
