"""Pairs are looked up as they were listed, and a batch knows which passages are a query's own."""

import torch

from tasks.training.losses.batch import Lookup, compare
from tasks.training.losses.pairs import Pairs


def test_a_lookup_finds_the_listed_pairs_and_their_values_and_no_empty_place() -> None:
    lookup = Lookup(Pairs.of(10, [0, 2, 2], [9, 1, 0], [0.5, -1.0, 3.0]))
    queries, texts = torch.tensor([[0], [1], [2]]), torch.tensor([[9, 1, 0, -1]])
    assert lookup(queries, texts).tolist() == [
        [True, False, False, False],
        [False, False, False, False],
        [False, True, True, False],
    ]
    values = lookup.values_of(torch.tensor([[2]]), torch.tensor([[1, 0, 5]]))
    assert values[0, :2].tolist() == [-1.0, 3.0]
    assert values.isnan().tolist() == [[False, False, True]]


def test_an_empty_place_is_not_taken_for_the_last_text_of_the_query_before() -> None:
    """The key of query 1 and text -1 is that of query 0 and the last text."""
    assert Lookup(Pairs.of(10, [0], [9]))(torch.tensor([[1]]), torch.tensor([[-1]])).tolist() == [[False]]


def test_nothing_is_found_among_no_pairs() -> None:
    lookup = Lookup(Pairs.of(10, [], [], []))
    assert not lookup(torch.tensor([[0]]), torch.tensor([[0, 1]])).any()
    assert lookup.values_of(torch.tensor([[0]]), torch.tensor([[0, 1]])).isnan().all()


def test_passages_stand_column_by_column_and_own_positives_are_hidden() -> None:
    vectors = [torch.eye(4)[[0, 1]], torch.eye(4)[[0, 1]], torch.eye(4)[[2, 3]], torch.eye(4)[[1, 0]]]
    labels = torch.tensor([[0, 0, 2, 1], [1, 1, -1, 0]])
    compared = compare(vectors, labels, Lookup(Pairs.of(4, [1], [2])), positives=2)
    assert compared.cosines.tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]]
    assert compared.own.tolist() == [[0, 2], [1, 3]]
    assert compared.present.tolist() == [[True, True], [True, False]]
    assert compared.hidden.tolist() == [
        [True, False, True, True, False, False],  # the fourth is an empty place
        [False, True, True, True, False, False],  # the third is known
    ]
    assert compared.of_own().tolist() == [[1, 0], [1, 0]]
    halves = compare([each.bfloat16() for each in vectors], labels, Lookup(Pairs.of(4, [], [])), positives=2)
    assert halves.logits(100.0).dtype == torch.float32
