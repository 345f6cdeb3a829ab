"""Intervals hold what they promise: textbook values, and coverage over many simulated samples."""

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import cohen_kappa_score

from tasks import statistics
from tasks import statistics as statistics_module
from tasks.statistics import (
    NOT_DEFINED,
    Interval,
    Strata,
    alpha_interval,
    kappa_interval,
    merge_small,
    recall_interval,
    wilson,
)
from tests.tasks.records import mutable_records

REPEATS = 300
SURELY = 0.91  # of 300 intervals at 95%: fewer would be a defect, not bad luck (p < 0.002)


@pytest.fixture
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 1000)


def test_wilsons_interval_holds_its_textbook_values() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_kappa_is_the_librarys_with_weights_and_with_three_labels() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.choice(["relevant", "not_relevant", "unsure"], (2, 60)).tolist()
    b[:30] = a[:30]
    weights = rng.choice([1.0, 7.5], 60).tolist()
    assert kappa_interval(a, b)[0] == pytest.approx(cohen_kappa_score(a, b))
    assert kappa_interval(a, b, weights)[0] == pytest.approx(cohen_kappa_score(a, b, sample_weight=weights))
    value, low, high = kappa_interval(a, b, weights)
    assert low < value < high


def test_kappa_says_nothing_of_no_pair_and_of_one_label_throughout() -> None:
    assert kappa_interval([], []) == NOT_DEFINED
    assert kappa_interval(["yes"] * 9, ["yes"] * 9) == NOT_DEFINED


def test_full_agreement_on_few_pairs_is_no_certainty() -> None:
    value, low, high = kappa_interval(["yes", "no"] * 5, ["yes", "no"] * 5)
    assert (value, high) == (1.0, 1.0)
    assert 0.3 < low < 0.9


def test_lengths_and_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns of equal length expected, got lengths \[2, 1, 2\]"):
        kappa_interval(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="positive weights expected"):
        kappa_interval(["a", "b"], ["a", "b"], [1.0, 0.0])


def test_krippendorffs_alpha_is_that_of_his_own_example() -> None:
    """Four observers, twelve units, gaps: 0.743 (Krippendorff 2011, section C)."""
    observers = ["123321412...", "1233224125.3", ".333234225 1.".replace(" ", ""), "1233244125 1.".replace(" ", "")]
    units = [[label for label in unit if label != "."] for unit in zip(*observers, strict=True)]
    value, low, high = alpha_interval(units)
    assert value == pytest.approx(0.743, abs=5e-4)
    assert low < value < high
    assert alpha_interval([["a"], ["b"]]) == NOT_DEFINED


def strata(*rows: tuple[int, int, int]) -> Strata:
    """Make strata of (pairs, looked at, for how many it holds)."""
    return Strata(*np.array(rows, dtype=float).reshape(-1, 3).T)


def test_a_rate_is_weighted_by_how_the_pairs_were_drawn() -> None:
    value, low, high = strata((100, 10, 0), (10, 10, 10)).rate(seed=0)
    assert value == pytest.approx(10 / 110)
    assert low == pytest.approx(10 / 110)  # ten of them are known
    assert high > 0.2  # of the hundred others ten were looked at
    assert strata().rate(seed=0) == NOT_DEFINED
    assert strata((10, 0, 0)).rate(seed=0) == NOT_DEFINED  # nobody looked


def test_a_pool_that_was_looked_at_whole_is_known() -> None:
    assert strata((4, 4, 1)).rate(seed=0) == (0.25, 0.25, 0.25)


def test_small_strata_are_merged_with_their_neighbours_until_their_spread_can_be_told() -> None:
    sizes = np.array([10.0, 20.0, 30.0, 4.0, 40.0])
    seen = np.array([[1, 3], [0, 0], [2, 6], [4, 0], [1, 1]], dtype=float)
    groups = merge_small(sizes, seen)
    assert [group.size for group in groups] == [4.0, 100.0]  # the fourth was looked at whole
    assert groups[1].seen.tolist() == [4, 10]
    assert groups[1].counts.sum() < 14  # unequal weights are worth fewer pairs


def sampled(rng: np.random.Generator, pool: np.ndarray, sizes: list[int], drawn: list[int]) -> np.ndarray:
    """How many relevant ones are among those drawn from each stratum."""
    return np.array([rng.hypergeometric(x, n - x, k) for x, n, k in zip(pool, sizes, drawn, strict=True)])


POOLS = {
    "a heavy stratum in which little is found": ([900, 40, 35, 25], [25] * 4, [0.02, 0.8, 0.1, 0.4]),
    "one stratum, rarely relevant": ([1000], [40], [0.03]),
    "forty strata of three": ([100 + i for i in range(40)], [3] * 40, [0.3] * 40),
    "forty unequal strata of three": ([20 + 20 * i for i in range(40)], [3] * 40, [0.02, 0.5] * 20),
}


@pytest.mark.parametrize("name", POOLS)
def test_the_interval_of_a_rate_covers_the_pools_own_in_95_of_100_samples(name: str, fewer_draws: None) -> None:
    sizes, drawn, shares = POOLS[name]
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(REPEATS):
        pool = rng.binomial(sizes, shares)
        found = sampled(rng, pool, sizes, drawn)
        _, low, high = strata(*zip(sizes, drawn, found.tolist(), strict=True)).rate(seed)
        covered += low - 1e-9 <= pool.sum() / sum(sizes) <= high + 1e-9
    assert covered / REPEATS > SURELY


def test_the_interval_of_a_recall_covers_although_a_sample_may_hold_nothing_that_was_missed(fewer_draws: None) -> None:
    """Where no missed pair is in the sample the recall is 1 by the sample; the interval must not say so."""
    sizes, drawn, shares = np.array([900, 40, 35, 25]), [25] * 4, [0.02, 0.8, 0.1, 0.4]
    inside = np.array([False, True, False, False])
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(REPEATS):
        pool = rng.binomial(sizes, shares)
        found = sampled(rng, pool, sizes.tolist(), drawn).astype(float)
        sides = [
            Strata(sizes[side].astype(float), np.full(side.sum(), 25.0), found[side]) for side in (inside, ~inside)
        ]
        _, low, high = recall_interval(*sides, seed * 2)
        covered += low <= pool[inside].sum() / pool.sum() <= high
    assert covered / REPEATS > SURELY


def test_a_recall_of_one_in_the_sample_is_no_certainty_where_most_pairs_were_not_looked_at() -> None:
    """Twenty found, all labelled; of a thousand others 25 were looked at and none is relevant."""
    value, low, high = recall_interval(strata((20, 20, 20)), strata((1000, 25, 0)), seed=0)
    assert (value, high) == (1.0, 1.0)
    assert low < 0.3  # a tenth of a thousand may have been missed


@pytest.mark.parametrize(("pairs", "cells"), [(100, [0.2, 0.15, 0.15, 0.5]), (40, [0.3, 0.02, 0.03, 0.65])])
def test_the_interval_of_kappa_covers(pairs: int, cells: list[float], fewer_draws: None) -> None:
    rng = np.random.default_rng(0)
    yes = cells[0] + cells[1], cells[0] + cells[2]
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    truth = (cells[0] + cells[3] - chance) / (1 - chance)
    covered = 0
    for seed in range(REPEATS):
        counts = rng.multinomial(pairs, cells)
        _, low, high = kappa_interval(np.repeat([1, 1, 0, 0], counts), np.repeat([1, 0, 1, 0], counts), seed=seed)
        covered += low <= truth <= high
    assert covered / REPEATS > SURELY


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = ["yes", "no", "no"] * 9, ["yes", "yes", "no"] * 9
    assert kappa_interval(a, b, seed=3) == kappa_interval(a, b, seed=3)
    assert kappa_interval(a, b, seed=3) != kappa_interval(a, b, seed=4)


def test_a_group_counts_its_estimated_shares_as_kishs_effective_sample() -> None:
    """Two labels of 10 pairs weigh 5 each, two of 30 weigh 15 each: 3.2 effective labels, an eighth positive."""
    (group,) = merge_small(np.array([10.0, 30.0]), np.array([[1.0, 1.0], [0.0, 2.0]]))
    assert (group.size, group.seen.tolist()) == (40.0, [1.0, 3.0])
    assert group.counts == pytest.approx([0.4, 2.8])


@pytest.mark.parametrize(
    ("seen", "sizes"),
    [
        ((10, 10, 10), [100, 100, 100]),
        ((9, 1, 10), [200, 100]),
        ((10, 10, 9), [100, 200]),
        ((10, 0, 0), [300]),
        ((0, 0, 0), [300]),
    ],
)
def test_ten_labels_are_enough_for_a_stratum_of_its_own(seen: tuple[int, ...], sizes: list[int]) -> None:
    groups = merge_small(np.full(3, 100.0), np.array([[0.0, n] for n in seen]))
    assert [group.size for group in groups] == sizes


def test_an_empty_stratum_is_left_out_and_a_whole_one_stays_alone() -> None:
    groups = merge_small(np.array([0.0, 5.0, 100.0]), np.array([[0.0, 0.0], [2.0, 3.0], [10.0, 0.0]]))
    assert [(group.size, group.seen.tolist()) for group in groups] == [(5.0, [2.0, 3.0]), (100.0, [10.0, 0.0])]


def test_one_stratum_has_the_interval_of_jeffreys() -> None:
    _, low, high = strata((10**7, 10, 0)).rate(seed=0)
    assert (low, high) == (0.0, pytest.approx(beta.ppf(0.975, 0.5, 10.5), abs=0.01))
    _, low, high = strata((10**7, 40, 10)).rate(seed=0, confidence=0.5)
    assert (low, high) == pytest.approx((beta.ppf(0.25, 10.5, 30.5), beta.ppf(0.75, 10.5, 30.5)), abs=0.003)


def test_the_prior_is_shared_out_by_the_sizes_of_the_strata() -> None:
    _, _, high = strata((10**7, 10, 0), (3 * 10**7, 3 * 10**7, 0)).rate(seed=0)
    assert high == pytest.approx(beta.ppf(0.975, 0.125, 10.125) / 4, abs=0.003)


def test_the_pairs_that_were_looked_at_are_certain() -> None:
    drawn = strata((20, 19, 19)).draw(seed=0)
    assert set(drawn) <= {19.0, 20.0}
    assert (drawn == 20).mean() > 0.9


def test_a_recall_is_drawn_from_both_sides_with_seeds_of_their_own() -> None:
    found, others = strata((50, 20, 15)), strata((500, 30, 2))
    value, low, high = recall_interval(found, others, seed=7)
    assert value == pytest.approx(37.5 / (37.5 + 500 * 2 / 30))
    one, two = found.draw(7), others.draw(8)
    assert (low, high) == pytest.approx(tuple(np.quantile(one / (one + two), [0.025, 0.975])))
    assert recall_interval(strata((5, 5, 0)), strata((5, 5, 0)), seed=0) == NOT_DEFINED


def test_the_interval_of_kappa_is_that_of_a_dirichlet_posterior() -> None:
    a, b = ["y"] * 12 + ["n"] * 8, ["y"] * 9 + ["n"] * 9 + ["y"] * 2
    cells = np.array([sum((x, y) == pair for x, y in zip(a, b, strict=True))
                      for pair in (("n", "n"), ("n", "y"), ("y", "n"), ("y", "y"))])  # fmt: skip
    drawn = np.random.default_rng(99).dirichlet(cells + 0.25, 40_000).reshape(-1, 2, 2)
    expected = (drawn.sum(axis=1) * drawn.sum(axis=2)).sum(axis=1)
    kappas = (np.trace(drawn, axis1=1, axis2=2) - expected) / (1 - expected)
    _, low, high = kappa_interval(a, b)
    assert (low, high) == pytest.approx(tuple(np.quantile(kappas, [0.025, 0.975])), abs=0.02)


def test_alpha_of_two_people_by_hand_and_units_with_one_label_say_nothing() -> None:
    """Six labels in three units, three of each kind, one unit in disagreement: 1 - 5 * 2 / (36 - 18)."""
    units = [["a", "a"], ["a", "b"], ["b", "b"]]
    value, low, high = alpha_interval(units)
    assert value == pytest.approx(1 - 5 * 2 / 18)
    assert alpha_interval([*units, ["a"], []]) == (value, low, high)
    assert low < value < high == 1.0
    assert alpha_interval([["a", "a"], ["a", "a"]]) == NOT_DEFINED


def test_the_interval_of_alpha_is_the_bootstrap_over_units() -> None:
    rng = np.random.default_rng(1)
    units = [["a", "a"]] * 20 + [["b", "b"]] * 15 + [["a", "b"]] * 5
    values = []
    for _ in range(2000):
        drawn = rng.multinomial(40, [0.5, 0.375, 0.125])
        a, b = 2 * drawn[0] + drawn[2], 2 * drawn[1] + drawn[2]
        values.append(1 - 79 * 2 * drawn[2] / (80**2 - a**2 - b**2))
    _, low, high = alpha_interval(units)
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.04)


def test_an_interval_is_rounded_for_json() -> None:
    assert Interval(0.123456, None, 1.0).rounded() == {"value": 0.1235, "low": None, "high": 1.0}
    assert Interval(0.123456, 0.1, 1.0).rounded(2) == {"value": 0.12, "low": 0.1, "high": 1.0}


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(statistics_module) == set()
