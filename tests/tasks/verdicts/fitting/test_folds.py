"""Log-odds, folds of queries and the effective number of labels."""

import numpy as np
import pytest

from tasks.verdicts.fitting.folds import effective, expit, is_better, log_loss, logit, split_folds


def test_log_odds_are_finite_and_turn_back_into_the_score() -> None:
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()
    np.testing.assert_allclose(expit(logit(np.array([0.01, 0.5, 0.99]))), [0.01, 0.5, 0.99])
    assert expit(np.array([-2000.0, 2000.0])).tolist() == [0.0, 1.0]


def test_all_pairs_of_a_query_are_in_one_fold_and_relevant_ones_are_spread() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 7)
    relevant = rng.random(210) < np.repeat(rng.random(30), 7)
    fold = split_folds(groups, relevant, 5, seed=3)
    assert all(len(np.unique(fold[groups == one])) == 1 for one in range(30))
    assert np.ptp(np.bincount(fold, relevant)) <= 4
    assert np.array_equal(fold, split_folds(groups, relevant, 5, seed=3))
    assert not np.array_equal(fold, split_folds(groups, relevant, 5, seed=4))


def test_there_are_no_more_folds_than_queries() -> None:
    assert sorted(split_folds(np.array(["a", "b"]), np.array([True, False]), 5).tolist()) == [0, 1]


def test_uneven_weights_count_as_fewer_pairs() -> None:
    assert effective(np.array([1.0, 1.0])).sum() == pytest.approx(2)
    assert effective(np.array([100.0, 1e-9])).sum() == pytest.approx(1)


def test_log_loss_is_that_of_the_labels() -> None:
    found = log_loss(np.array([0.8, 0.2]), np.array([True, True]), np.array([3.0, 1.0]))
    assert found == pytest.approx(-(3 * np.log(0.8) + np.log(0.2)) / 4)


def test_one_way_is_better_only_if_it_is_in_most_queries() -> None:
    relevant, weights, groups = np.tile([True, False], 20), np.ones(40), np.repeat(np.arange(20), 2)
    plain, good = np.full(40, 0.5), np.where(relevant, 0.6, 0.4)
    assert is_better(good, plain, relevant, weights, groups) and not is_better(plain, good, relevant, weights, groups)
    lucky = np.where(groups == 0, np.where(relevant, 0.99, 0.01), 0.5)
    assert log_loss(lucky, relevant) < log_loss(plain, relevant)
    assert not is_better(lucky, plain, relevant, weights, groups)
    assert not is_better(good[:2], plain[:2], relevant[:2], weights[:2], groups[:2])
