"""Measure how far two labellings agree, and how well scores rank, with intervals clustered by query.

Kappa has one definition in this project: Cohen's kappa of two states, *relevant* against everything else that a judge
said, over the pairs that people are sure of (`two_state_kappa`).
"""

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

import numpy as np

from tasks.clustered import (
    DIGITS,
    Bools,
    Classes,
    blocks,
    draw_weights,
    effective,
    expit,
    interval_of,
    kappa_of_cells,
    logit,
    number,
    share_of_groups,
)
from tasks.statistics import CONFIDENCE, NOT_DEFINED, Floats, Interval, Label, check_lengths, quantile_of_t

RELEVANT = "relevant"
SURE = (RELEVANT, "not_relevant")


def kappa_interval(
    labels_a: Sequence[Label],
    labels_b: Sequence[Label],
    queries: Sequence[Label],
    weights: Sequence[float] | None = None,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Compute Cohen's kappa of two labellings of the same pairs, with an interval clustered by query.

    Args:
        labels_a: one label per pair, of any number of classes.
        labels_b: the other labelling, of the same length.
        queries: the query of each pair.
        weights: 1 / inclusion probability of each pair; equal by default. Pairs of equal weight are treated as one
            stratum.
        seed: seed of the draws.
        confidence: confidence of the interval.

    Returns:
        kappa, low, high. Not defined for no pairs, or where all labels of both are the same.

    Raises:
        ValueError: the lengths differ, or a weight is not positive.

    >>> kappa_interval(["yes", "no"] * 10, ["yes", "no"] * 10, range(20)).value
    1.0
    """
    weighing = np.ones(len(labels_a)) if weights is None else np.asarray(weights, dtype=np.float64)
    check_lengths("kappa", labels_a, labels_b, queries, weighing)
    if not (np.isfinite(weighing) & (weighing > 0)).all():
        raise ValueError("kappa: positive weights expected (1 / inclusion probability)")
    kinds = sorted({*labels_a, *labels_b}, key=str)
    if len(kinds) < 2:  # noqa: PLR2004 - agreement beyond chance needs two labels to choose from
        return NOT_DEFINED
    place = {kind: row for row, kind in enumerate(kinds)}
    cells = np.array([place[a] * len(kinds) + place[b] for a, b in zip(labels_a, labels_b, strict=True)])
    strata, stratum = np.unique(weighing, return_inverse=True)
    query = blocks(number(queries), seed)
    pool = np.zeros((query.max() + 1, len(strata)))
    np.add.at(pool, (query, stratum), weighing)
    pairs = Classes.of(pool, stratum, query, cells, len(kinds) ** 2)
    return kappa_of_cells(pairs, draw_weights(query, seed), np.random.default_rng([seed, 1]), confidence)


def two_state_kappa(
    labels: Sequence[str], states: Sequence[str], queries: Sequence[Label], seed: int = 0
) -> tuple[Interval, int]:
    """Compute kappa as this project defines it: *relevant* against everything else that a judge said.

    Pairs that people are `unsure` of are left out. `unsure` and `unparsed` of the judge count as not relevant, because
    neither changes a label.

    Args:
        labels: of people, one of `tasks.schemas.LABELS` per pair.
        states: of the judge, one of `tasks.schemas.VERDICT_STATES` per pair.
        queries: the query of each pair.
        seed: seed of the draws.

    Returns:
        kappa with its interval, and the number of pairs that count.
    """
    check_lengths("kappa", labels, states, queries)
    sure = [row for row, label in enumerate(labels) if label in SURE]
    people, judge = [labels[row] == RELEVANT for row in sure], [states[row] == RELEVANT for row in sure]
    return kappa_interval(people, judge, [queries[row] for row in sure], seed=seed), len(sure)


def auc_interval(scores: Floats, relevant: Bools, queries: Sequence[Label], confidence: float = CONFIDENCE) -> Interval:
    """Compute the area under the ROC curve, with an interval clustered by query.

    The variance is Obuchowski's for clustered data (Biometrics 53, 1997), the interval symmetric on the scale of
    log-odds. Where the classes are separated wholly, the interval is that of as many single pairs as there are queries.

    Args:
        scores: one per pair.
        relevant: the label of each pair.
        queries: the query of each pair.
        confidence: confidence of the interval.

    Returns:
        AUC, low, high. Not defined where a class is missing.

    >>> auc_interval(np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, False, True, False]), [1, 2, 3, 4]).value
    0.75
    """
    check_lengths("AUC", scores, relevant, queries)
    positive, negative = np.sort(scores[relevant]), np.sort(scores[~relevant])
    if not len(positive) or not len(negative):
        return NOT_DEFINED

    def share_below(values: Floats, others: Floats) -> Floats:
        both = np.searchsorted(others, values, side="left") + np.searchsorted(others, values, side="right")
        return np.asarray(both / (2 * len(others)), dtype=np.float64)

    query = number(queries)
    above = np.where(relevant, share_below(scores, negative), 1 - share_below(scores, positive))
    value = float(above[relevant].mean())
    parts = np.zeros(query.max() + 1)  # what each query adds to the deviation, as positive and as negative
    for side in (relevant, ~relevant):
        parts += np.bincount(query[side], (above[side] - value) / side.sum(), minlength=len(parts))
    there = min(len(np.unique(query[relevant])), len(np.unique(query[~relevant])))
    spread = float((parts**2).sum()) * there / max(1, there - 1)
    if not 0 < value < 1 or spread <= 0:  # as many single pairs as there are queries
        _, low, high = share_of_groups([value] * there, [1] * there, confidence)
        return Interval(value, low, high)
    half = quantile_of_t(there, confidence) * np.sqrt(spread) / (value * (1 - value))
    ends = expit(logit(np.array([value, value])) + np.array([-half, half]))
    return Interval(value, *(float(end) for end in np.round(ends, DIGITS)))


def alpha_interval(
    units: Sequence[Sequence[Label]], queries: Sequence[Label], seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """Compute Krippendorff's alpha for nominal labels: the agreement of any number of people, who may skip units.

    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C. The interval is clustered by
    query.

    Args:
        units: the labels of each unit; units with fewer than two are ignored.
        queries: the query of each unit.
        seed: seed of the draws.
        confidence: confidence of the interval.

    Returns:
        alpha, low, high. Not defined where no unit has two labels, or where all labels are the same.
    """
    check_lengths("alpha", units, queries)
    paired = [row for row, unit in enumerate(units) if len(unit) > 1]
    counted = [Counter(units[row]) for row in paired]
    kinds = sorted({kind for unit in counted for kind in unit}, key=str)
    if len(kinds) < 2:  # noqa: PLR2004 - as for kappa
        return NOT_DEFINED
    counts = np.array([[unit[kind] for kind in kinds] for unit in counted], dtype=np.float64)
    disagreeing = np.array(
        [sum(u[a] * u[b] for a, b in permutations(range(len(kinds)), 2)) / (u.sum() - 1) for u in counts]
    )
    query = blocks(number([queries[row] for row in paired]), seed)
    weights = draw_weights(query, seed)
    times = (weights / weights.mean(axis=1, keepdims=True))[:, query]
    value = float(_alphas(disagreeing[None, :].sum(axis=1), counts.sum(axis=0)[None, :])[0])
    of_query = np.asarray(np.bincount(query, counts.sum(axis=1))[:, None], dtype=np.float64)
    return interval_of(
        value, _alphas(times @ disagreeing, times @ counts), effective(of_query), confidence, lowest=-1.0
    )


def _alphas(disagreeing: Floats, totals: Floats) -> Floats:
    """Compute alpha of each draw from the observed disagreement and the totals of the labels."""
    every = totals.sum(axis=1)
    expected = every**2 - (totals**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (every - 1) * disagreeing / expected, np.nan)
