"""Differences over queries and seeds: their variance, their bounds, and how often these are wrong."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from tasks.schemas import SCORES
from tasks.training.gate import differences as differences_module
from tasks.training.gate.differences import (
    Difference,
    difference_of,
    differences,
    level_of_night,
    seeds_of,
)
from tests.tasks.records import mutable_records


def drawn(rng: np.random.Generator, queries: int, noise: tuple[float, float], seeds: int = 3) -> Difference:
    """Two systems without a difference; each training is off by a number of its own."""
    treatment, baseline = (rng.normal(0, off, (1, seeds)) + rng.normal(0, 0.05, (queries, seeds)) for off in noise)
    return difference_of("x", treatment + rng.normal(0, 0.1, (queries, 1)), baseline)


def frame(rows: list[tuple[str, str, str, float, int]]) -> pl.DataFrame:
    full = [(model, dataset, "nDCG@10", query, value, seed) for model, dataset, query, value, seed in rows]
    return pl.DataFrame(full, schema=SCORES.columns, orient="row")


def test_the_two_parts_of_the_variance_are_those_of_queries_and_of_each_systems_seeds() -> None:
    rng = np.random.default_rng(0)
    treatment, baseline = rng.normal(0.6, 0.1, (30, 3)), rng.normal(0.5, 0.1, (30, 4))
    found = difference_of("x", treatment, baseline)
    means = treatment.mean(axis=1) - baseline.mean(axis=1)
    assert found.of_queries == pytest.approx(means.var(ddof=1) / 30)
    parts = [treatment.mean(axis=0).var(ddof=1) / 3, baseline.mean(axis=0).var(ddof=1) / 4]
    assert found.of_seeds == pytest.approx(sum(parts))
    assert found.freedom == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 3))
    reach = stats.t.isf(0.01, 29) ** 2 * found.of_queries + stats.t.isf(0.01, found.freedom) ** 2 * found.of_seeds
    assert found.reach(0.01) == pytest.approx(reach**0.5)
    assert found.effect == pytest.approx(means.mean() / means.std(ddof=1))
    assert (found.seeds, found.queries, found.better + found.equal + found.worse) == ((3, 4), 30, 30)


def test_with_one_seed_the_interval_is_students_over_the_queries() -> None:
    values = np.random.default_rng(1).normal(0.02, 0.1, (40, 1))
    found = difference_of("x", values, np.zeros((40, 1)))
    expected = stats.ttest_1samp(values[:, 0], 0, alternative="greater")
    assert found.of_seeds == 0
    assert found.p_value() == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.difference - found.reach(0.025) == pytest.approx(stats.t.interval(0.95, 39, *_moments(values))[0])


def _moments(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def test_the_p_value_is_the_level_at_which_the_bound_is_met() -> None:
    found = drawn(np.random.default_rng(2), 50, (0.006, 0.006))
    for bound in (found.difference - 0.03, found.difference + 0.03):
        p = found.p_value(bound)
        distance = found.reach(min(p, 1 - p))
        assert distance == pytest.approx(0.03, rel=1e-6)
        assert (p < 0.5) is (bound < found.difference)


@pytest.mark.parametrize("noise", [(0.006, 0.006), (0.03, 0.0), (0.03, 0.03), (0.0, 0.0)])
def test_a_gain_that_is_none_is_shown_at_most_as_often_as_the_level_says(noise: tuple[float, float]) -> None:
    """One quantile for the sum of both variances shows it up to twice as often."""
    rng = np.random.default_rng(3)
    level, repetitions = 0.025, 600
    shown = sum((found := drawn(rng, 200, noise)).difference > found.reach(level) for _ in range(repetitions))
    assert shown <= stats.binom.ppf(0.99, repetitions, level)


def test_the_same_difference_on_every_query_has_no_interval_and_none_at_all_has_one() -> None:
    same = np.full((10, 3), 0.5)
    assert not difference_of("x", same + 0.1, same).is_defined
    assert difference_of("x", same + 0.1, same).p_value() == 1.0
    assert difference_of("x", same + 0.1, same).effect is None
    nothing = difference_of("x", same, same)
    assert nothing.is_defined
    assert nothing.reach(0.025) == 0
    assert nothing.p_value(-0.05) < 1e-9
    assert not difference_of("x", same[:1], same[:1]).is_defined


def test_only_queries_that_both_systems_have_with_each_of_their_seeds_are_compared() -> None:
    rows = [
        (model, dataset, query, 0.1 * number + (model == "t") * 0.01 * seed, seed)
        for model in ("t", "b")
        for dataset, queries in (("one", "pqr"), ("two", "pq"))
        for number, query in enumerate(queries)
        for seed in (1, 2, 3)
    ]
    rows = [row for row in rows if row[0] != "b" or row[4] != 3]  # the baseline has two seeds
    rows = [row for row in rows if row[:3] != ("t", "one", "r") or row[4] != 2]
    every, one, two = differences(frame(rows), "t", "b", "nDCG@10")
    assert (every.queries, one.queries, two.queries) == (4, 2, 2)
    assert every.seeds == (3, 2)
    assert every.difference == pytest.approx(0.02)
    assert (every.name, one.name, two.name) == ("all datasets", "one", "two")
    assert (seeds_of(frame(rows), "t"), seeds_of(frame(rows), "b")) == (3, 2)
    assert differences(frame(rows), "t", "b", "RR@10") == ()
    assert differences(frame(rows), "t", "other", "nDCG@10") == ()


def test_datasets_with_few_queries_are_compared_as_one() -> None:
    rows = [
        (model, dataset, f"q{number}", number / 10, 1)
        for model in ("t", "b")
        for dataset, size in (("large", 5), ("small", 2), ("tiny", 1))
        for number in range(size)
    ]
    assert [each.name for each in differences(frame(rows), "t", "b", "nDCG@10", few=3)] == [
        "all datasets", "large", "small, tiny"
    ]  # fmt: skip
    assert len(differences(frame([row for row in rows if row[1] == "large"]), "t", "b", "nDCG@10", few=3)) == 1


def test_the_levels_of_a_row_of_nights_add_up_and_begin_anew_after_it() -> None:
    assert sum(level_of_night(0.025, night, 7) for night in range(1, 8)) == pytest.approx(0.025)
    assert level_of_night(0.025, 8, 7) == level_of_night(0.025, 1, 7)
    assert [level_of_night(0.025, night, 1) for night in (1, 2, 9)] == [0.025] * 3


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(differences_module) == set()
