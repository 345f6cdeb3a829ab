"""Intervals clustered by query hold what they promise: known posteriors, and coverage over simulated samples."""

import numpy as np
import pytest
from scipy.stats import beta

from tasks import clustered
from tasks.clustered import BLOCKS, Classes, Sample, blocks, merge_small, number, share_of_groups
from tasks.statistics import NOT_DEFINED, wilson
from tests.tasks.coverage import WORLDS, covered
from tests.tasks.records import mutable_records

REPEATS = 100
# Of 100 intervals that hold the true value with 95%, fewer than 88 are held with a chance of 0.2% only. The large run
# (`python -m tests.tasks.coverage`, docs/experiments.md) has at least 0.90 in every case.
SURELY = 0.88


@pytest.fixture
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustered, "DRAWS", 500)


def sample(*rows: tuple[int, int, int], alike: int = 1) -> Sample:
    """Make a sample of strata of (pairs, looked at, relevant); each query has `alike` pairs of a stratum."""
    stratum = np.repeat(np.arange(len(rows)), [row[0] for row in rows])
    relevant = np.concatenate([[1.0] * r + [0.0] * (n - r) + [np.nan] * (size - n) for size, n, r in rows])
    return Sample(stratum, np.arange(len(stratum)) // alike, relevant)


@pytest.mark.parametrize(
    "name",
    [
        "100 labels of 50 queries",
        "200 labels of 100 queries, rarely relevant",
        "all pairs of 8 queries",
        "all pairs of 20 uneven queries",
    ],
)
def test_intervals_cover_where_pairs_of_a_query_are_alike_and_drawn_by_strata(name: str, fewer_draws: None) -> None:
    found = covered(WORLDS[name], REPEATS)
    assert {measure: share for measure, share in found.items() if share < SURELY} == {}


def test_wilsons_interval_over_the_same_pairs_covers_half_as_often() -> None:
    """The fault that clustering mends: ten pairs of a query, correlated at 0.4, taken as ten single ones."""
    rng = np.random.default_rng(3)
    held = np.zeros(2)
    for seed in range(100):
        found = rng.binomial(10, rng.beta(0.3, 1.2, 30))
        low, high = wilson(int(found.sum()), 300)
        held[0] += low <= 0.2 <= high
        _, low_, high_ = share_of_groups(found.tolist(), [10] * 30, seed=seed)
        assert low_ is not None
        assert high_ is not None
        held[1] += low_ <= 0.2 <= high_
    assert held[0] < 70
    assert held[1] >= 90


def test_a_share_of_groups_is_that_of_single_things_where_groups_have_one_and_wider_where_they_agree() -> None:
    single = share_of_groups([1] * 40 + [0] * 10, [1] * 50)
    assert single.value == 0.8
    assert (single.low, single.high) == pytest.approx(wilson(40, 50), abs=0.03)
    alike = share_of_groups([10] * 40 + [0] * 10, [10] * 50)
    assert (alike.low, alike.high) == pytest.approx((single.low, single.high), abs=0.01)
    spread = share_of_groups([8] * 50, [10] * 50)
    assert spread.high - spread.low < (alike.high - alike.low) / 2
    assert share_of_groups([], []) == share_of_groups([0], [0]) == NOT_DEFINED
    assert share_of_groups([0, 5], [0, 5])[:2] == (1.0, share_of_groups([5], [5]).low)
    with pytest.raises(ValueError, match=r"equal length expected, got lengths \[1, 2\]"):
        share_of_groups([1], [1, 2])


def test_nothing_found_is_no_certainty() -> None:
    none = share_of_groups([0] * 20, [10] * 20)
    assert (none.value, none.low) == (0.0, 0.0)
    assert 0.05 < none.high < 0.2


def test_a_share_is_weighted_by_how_the_pairs_were_drawn() -> None:
    value, low, high = sample((100, 10, 0), (10, 10, 10)).share()
    assert value == pytest.approx(10 / 110)
    assert low < value < high
    assert high > 0.2  # of the hundred others ten were looked at
    assert sample((10, 0, 0)).share() == NOT_DEFINED  # nobody looked
    assert sample((4, 2, 1)).share(np.zeros(4, dtype=bool)) == NOT_DEFINED


def test_one_stratum_of_single_pairs_has_the_posterior_of_jeffreys_prior() -> None:
    _, low, high = sample((400, 400, 100)).share(confidence=0.5)
    assert (low, high) == pytest.approx((beta.ppf(0.25, 100.5, 300.5), beta.ppf(0.75, 100.5, 300.5)), abs=0.004)


def test_pairs_of_one_query_tell_as_much_as_one() -> None:
    single, alike = sample((100, 100, 50)).share(), sample((1000, 1000, 500), alike=10).share()
    assert (alike.low, alike.high) == pytest.approx((single.low, single.high), abs=0.01)


def test_a_recall_of_one_in_the_sample_is_no_certainty_where_most_pairs_were_not_looked_at() -> None:
    """Twenty found, all labelled; of a thousand others 25 were looked at and none is relevant."""
    drawn = sample((20, 20, 20), (1000, 25, 0))
    value, low, high = drawn.recall(drawn.stratum == 0)
    assert (value, high) == (1.0, 1.0)
    assert low < 0.3  # a tenth of a thousand may have been missed
    none = sample((5, 5, 0), (5, 5, 0))
    assert none.recall(none.stratum == 0) == NOT_DEFINED


def test_precision_recall_and_kappa_have_the_values_of_the_weighted_pairs() -> None:
    drawn = sample((50, 20, 15), (500, 100, 4))
    called = drawn.stratum == 0
    hit, missed = 37.5, 20.0
    assert drawn.precision(called).value == pytest.approx(0.75)
    assert drawn.recall(called).value == pytest.approx(hit / (hit + missed))
    agree, relevant = (hit + 480) / 550, (hit + missed) / 550
    chance = relevant * 50 / 550 + (1 - relevant) * 500 / 550
    assert drawn.kappa(called).value == pytest.approx((agree - chance) / (1 - chance))
    assert drawn.kappa(np.zeros(550, dtype=bool)).value == pytest.approx(0.0)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    found, sizes = [3, 0, 1, 2] * 5, [4] * 20
    assert share_of_groups(found, sizes, seed=3) == share_of_groups(found, sizes, seed=3)
    assert share_of_groups(found, sizes, seed=3) != share_of_groups(found, sizes, seed=4)


def test_many_queries_are_joined_at_random_into_blocks_and_the_interval_hardly_changes() -> None:
    assert blocks(np.arange(BLOCKS)).tolist() == list(range(BLOCKS))
    joined = np.bincount(blocks(np.arange(3 * BLOCKS)))
    assert joined.tolist() == [3] * BLOCKS
    rng = np.random.default_rng(0)
    found = rng.binomial(5, rng.beta(0.3, 1.2, 5000))
    low, high = share_of_groups(found.tolist(), [5] * 5000)[1:]
    half = 1.96 * found.std() / 5 / 5000**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_small_strata_are_merged_with_their_neighbours_until_their_spread_can_be_told() -> None:
    assert merge_small(np.array([10.0, 20.0, 30.0, 0.0, 40.0]), np.array([4.0, 0.0, 8.0, 0.0, 2.0])) == [[0, 1, 2, 4]]
    assert merge_small(np.full(3, 100.0), np.array([10.0, 10.0, 10.0])) == [[0], [1], [2]]
    assert merge_small(np.full(3, 100.0), np.array([9.0, 1.0, 10.0])) == [[0, 1], [2]]
    assert merge_small(np.full(3, 100.0), np.array([10.0, 10.0, 9.0])) == [[0], [1, 2]]
    assert merge_small(np.zeros(2), np.zeros(2)) == []


def test_classes_without_any_label_are_not_defined_and_drawn_from_the_prior() -> None:
    none = np.array([], dtype=np.int64)
    pairs = Classes.of(np.array([[4.0], [6.0]]), none, none, none, 2)
    assert np.isnan(pairs.totals()).all()
    drawn = pairs.draw(np.ones((100, 2)), np.random.default_rng(0))
    assert drawn.sum(axis=1) == pytest.approx(np.full(100, 10.0))


def test_values_are_numbered_in_the_order_they_come() -> None:
    assert number(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(clustered) == set()
