"""Estimate agreement and rates with intervals, from samples drawn with known probabilities.

All intervals hold for the pool that was sampled, not for other queries. They are quantiles of draws from a posterior.
Its prior counts as one observation, spread over the pool. So the interval of a small sample in which nothing was found
is wider than zero, where the bootstrap would give zero to zero. All draws are seeded.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Label = Hashable

DRAWS = 10_000
CONFIDENCE = 0.95
EQUAL = 1e-12  # differences of scores that are closer than this count as equal
_PRIOR = 1.0  # weight of the prior in observations, half of them positive; with one stratum it is Jeffreys' prior
_ENOUGH = 10  # a stratum with fewer sampled pairs is merged with its neighbours: its own spread is not known


class Interval(NamedTuple):
    """A value with its interval. All three are None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None

    def rounded(self, digits: int = 4) -> dict[str, float | None]:
        """Return the three numbers rounded, by name, for a JSON file."""
        return {name: None if x is None else round(x, digits) for name, x in self._asdict().items()}


NOT_DEFINED = Interval(None, None, None)


def wilson(successes: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's interval (low, high) of a share of independent trials; (0, 1) for no trials.

    >>> low, high = wilson(8, 10)
    >>> f"{low:.3f} {high:.3f}"
    '0.490 0.943'
    """
    if total == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(successes, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def kappa_interval(
    labels_a: Sequence[Label],
    labels_b: Sequence[Label],
    weights: Sequence[float] | None = None,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Compute Cohen's kappa of two labellings of the same pairs, with an interval.

    Args:
        labels_a: one label per pair, of any number of classes.
        labels_b: the other labelling, of the same length.
        weights: 1 / inclusion probability of each pair; equal by default. Pairs of equal weight are treated as one
            stratum.
        seed: seed of the draws.
        confidence: confidence of the interval.

    Returns:
        kappa, low, high. Not defined for no pairs, or where all labels of both are the same.

    Raises:
        ValueError: the lengths differ, or a weight is not positive.

    >>> kappa_interval(["yes", "no"] * 10, ["yes", "no"] * 10).value
    1.0
    """
    weighing = np.ones(len(labels_a)) if weights is None else np.asarray(weights, dtype=np.float64)
    _check_lengths("kappa", labels_a, labels_b, weighing)
    if not (np.isfinite(weighing) & (weighing > 0)).all():
        raise ValueError("kappa: positive weights expected (1 / inclusion probability)")
    kinds = sorted({*labels_a, *labels_b}, key=str)
    if len(kinds) < 2:  # noqa: PLR2004 - agreement beyond chance needs two labels to choose from
        return NOT_DEFINED
    place = {kind: row for row, kind in enumerate(kinds)}
    cells = np.array([place[a] * len(kinds) + place[b] for a, b in zip(labels_a, labels_b, strict=True)])
    strata, stratum = np.unique(weighing, return_inverse=True)
    counts = np.zeros((len(strata), len(kinds) ** 2))
    np.add.at(counts, (stratum, cells), 1)
    value = _kappas((counts * strata[:, None]).sum(axis=0)[None, :], len(kinds))[0]
    rng = np.random.default_rng(seed)
    drawn = np.zeros((DRAWS, len(kinds) ** 2))
    for group in merge_small(counts.sum(axis=1) * strata, counts):
        prior = _PRIOR * group.size / (counts.sum(axis=1) * strata).sum() / len(group.counts)
        drawn += group.size * rng.dirichlet(group.counts + prior, DRAWS)
    return _interval(float(value), _kappas(drawn, len(kinds)), confidence)


@dataclass(frozen=True)
class Strata:
    """A stratified sample of a finite pool.

    sizes: pairs in each stratum. sampled: labelled pairs. positive: positive ones among them. Shape (strata,) each.
    A stratum without labels is estimated from the neighbours it is merged with, so similar strata should be adjacent.
    """

    sizes: Floats
    sampled: Floats
    positive: Floats

    @property
    def total(self) -> float:
        """Estimate the number of positive pairs in the pool; NaN without labels."""
        groups = self._groups
        return float(sum(g.size * g.counts[0] / g.counts.sum() if g.counts.sum() else np.nan for g in groups))

    def draw(self, seed: int) -> Floats:
        """Draw the number of positive pairs in the pool, shape (DRAWS,); unlabelled pairs are drawn at random."""
        rng, draws = np.random.default_rng(seed), DRAWS
        drawn = np.zeros(draws)
        for group in self._groups:
            prior = _PRIOR / 2 * group.size / self.sizes.sum()
            share = rng.beta(group.counts[0] + prior, group.counts[1] + prior, draws)
            drawn += group.seen[0] + rng.binomial(max(0, round(group.size - group.seen.sum())), share)
        return drawn

    def rate(self, seed: int, confidence: float = CONFIDENCE) -> Interval:
        """Estimate the share of positive pairs in the pool (Hájek's estimator); not defined for an empty pool."""
        pool = float(self.sizes.sum())
        return _interval(self.total / pool, self.draw(seed) / pool, confidence) if pool else NOT_DEFINED

    @property
    def _groups(self) -> "list[Group]":
        return merge_small(self.sizes, np.column_stack([self.positive, self.sampled - self.positive]))


@dataclass(frozen=True)
class Group:
    """Adjacent strata merged into one.

    size: pairs in the pool. seen: labelled pairs of each class. counts: estimated proportions of the classes, scaled so
    that they add up to Kish's effective sample size.
    """

    size: float
    seen: Floats
    counts: Floats


def merge_small(sizes: Floats, seen: Floats) -> list[Group]:
    """Merge adjacent strata until each group has enough labelled pairs.

    Strata that are labelled completely are not merged, as nothing is to be estimated. Empty strata are left out.

    Args:
        sizes: pairs in the pool, shape (strata,).
        seen: labelled pairs of each class, shape (strata, classes).
    """
    open_ = [row for row in range(len(sizes)) if sizes[row] > 0 and seen[row].sum() < sizes[row] - 1e-9]
    whole = [[row] for row in range(len(sizes)) if sizes[row] > 0 and row not in set(open_)]
    merged: list[list[int]] = []
    for row in open_:
        if merged and seen[merged[-1]].sum() < _ENOUGH:
            merged[-1].append(row)
        else:
            merged.append([row])
    if len(merged) > 1 and seen[merged[-1]].sum() < _ENOUGH:
        last = merged.pop()
        merged[-1] += last
    return [_group(sizes[rows], seen[rows]) for rows in (*whole, *merged)]


def _group(sizes: Floats, seen: Floats) -> Group:
    looked = seen.sum(axis=1)
    weights = np.divide(sizes, looked, out=np.zeros_like(sizes), where=looked > 0)
    estimated = (weights[:, None] * seen).sum(axis=0)
    effective = (weights * looked).sum() ** 2 / max((weights**2 * looked).sum(), 1e-300)
    counts = estimated / estimated.sum() * effective if estimated.sum() else estimated
    return Group(float(sizes.sum()), seen.sum(axis=0), counts)


def recall_interval(found: Strata, others: Strata, seed: int, confidence: float = CONFIDENCE) -> Interval:
    """Estimate the recall: the share of all positive pairs that are in `found`.

    Args:
        found: the pairs that were called positive.
        others: the rest of the pool.
        seed: seed of the draws of `found`; `others` are drawn with `seed` + 1.
        confidence: confidence of the interval.

    Returns:
        recall, low, high. Not defined without labels, or where no pair is positive.
    """
    one, two = found.draw(seed), others.draw(seed + 1)
    whole = found.total + others.total
    if not whole > 0:
        return NOT_DEFINED
    defined = one + two > 0
    return _interval(found.total / whole, one[defined] / (one + two)[defined], confidence)


def alpha_interval(units: Sequence[Sequence[Label]], seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """Compute Krippendorff's alpha for nominal labels: the agreement of any number of people, who may skip units.

    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C. The interval is the percentile
    bootstrap over units.

    Args:
        units: the labels of each unit; units with fewer than two are ignored.
        seed: seed of the draws.
        confidence: confidence of the interval.

    Returns:
        alpha, low, high. Not defined where no unit has two labels, or where all labels are the same.
    """
    counted = [Counter(unit) for unit in units if len(unit) > 1]
    kinds = sorted({kind for unit in counted for kind in unit}, key=str)
    if len(kinds) < 2:  # noqa: PLR2004 - as for kappa
        return NOT_DEFINED
    counts = np.array([[unit[kind] for kind in kinds] for unit in counted], dtype=np.float64)
    disagreeing = np.array(
        [sum(u[a] * u[b] for a, b in permutations(range(len(kinds)), 2)) / (u.sum() - 1) for u in counts]
    )
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), DRAWS).astype(np.float64)
    return _interval(
        float(_alphas(disagreeing[None, :].sum(axis=1), counts.sum(axis=0)[None, :])[0]),
        _alphas(times @ disagreeing, times @ counts),
        confidence,
    )


def _kappas(cells: Floats, kinds: int) -> Floats:
    """Compute kappa of each row of cells (label of a × label of b); NaN where chance agreement is 1."""
    tables = cells.reshape(len(cells), kinds, kinds) / cells.sum(axis=1)[:, None, None]
    observed = np.trace(tables, axis1=1, axis2=2)
    expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)


def _alphas(disagreeing: Floats, totals: Floats) -> Floats:
    """Compute alpha of each draw from the observed disagreement and the totals of the labels."""
    every = totals.sum(axis=1)
    expected = every**2 - (totals**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (every - 1) * disagreeing / expected, np.nan)


def _interval(value: float, drawn: Floats, confidence: float) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value):
        return NOT_DEFINED
    if not len(drawn):
        return Interval(float(value), None, None)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


def _check_lengths(name: str, *columns: Sequence[object] | Floats) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise ValueError(f"{name}: columns of equal length expected, got lengths {lengths}")
