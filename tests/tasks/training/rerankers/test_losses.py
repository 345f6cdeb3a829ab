"""The losses of rerankers, by hand, and against those of sentence-transformers."""

from typing import Any

import pytest
import torch
from torch import nn

from tasks.training.rerankers.losses import RowLoss, each_pair, share_of_positive

SCORES = torch.tensor([[1.0, 0.0, 2.0], [0.5, -1.0, 9.0], [0.3, 9.0, 9.0]])
PRESENT = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])


class Given(nn.Module):
    """Gives the scores that stand in its input."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"scores": features["scores"][:, None]}


def test_the_share_of_the_positive_is_among_the_passages_that_are_there() -> None:
    e = torch.exp
    expected = [
        -torch.log(e(SCORES[0, 0]) / e(SCORES[0]).sum()),
        -torch.log(e(SCORES[1, 0]) / e(SCORES[1, :2]).sum()),
        torch.tensor(0.0),  # nothing to compare with
    ]
    assert share_of_positive(SCORES, PRESENT).tolist() == pytest.approx([float(x) for x in expected], abs=1e-6)


def test_the_positive_weighs_as_much_as_the_negatives_of_its_row() -> None:
    def cross_entropy(score: float, label: float) -> float:
        given = torch.tensor(score)
        return float(nn.BCEWithLogitsLoss()(given, torch.tensor(float(label))))

    expected = [
        (cross_entropy(1.0, 1) + (cross_entropy(0.0, 0) + cross_entropy(2.0, 0)) / 2) / 2,
        (cross_entropy(0.5, 1) + cross_entropy(-1.0, 0)) / 2,
        cross_entropy(0.3, 1),
    ]
    assert each_pair(SCORES, PRESENT).tolist() == pytest.approx(expected, abs=1e-6)


def test_scores_of_the_pairs_that_are_there_go_to_their_rows() -> None:
    labels = torch.tensor([[0, 5, 6, 7], [1, 5, 8, -1], [2, 9, -1, -1]])
    loss = RowLoss(Given(), "softmax")([{"scores": SCORES[PRESENT]}], labels)
    assert float(loss) == pytest.approx(float(share_of_positive(SCORES, PRESENT).mean()), abs=1e-6)
    assert float(RowLoss(Given(), "pairs")([{"scores": SCORES[PRESENT]}], labels)) == pytest.approx(
        float(each_pair(SCORES, PRESENT).mean()), abs=1e-6
    )
