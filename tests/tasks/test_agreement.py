"""Kappa, alpha and AUC have their textbook values, one definition, and intervals clustered by query."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from tasks.agreement import alpha_interval, auc_interval, kappa_interval, two_state_kappa
from tasks.statistics import NOT_DEFINED
from tests.tasks.coverage import auc_covered


def test_kappa_is_the_librarys_with_weights_and_with_three_labels() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.choice(["relevant", "not_relevant", "unsure"], (2, 60)).tolist()
    b[:30] = a[:30]
    weights = rng.choice([1.0, 7.5], 60).tolist()
    assert kappa_interval(a, b, range(60)).value == pytest.approx(cohen_kappa_score(a, b))
    value, low, high = kappa_interval(a, b, range(60), weights)
    assert value == pytest.approx(cohen_kappa_score(a, b, sample_weight=weights))
    assert low < value < high


def test_kappa_says_nothing_of_no_pair_and_of_one_label_throughout() -> None:
    assert kappa_interval([], [], []) == NOT_DEFINED
    assert kappa_interval(["yes"] * 9, ["yes"] * 9, range(9)) == NOT_DEFINED


def test_full_agreement_on_few_pairs_is_no_certainty_and_on_few_queries_less_so() -> None:
    value, low, high = kappa_interval(["yes", "no"] * 10, ["yes", "no"] * 10, range(20))
    assert (value, high) == (1.0, 1.0)
    assert 0.3 < low < 0.9
    few = kappa_interval(["yes", "no"] * 10, ["yes", "no"] * 10, np.repeat(range(5), 4).tolist())
    assert few.low < low


def test_lengths_and_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns of equal length expected, got lengths \[2, 1, 2, 2\]"):
        kappa_interval(["a", "b"], ["a"], [1, 2])
    with pytest.raises(ValueError, match="positive weights expected"):
        kappa_interval(["a", "b"], ["a", "b"], [1, 2], [1.0, 0.0])


def test_two_state_kappa_counts_unsure_and_unparsed_of_a_judge_as_not_relevant_and_leaves_out_unsure_people() -> None:
    labels = ["relevant", "relevant", "not_relevant", "not_relevant", "unsure", "not_relevant"]
    states = ["relevant", "unsure", "not_relevant", "unparsed", "relevant", "relevant"]
    kappa, pairs = two_state_kappa(labels, states, range(6))
    assert pairs == 5
    assert kappa.value == pytest.approx(cohen_kappa_score([1, 1, 0, 0, 0], [1, 0, 0, 0, 1]))
    assert two_state_kappa([], [], []) == (NOT_DEFINED, 0)


def test_krippendorffs_alpha_is_that_of_his_own_example() -> None:
    """Four observers, twelve units, gaps: 0.743 (Krippendorff 2011, section C)."""
    observers = ["123321412...", "1233224125.3", ".333234225 1.".replace(" ", ""), "1233244125 1.".replace(" ", "")]
    units = [[label for label in unit if label != "."] for unit in zip(*observers, strict=True)]
    value, low, high = alpha_interval(units, range(len(units)))
    assert value == pytest.approx(0.743, abs=5e-4)
    assert low < value < high
    assert alpha_interval([["a"], ["b"]], [1, 2]) == alpha_interval([], []) == NOT_DEFINED


def test_alpha_of_two_people_by_hand_and_units_with_one_label_say_nothing() -> None:
    """Six labels in three units, three of each kind, one unit in disagreement: 1 - 5 * 2 / (36 - 18)."""
    units = [["a", "a"], ["a", "b"], ["b", "b"]]
    found = alpha_interval(units, [1, 2, 3])
    assert found.value == pytest.approx(1 - 5 * 2 / 18)
    assert alpha_interval([*units, ["a"], []], [1, 2, 3, 3, 3]) == found
    assert alpha_interval([["a", "a"], ["a", "a"]], [1, 2]) == NOT_DEFINED


def test_the_interval_of_alpha_is_the_bootstrap_over_units_and_wider_where_units_of_a_query_are_alike() -> None:
    rng = np.random.default_rng(1)
    units = [["a", "a"]] * 20 + [["b", "b"]] * 15 + [["a", "b"]] * 5
    values = []
    for _ in range(2000):
        drawn = rng.multinomial(40, [0.5, 0.375, 0.125])
        a, b = 2 * drawn[0] + drawn[2], 2 * drawn[1] + drawn[2]
        values.append(1 - 79 * 2 * drawn[2] / (80**2 - a**2 - b**2))
    _, low, high = alpha_interval(units, range(40))
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.05)
    alike = alpha_interval(units, np.repeat(range(8), 5).tolist())
    assert alike.low < low


def test_auc_is_the_librarys_and_its_interval_that_of_delong_for_single_pairs() -> None:
    rng = np.random.default_rng(0)
    relevant = rng.random(200) < 0.3
    scores = np.round(relevant + rng.normal(size=200), 1)
    value, low, high = auc_interval(scores, relevant, range(200))
    assert value == pytest.approx(roc_auc_score(relevant, scores))
    positive, negative = scores[relevant], scores[~relevant]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    delong = (wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)) ** 0.5
    assert (high - low) / 2 == pytest.approx(1.96 * delong, rel=0.1)


def test_an_auc_without_both_classes_is_not_defined_and_a_perfect_one_is_no_certainty() -> None:
    assert auc_interval(np.array([1.0, 2.0]), np.array([True, True]), [1, 2]) == NOT_DEFINED
    value, low, high = auc_interval(np.arange(20.0), np.arange(20) >= 10, range(20))
    assert (value, high) == (1.0, 1.0)
    assert 0.5 < low < 0.95


def test_the_interval_of_the_auc_covers_where_pairs_of_a_query_are_alike() -> None:
    assert auc_covered(20, 150) >= 0.88
