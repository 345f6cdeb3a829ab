"""Ridge regressions that are pooled over datasets."""

import numpy as np
import pytest

from tasks.verdicts.fitting.folds import expit, split_folds
from tasks.verdicts.fitting.regression import _newton, choose, fit_regression


def pairs(count: int, shifts: tuple[float, ...] = (0.0,), seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    place = np.arange(count) % len(shifts)
    relevant = rng.random(count) < expit(x[:, 0] - 0.5 * x[:, 1] + np.array(shifts)[place])
    return x, relevant, np.ones(count), np.array([f"d{n}" for n in place]), np.arange(count) // 10


def test_the_fast_fit_that_chooses_the_strength_is_the_one_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    x, relevant, weights, _, _ = pairs(300)
    weights = weights + np.arange(300) % 3
    ours = _newton(x, relevant, weights, 0.1)
    other = LogisticRegression(C=0.1, tol=1e-10).fit(x, relevant, sample_weight=weights)
    np.testing.assert_allclose(ours, [*other.intercept_, *other.coef_[0]], atol=2e-4)


def test_a_fit_finds_the_coefficients_and_a_missing_value_counts_as_the_mean() -> None:
    x, relevant, weights, dataset, _ = pairs(5000)
    found = fit_regression(x, relevant, weights, dataset, ["a", "b", "c"], (1.0, 0.0))
    slopes = np.array(found.coefficients) / np.array(found.spread)
    np.testing.assert_allclose(slopes, [1, -0.5, 0], atol=0.1)
    whole, gone = found.log_odds(np.array([[*found.centre], [np.nan] * 3]), np.array(["d0", "d0"]))
    assert whole == pytest.approx(gone) == pytest.approx(found.intercept)


def test_datasets_that_differ_get_intercepts_of_their_own_and_an_unknown_one_the_pooled() -> None:
    x, relevant, weights, dataset, groups = pairs(2000, (-1.5, 1.5))
    (strength, pooling), _ = choose(x, relevant, weights, dataset, split_folds(groups, relevant, 5))
    assert pooling > 0
    found = fit_regression(x, relevant, weights, dataset, ["a", "b", "c"], (strength, pooling))
    low, high, unknown = found.log_odds(np.zeros((3, 3)), np.array(["d0", "d1", "new"]))
    assert low < -1 < unknown < 1 < high
    assert unknown == pytest.approx(found.log_odds(np.zeros((1, 3)), np.array(["other"]))[0])


def test_equal_datasets_are_pooled() -> None:
    x, relevant, weights, dataset, groups = pairs(400, (0.0, 0.0, 0.0, 0.0))
    assert choose(x, relevant, weights, dataset, split_folds(groups, relevant, 5))[0][1] < 1


def test_noise_gets_a_strong_penalty() -> None:
    rng = np.random.default_rng(1)
    x, relevant = rng.normal(size=(100, 8)), rng.random(100) < 0.5
    dataset, fold = np.array(["d"] * 100), np.arange(100) % 5
    assert choose(x, relevant, np.ones(100), dataset, fold)[0][0] <= 0.03


def test_without_columns_p_is_the_share_of_relevant_pairs() -> None:
    _, relevant, weights, dataset, groups = pairs(200)
    none = np.empty((200, 0))
    assert choose(none, relevant, weights, dataset, groups % 5)[1] == pytest.approx(relevant.mean(), abs=0.05)
    p = expit(fit_regression(none, relevant, weights, dataset, [], (1.0, 0.0)).log_odds(none, dataset))
    assert p == pytest.approx(relevant.mean(), abs=1e-6)
