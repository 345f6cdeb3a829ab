"""Exact bounds from a simple random sample."""

from itertools import combinations

import numpy as np
import pytest

from tasks.verdicts.guarantee.bounds import chance_of_at_most, fewest


def test_the_chance_is_that_of_counting_all_samples() -> None:
    size, drawn = 7, 3
    for marked in range(size + 1):
        samples = [sum(i < marked for i in sample) for sample in combinations(range(size), drawn)]
        for found in range(drawn + 1):
            counted = sum(count <= found for count in samples) / len(samples)
            assert chance_of_at_most(found, drawn, marked, size)[0] == pytest.approx(counted, abs=1e-12)


def test_several_chances_are_found_at_once_each_with_its_own_numbers() -> None:
    found, marked = np.array([0, 2, 5]), np.array([1, 4, 0])
    together = chance_of_at_most(found, 5, marked, 10)
    assert together.tolist() == [
        chance_of_at_most(int(k), 5, int(m), 10)[0] for k, m in zip(found, marked, strict=True)
    ]
    assert together[2] == 1.0


def test_nothing_drawn_says_nothing() -> None:
    assert chance_of_at_most(0, 0, 9, 10)[0] == 1.0
    assert fewest(0, 0, 10, 0.05) == 0


def test_more_marked_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="at most `size` marked"):
        chance_of_at_most(0, 1, 11, 10)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
def test_the_lower_bound_fails_with_at_most_the_chance_that_it_states(alpha: float) -> None:
    size, drawn = 30, 12
    for marked in range(size + 1):
        wrong = [k for k in range(drawn + 1) if k <= marked and fewest(k, drawn, size, alpha) > marked]
        if wrong:  # the bound grows with what is found, so the wrong ones are the upper tail
            assert 1.0 - chance_of_at_most(min(wrong) - 1, drawn, marked, size)[0] <= alpha + 1e-12


def test_the_lower_bound_is_no_smaller_than_it_must_be() -> None:
    assert fewest(12, 12, 12, 0.05) == 12  # all drawn: the count is known
    assert fewest(8, 10, 100, 0.05) == 51
    below = 1.0 - chance_of_at_most(7, 10, 50, 100)[0]
    at = 1.0 - chance_of_at_most(7, 10, 51, 100)[0]
    assert below <= 0.05 < at
