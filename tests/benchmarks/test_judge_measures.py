import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from benchmarks.judge_measures import (
    Scored,
    auc,
    best_threshold,
    brier,
    brier_base_rate,
    calibration_error,
    difference,
    expit,
    fit,
    kappa,
    logit,
    measure,
    score_held_out,
    within_query_auc,
)

DRAWS = 200


def scored(score: list[float], relevant: list[int], query: list[str] | None = None) -> Scored:
    return Scored(np.array(score), np.array(relevant, dtype=bool), np.array(query or ["q"] * len(score)))


def random_pairs(seed: int, queries: int = 12, pairs: int = 15) -> Scored:
    rng = np.random.default_rng(seed)
    relevant = rng.random(queries * pairs) < 0.4
    score = expit(relevant + rng.normal(size=len(relevant)))
    return Scored(score.round(2), relevant, np.repeat([f"q{i}" for i in range(queries)], pairs))


def test_auc_and_kappa_are_those_of_a_library_ties_included() -> None:
    pairs = random_pairs(0)
    assert auc(pairs) == pytest.approx(roc_auc_score(pairs.relevant, pairs.score))
    assert kappa(pairs, 0.6) == pytest.approx(cohen_kappa_score(pairs.relevant, pairs.score >= 0.6))


def test_auc_of_one_class_is_unknown_and_equal_scores_tell_nothing() -> None:
    assert math.isnan(auc(scored([0.1, 0.9], [1, 1])))
    assert auc(scored([0.5, 0.5, 0.5], [1, 0, 0])) == 0.5


def test_auc_within_queries_forgets_what_lies_between_them_and_queries_of_one_class() -> None:
    pairs = scored([0.1, 0.2, 0.8, 0.9, 0.5], [0, 1, 0, 1, 1], ["a", "a", "b", "b", "c"])
    assert auc(pairs) == pytest.approx(4 / 6)
    assert within_query_auc(pairs) == 1.0


def test_kappa_at_the_best_threshold_finds_a_perfect_cut_that_half_misses() -> None:
    pairs = scored([0.9, 0.8, 0.75, 0.6], [1, 1, 0, 0])
    assert kappa(pairs, 0.5) == 0.0
    assert best_threshold(pairs) == 0.8
    assert kappa(pairs, best_threshold(pairs)) == 1.0


def test_brier_of_the_base_rate_is_its_variance() -> None:
    pairs = scored([1.0, 0.5, 0.0, 0.0], [1, 1, 0, 1])
    assert brier(pairs) == pytest.approx((0.25 + 1) / 4)
    assert brier_base_rate(pairs) == pytest.approx(0.75 * 0.25)
    assert brier(scored([0.75] * 4, [1, 1, 0, 1])) == pytest.approx(brier_base_rate(pairs))


def test_calibration_error_by_hand_and_ties_are_not_torn_apart() -> None:
    tied = scored([0.2] * 10 + [0.8] * 10, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0] + [1] * 6 + [0] * 4)
    assert calibration_error(tied) == pytest.approx(0.5 * (0.2 - 0.1) + 0.5 * (0.8 - 0.6))
    ten = scored([i / 20 for i in range(20)], [0] * 20)
    assert calibration_error(ten) == pytest.approx(np.mean(ten.score))


def test_every_measure_has_an_interval_around_it_and_the_seed_decides_it() -> None:
    pairs = random_pairs(1)
    found = measure(pairs, DRAWS, seed=3)
    for name in ("auc", "within_query_auc", "kappa_half", "kappa_best", "brier", "brier_base_rate"):
        low, high = found[name]["interval"]
        assert low < found[name]["value"] < high, name
    assert found["queries_with_both"] == 12
    assert measure(pairs, DRAWS, seed=3) == found
    assert measure(pairs, DRAWS, seed=4) != found


def test_the_bootstrap_draws_whole_queries() -> None:
    one = scored([0.9, 0.4, 0.6, 0.1], [1, 1, 0, 0])
    assert measure(one, DRAWS)["auc"] == {"value": 0.75, "interval": [0.75, 0.75]}


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    worse = random_pairs(2)
    better = Scored(np.clip(worse.score + 0.15 * worse.relevant, 0, 1), worse.relevant, worse.query)
    found = difference(better, worse, auc, DRAWS)
    assert found["value"] == pytest.approx(auc(better) - auc(worse), abs=1e-4)
    low, high = found["interval"]
    alone = measure(worse, DRAWS)["auc"]["interval"]
    assert 0 < low < found["value"] < high
    assert high - low < alone[1] - alone[0]
    with pytest.raises(ValueError, match="same pairs"):
        difference(better, random_pairs(5), auc, DRAWS)


def test_a_fusion_finds_the_informative_feature_and_its_weights_are_for_raw_features() -> None:
    rng = np.random.default_rng(0)
    relevant = rng.random(400) < 0.5
    features = np.column_stack([100 + 10 * (relevant + rng.normal(size=400)), rng.normal(size=400)])
    fused = fit(features, relevant)
    assert 0.05 < fused.weights[0] < 0.15
    assert abs(fused.weights[1]) < 0.3
    assert fused.score(features) == pytest.approx(expit(features @ fused.weights + fused.bias))


def test_a_query_is_scored_by_a_fit_that_never_saw_it() -> None:
    pairs = random_pairs(3)
    features = logit(pairs.score)[:, None]
    held_out = score_held_out(features, pairs.relevant, pairs.query)
    other_labels = np.where(pairs.query == "q0", ~pairs.relevant, pairs.relevant)
    again = score_held_out(features, other_labels, pairs.query)
    rows = pairs.query == "q0"
    assert held_out[rows] == pytest.approx(again[rows])
    assert not np.allclose(held_out[~rows], again[~rows])


def test_log_odds_and_back() -> None:
    assert expit(logit(np.array([0.25, 0.5]))) == pytest.approx([0.25, 0.5])
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[2, 1, 2\]"):
        scored([0.1, 0.2], [1], ["a", "b"])
