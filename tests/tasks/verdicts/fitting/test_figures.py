"""Figures of probabilities, with intervals that draw queries."""

import numpy as np
import pytest

from tasks.verdicts.fitting.figures import Scored, auc, auc_within, draw_counts, ece, measure, sweep
from tasks.verdicts.fitting.folds import expit


def scored(queries: int = 50, per_query: int = 10, seed: int = 0, spread: float = 0.0) -> Scored:
    """Calibrated P; with `spread` each query has log-odds of its own, unknown to P."""
    rng = np.random.default_rng(seed)
    z, group = rng.normal(size=queries * per_query), np.repeat(np.arange(queries), per_query)
    own = rng.normal(size=queries)[group] * spread
    return Scored(expit(2 * z), rng.random(len(z)) < expit(2 * z + own), group, np.ones(len(z)))


def test_auc_counts_ties_half_and_weights_as_copies() -> None:
    p, relevant = np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, True, False, True])
    one = Scored(p, relevant, np.arange(4), np.ones(4))
    assert auc(one) == pytest.approx((1 + 0.5 + 2) / 4)
    assert auc(Scored(p, relevant, np.arange(4), np.array([1.0, 1.0, 3.0, 1.0]))) == pytest.approx((1 + 1.5 + 4) / 8)
    assert np.isnan(auc(one.only(relevant)))


def test_auc_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    found = scored()
    assert auc(found) == pytest.approx(roc_auc_score(found.relevant, found.p))


def test_auc_within_is_the_mean_over_queries_with_both_labels() -> None:
    p = np.array([0.1, 0.9, 0.9, 0.1, 0.5, 0.6])
    relevant = np.array([False, True, False, True, True, True])
    one = Scored(p, relevant, np.array([1, 1, 2, 2, 3, 3]), np.ones(6))
    assert auc_within(one, draw_counts(one.group)).value == 0.5


def test_ece_is_the_mean_distance_of_p_and_share() -> None:
    relevant = np.tile([True, False], 50)
    one = Scored(np.full(100, 0.7), relevant, np.arange(100), np.ones(100))
    assert ece(one) == pytest.approx(0.2)
    assert ece(scored(2000)) < 0.02


def test_all_figures_of_calibrated_scores() -> None:
    found = measure(scored(200), {"noise": np.random.default_rng(0).random(2000)})
    assert len(found.bins) == 10 and {one.pairs for one in found.bins} == {200}
    assert all(one.relevant.low - 0.02 <= one.mean_p <= one.relevant.high + 0.02 for one in found.bins)  # type: ignore[operator]
    assert found.separates
    assert found.singles["noise"].gain.value == pytest.approx(found.auc.value - 0.5, abs=0.03)  # type: ignore[operator]
    alone = measure(scored(200).with_scores(np.random.default_rng(0).random(2000)), {})
    assert not alone.separates


def test_pairs_of_a_query_that_are_alike_make_the_intervals_wider() -> None:
    alike, free = (measure(scored(60, 10, seed=1, spread=spread), {}).prevalence for spread in (4.0, 0.0))
    widths = [found.high - found.low for found in (alike, free)]  # type: ignore[operator]
    assert widths[0] > 1.5 * widths[1]


def test_intervals_of_few_queries_cover_and_have_a_width_where_all_labels_are_equal() -> None:
    held = 0
    for seed in range(200):  # eight queries, of whose pairs three in ten are relevant
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(8), [1, 2, 2, 3, 5, 5, 8, 10])
        one = Scored(np.zeros(len(group)), rng.random(len(group)) < 0.3, group, np.ones(len(group)))
        (found,) = sweep(one, seed)
        assert found.precision.low is not None and found.precision.high is not None
        assert found.precision.low < found.precision.high
        held += found.precision.low <= 0.3 <= found.precision.high
    assert held >= 184  # 190 expected of 95%; 160 were covered by quantiles of the draws alone
    sure = Scored(np.array([0.9] * 6), np.ones(6, dtype=bool), np.arange(6), np.ones(6))
    assert sweep(sure)[0].precision.value == 1 and sweep(sure)[0].precision.low < 0.8  # type: ignore[operator]


def test_random_scores_of_few_queries_are_seldom_said_to_separate() -> None:
    claims = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        one = Scored(rng.random(50), rng.random(50) < 0.2, np.repeat(np.arange(5), 10), np.ones(50))
        found = auc_within(one, draw_counts(one.group, seed, 200))
        claims += found.low is not None and found.low > 0.5
    assert claims <= 10  # 5 expected of one-sided 2.5%; 20 were


def test_a_sweep_has_recall_falling_and_the_counts_of_each_threshold() -> None:
    found = scored()
    points = sweep(found)
    assert points[0].share == 1 and points[0].recall.value == 1
    recalls = [point.recall.value for point in points]
    assert recalls == sorted(recalls, reverse=True)
    middle = points[len(points) // 2]
    called = found.p >= middle.threshold
    assert middle.precision.value == pytest.approx(found.relevant[called].mean(), abs=1e-6)
    assert middle.precision.low < middle.precision.value < middle.precision.high  # type: ignore[operator]


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="of one length expected"):
        Scored(np.zeros(2), np.zeros(3, dtype=bool), np.zeros(2), np.zeros(2))
