"""Thresholds that keep a target, whatever the scores are worth."""

from itertools import combinations

import numpy as np
import pytest

from tasks.verdicts.guarantee.bounds import Floats
from tasks.verdicts.guarantee.thresholds import Bools, Counts, Target, Thresholds, choose, draw, reached, sizes

BOTH = Target(recall=0.9, precision=0.9, confidence=0.9)


def pool(size: int, seed: int) -> tuple[Floats, Bools]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.1, 0.4, size)
    return scores, rng.random(size) < scores


def chosen(
    target: Target, scores: Floats, relevant: Bools, seed: int, size: int | None = None
) -> tuple[Thresholds, Bools]:
    audit = draw(target, scores, np.random.default_rng(seed).random(scores.size), size)
    return choose(target, scores, audit, relevant & audit.drawn, np.zeros(scores.size, bool)), audit.drawn


def truth(found: Thresholds, drawn: Bools, scores: Floats, relevant: Bools) -> tuple[float, float, float]:
    """Recall and precision of the final set, and the share asked."""
    accepted, rejected = found.sides(scores)
    asked = drawn | ~(accepted | rejected)
    final = (asked & relevant) | (accepted & ~asked)
    right = int((final & relevant).sum())
    return right / max(1, relevant.sum()), right / max(1, final.sum()), float(asked.mean())


def test_good_scores_save_most_questions_and_keep_both_targets() -> None:
    scores, relevant = pool(20_000, 1)
    recall, precision, asked = truth(*chosen(BOTH, scores, relevant, 2), scores, relevant)
    assert recall >= 0.9
    assert precision >= 0.9
    assert asked < 0.25


def test_scores_without_meaning_save_nothing_and_still_keep_the_targets() -> None:
    _, relevant = pool(5000, 1)
    scores = np.random.default_rng(3).random(5000)
    recall, precision, asked = truth(*chosen(BOTH, scores, relevant, 2), scores, relevant)
    assert min(recall, precision) >= 0.9
    assert asked > 0.85


def test_the_targets_are_missed_no_more_often_than_stated_where_the_scores_hide_relevant_pairs() -> None:
    failed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores, relevant = pool(3000, seed)
        hidden = rng.permutation(np.flatnonzero(relevant))[: int(0.13 * relevant.sum())]
        scores[hidden] = rng.random(hidden.size) * 0.01
        recall, precision, _ = truth(*chosen(BOTH, scores, relevant, seed + 1000), scores, relevant)
        failed += recall < 0.9 or precision < 0.9
    assert failed <= 6 + 6  # of 60 at a chance of 10%; more than 12 have a chance of half a percent


def test_over_all_draws_of_a_small_pool_the_first_wrong_threshold_passes_no_more_often_than_stated() -> None:
    scores = np.repeat([0.0, 1.0], [10, 2])
    relevant = np.arange(12) < 3  # three of the ten low ones are relevant, the high ones are not
    target = Target(recall=0.9, precision=None, confidence=0.8)
    wrong = total = 0
    for sample in combinations(range(10), 5):
        uniforms = np.where(np.isin(np.arange(12), sample), 0.1, 0.9)
        audit = draw(target, scores, uniforms, 7)
        found = choose(target, scores, audit, relevant & audit.drawn, np.zeros(12, bool))
        recall, *_ = truth(found, audit.drawn, scores, relevant)
        wrong, total = wrong + (recall < 0.9), total + 1
    assert wrong / total <= 0.2


def test_one_target_alone_leaves_the_other_side_to_the_oracle() -> None:
    scores, relevant = pool(20_000, 1)
    found, _ = chosen(Target(0.9, None, 0.9), scores, relevant, 2)
    assert found.accept is None
    assert found.reject is not None
    found, _ = chosen(Target(None, 0.9, 0.9), scores, relevant, 2)
    assert found.reject is None
    assert found.accept is not None


def test_a_demand_for_everything_is_met_by_asking_about_everything() -> None:
    scores, relevant = pool(2000, 1)
    found, _ = chosen(Target(1.0, 1.0, 0.95), scores, relevant, 2)
    assert (found.accept, found.reject) == (None, None)


def test_answers_that_cannot_be_read_count_against_every_threshold() -> None:
    scores, _ = pool(20_000, 1)
    audit = draw(BOTH, scores, np.random.default_rng(2).random(scores.size))
    found = choose(BOTH, scores, audit, np.zeros(scores.size, bool), np.ones(scores.size, bool))
    assert (found.accept, found.reject, found.relevant) == (None, None, 0)


def test_equal_scores_are_never_split_and_an_empty_pool_has_no_thresholds() -> None:
    scores, relevant = np.full(500, 0.5), np.arange(500) < 3
    found, drawn = chosen(BOTH, scores, relevant, 2)
    assert drawn.sum() == 250
    assert found.accept is None
    nothing = np.zeros(0)
    assert chosen(BOTH, nothing, nothing.astype(bool), 2)[0] == Thresholds(None, None, 0)


def test_scores_of_two_values_are_enough_where_they_are_right() -> None:
    relevant = np.random.default_rng(4).random(5000) < 0.3
    scores = np.where(relevant, 0.9, 0.2)  # more than 30% are expected to be relevant
    found, drawn = chosen(BOTH, scores, relevant, 2)
    assert truth(found, drawn, scores, relevant) == (1.0, 1.0, drawn.mean())


def test_the_audit_draws_from_low_scores_too_each_with_its_known_chance() -> None:
    scores, _ = pool(20_000, 1)
    audit = draw(BOTH, scores, np.random.default_rng(2).random(scores.size), 1000)
    assert audit.drawn.sum() == 1000
    for stratum in (audit.high, ~audit.high):
        assert audit.chance[stratum][0] == pytest.approx(audit.drawn[stratum].mean())
        assert audit.drawn[stratum].any()
    assert audit.chance[audit.high][0] != pytest.approx(audit.chance[~audit.high][0])
    assert scores[audit.high].min() > scores[~audit.high].max()
    assert draw(BOTH, scores, np.zeros(scores.size), 10**9).drawn.all()


def test_rare_relevant_pairs_need_a_larger_audit() -> None:
    low, high = sizes(BOTH, 0.01)
    assert low > sizes(BOTH, 0.1)[0] > sizes(BOTH, 0.9)[0]
    assert high >= low // 4


def test_the_bounds_reached_are_the_targets_and_what_the_audit_found_behind_the_thresholds() -> None:
    counts = Counts(found=80, accepted=20, rejected=900, found_rejected=4, found_wrong=5)
    recall, precision = reached(BOTH, counts)
    assert recall == pytest.approx(0.9 + 0.9 * 4 / 96)
    assert precision == pytest.approx(0.9 + (0.1 * 4 + 0.9 * 5) / 100)


def test_nothing_rejected_or_accepted_is_a_bound_of_one() -> None:
    assert reached(BOTH, Counts(80, 0, 0, 0, 0)) == (1.0, 1.0)
    assert reached(BOTH, Counts(0, 0, 10, 0, 0)) == (0.9, 1.0)
    assert reached(Target(None, 0.8, 0.9), Counts(10, 10, 0, 0, 0)) == (1.0, 0.8)
    few_rejected, _ = reached(BOTH, Counts(99, 0, 1, 0, 0))
    assert few_rejected == pytest.approx(0.99)
