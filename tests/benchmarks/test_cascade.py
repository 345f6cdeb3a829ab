"""The benchmark of a cascade, on synthetic judges."""

from functools import cache

import numpy as np
import polars as pl
import pytest

from benchmarks import cascade
from benchmarks.cascade import OPEN, SHARES, STRONG, Chances, Inner, Rule, quotas
from tasks.verdicts.features import score_column
from tasks.verdicts.fitting.folds import expit


def synthetic(queries: int = 18, per_query: int = 10, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    pairs = queries * per_query
    z = rng.normal(size=pairs)
    relevant = rng.random(pairs) < expit(2 * z - 0.5)
    scores = {score_column(name): expit(2 * z + 1.5 * rng.normal(size=pairs)) for name in OPEN}
    return pl.DataFrame(
        {
            "dataset": "d",
            "query_id": [f"q{n}" for n in np.repeat(np.arange(queries), per_query)],
            "doc_id": [f"d{n}" for n in range(pairs)],
            "rank": np.tile(np.arange(1, per_query + 1), queries).astype(np.int32),
            "relevant": relevant,
            **scores,
            score_column(STRONG): (np.digitize(2 * z + rng.normal(size=pairs), [-1, 0, 1]) + 0.5) / 4,
        }
    ).sort("dataset", "query_id", "doc_id")


CHOICES = (("rank1_3b",), ("monot5_base", "rank1_3b"))


@pytest.fixture(autouse=True)
def few_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "FOLDS", 6)


@cache
def chances() -> tuple[pl.DataFrame, np.ndarray, Chances]:
    pairs = synthetic()
    fold = cascade.split(pairs["query_id"].to_numpy(), 0)
    return pairs, fold, cascade.fit_chances(pairs, fold, CHOICES)


def test_quotas_are_the_share_of_all_pairs_rounded_once() -> None:
    fold = np.repeat(np.arange(5), [7, 8, 9, 10, 11])
    assert sum(quotas(fold, 0.2)) == 9 and max(quotas(fold, 0.2)) <= 3
    assert quotas(fold, 1.0)[:5] == [7, 8, 9, 10, 11] and sum(quotas(fold, 0.0)) == 0


def test_all_pairs_of_a_query_are_in_one_fold() -> None:
    query = synthetic()["query_id"].to_numpy()
    fold = cascade.split(query, 3)
    assert all(len(np.unique(fold[query == one])) == 1 for one in np.unique(query))
    assert not np.array_equal(fold, cascade.split(query, 4))


def test_nothing_of_a_fold_decides_how_it_is_judged() -> None:
    """Other labels in fold 0 change no P, no choice and no decision of fold 0."""
    pairs, fold, _ = chances()
    turned = pl.Series(np.where(fold == 0, ~pairs["relevant"].to_numpy(), pairs["relevant"].to_numpy()))
    results = []
    for frame in (pairs, pairs.with_columns(relevant=turned)):
        found = cascade.fit_chances(frame, fold, CHOICES[:1])
        rules = [Rule(CHOICES[0], asking) for asking in cascade.ASKING]
        results.append(cascade.run_way(found, fold, frame["relevant"].to_numpy(), rules, 0.2))
    one, other = results
    rows = fold == 0
    for name in ("p", "called", "asked"):
        np.testing.assert_array_equal(getattr(one, name)[rows], getattr(other, name)[rows])
    assert one.chosen[0] == other.chosen[0]
    assert not np.array_equal(one.p[~rows], other.p[~rows])


def test_what_the_training_folds_know_has_nothing_of_the_fold_that_is_left_out() -> None:
    pairs, fold, found = chances()
    inner = Inner.of(found, fold, pairs["relevant"].to_numpy(), Rule(CHOICES[0], "near one half"), 2)
    left_out = np.isin(fold, [2, 3])  # its group
    assert np.isnan(inner.before[left_out]).all() and np.isnan(inner.after[left_out]).all()
    assert not np.isnan(inner.before[~left_out]).any()


@pytest.mark.parametrize("asking", cascade.ASKING)
def test_exactly_the_share_is_asked_and_only_there_the_strong_answer_counts(asking: str) -> None:
    pairs, fold, found = chances()
    run = cascade.run_way(found, fold, pairs["relevant"].to_numpy(), [Rule(CHOICES[1], asking)], 0.2)
    assert run.asked.sum() == 36  # 20% of 180
    for out in range(cascade.FOLDS):
        key, rows = (frozenset({out}), CHOICES[1]), fold == out
        np.testing.assert_array_equal(run.p[rows & run.asked], found.after[key][rows & run.asked])
        np.testing.assert_array_equal(run.p[rows & ~run.asked], found.before[key][rows & ~run.asked])


def test_kappa_is_that_of_scikit_learn_and_the_best_threshold_is_near_the_step() -> None:
    from sklearn.metrics import cohen_kappa_score

    p = np.linspace(0, 1, 200)
    relevant = p > 0.4
    assert cascade.kappa(cascade.confusion(p > 0.6, relevant)[None, :])[0] == pytest.approx(
        cohen_kappa_score(p > 0.6, relevant)
    )
    assert cascade.best_threshold(p, relevant) == pytest.approx(0.4, abs=0.011)


def test_the_result_has_the_figures_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "CHOICES", CHOICES[:1])
    monkeypatch.setattr(cascade, "FUSED", CHOICES[0])
    result = cascade.measure(synthetic(queries=18, per_query=10), splits=1, draws=20, workers=1)
    assert {"kappa", "auc", "brier", "kappa_interval"} <= set(result["strong_alone"])
    assert result["cascade"]["asked_share"] == 0.2 and 0 <= result["cascade"]["ece"] <= 1
    assert [one["share"] for one in result["curve"]] == list(SHARES)
    gap = result["cascade"]["minus_strong_alone"]["kappa"]
    assert gap["value"] == pytest.approx(result["cascade"]["kappa"] - result["strong_alone"]["kappa"], abs=1e-3)
    assert gap["interval"][0] <= gap["value"] <= gap["interval"][1]
    assert set(cascade.conditions(result)) and "cascade, 20% asked" in cascade.table(result)
