"""Maps from one judge's score to a probability."""

import numpy as np
import pytest

from tasks.verdicts.fitting.folds import expit, logit
from tasks.verdicts.fitting.maps import ScoreMap, fit_map


def scores(pairs: int, bend: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, their true P, labels and queries; `bend` makes P a step of the score, which no line is."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(scale=2, size=pairs)
    truth = np.where(raw > 0, 0.7, 0.1) if bend else expit(0.5 * raw - 1)
    return expit(raw), truth, rng.random(pairs) < truth, np.arange(pairs) // 5


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_a_map_is_increasing_and_never_certain(kind: str) -> None:
    score, _, relevant, groups = scores(300, bend=True)
    found, _ = fit_map(score, relevant, groups, kind=kind)  # type: ignore[arg-type]
    p = found.apply(np.linspace(0, 1, 200))
    assert (np.diff(p) >= 0).all() and 0 < p[0] < p[-1] < 1
    assert np.isnan(found.apply(np.array([np.nan]))).all()
    assert ScoreMap.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("bend", "kind"), [(False, "platt"), (True, "isotonic")])
def test_the_kind_with_the_lower_loss_on_other_queries_is_chosen(bend: bool, kind: str) -> None:
    score, truth, relevant, groups = scores(3000, bend)
    found, _ = fit_map(score, relevant, groups)
    assert found.kind == kind
    assert np.abs(found.apply(score) - truth).mean() < 0.03


def test_platt_agrees_with_the_logistic_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    score, _, relevant, groups = scores(3000, bend=False)
    found, _ = fit_map(score, relevant, groups, kind="platt")
    other = LogisticRegression(C=1e6).fit(logit(score)[:, None], relevant)
    assert found.slope == pytest.approx(other.coef_[0][0], abs=0.005)
    assert found.intercept == pytest.approx(other.intercept_[0], abs=0.005)


def test_a_judge_that_is_wrong_way_round_tells_nothing() -> None:
    score, _, relevant, groups = scores(300, bend=False)
    p = fit_map(1 - score, relevant, groups, kind="platt")[0].apply(score)
    assert p == pytest.approx(relevant.mean(), abs=0.01)


def test_few_labels_of_one_class_give_a_careful_probability() -> None:
    p = fit_map(np.array([0.2, 0.9]), np.array([True, True]), np.array([1, 2]))[0].apply(np.array([0.5]))
    assert 0.6 < p[0] < 0.9


def test_weights_count_as_copies() -> None:
    score, _, relevant, groups = scores(400, bend=False)
    weights = np.where(relevant, 3.0, 1.0)
    p = fit_map(score, relevant, groups, weights, "platt")[0].apply(score)
    assert np.average(p, weights=weights) == pytest.approx(np.average(relevant, weights=weights), abs=0.01)


def test_crossed_maps_do_not_see_the_labels_of_the_query() -> None:
    score, _, relevant, groups = scores(100, bend=False)
    before = fit_map(score, relevant, groups, kind="platt")[1]
    swapped = relevant.copy()
    rows = groups == groups[0]
    swapped[rows] = np.roll(relevant[rows], 1)  # as many relevant ones, so that the folds stay
    assert np.array_equal(fit_map(score, swapped, groups, kind="platt")[1][rows], before[rows])
