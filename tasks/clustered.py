"""Estimate shares, precision, recall and kappa from labelled pairs, with intervals that are clustered by query.

Pairs of one query are alike, so they tell less than as many pairs of different queries. All intervals here hold for
queries like those of the pool. They are quantiles of draws of a Bayesian bootstrap (Rubin 1981): each draw weighs every
query, with all its pairs, by an exponential number. A prior worth one query, spread over the pool, keeps the interval
of a small sample in which nothing was found wider than zero. With few queries the interval is widened, on the scale of
log-odds, from the normal to Student's t distribution. Where each query has one pair and all weights are equal, the
draws are those of a Dirichlet posterior. All draws are seeded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tasks.statistics import CONFIDENCE, NOT_DEFINED, Floats, Interval, Label, check_lengths, quantile_of_t

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DRAWS = 2_000
BLOCKS = 1_000  # more queries than this are joined at random, so that a draw stays small
_PRIOR = 1.0  # weight of the prior in queries, spread over the pool and the classes
_ENOUGH = 10  # a stratum with fewer labelled pairs is merged with its neighbours: its own spread is not known
_EDGE = 1e-9  # draws are kept this far from 0 and 1, where log-odds are infinite
DIGITS = 8  # intervals are rounded to these, as processors differ in the last ones


@dataclass(frozen=True)
class Group:
    """Adjacent strata merged into one.

    pool: pairs of the pool by query, shape (queries,). seen: labelled pairs by query and class, each weighted by the
    pairs it stands for, shape (queries, classes).
    """

    pool: Floats
    seen: Floats


@dataclass(frozen=True)
class Classes:
    """How many pairs of each class a pool has, by its labelled pairs. The classes are numbered from 0."""

    groups: tuple[Group, ...]
    classes: int

    @classmethod
    def of(cls, pool: Floats, stratum: Ints, query: Ints, kind: Ints, classes: int) -> "Classes":
        """Count the classes.

        Args:
            pool: pairs of the pool by query and stratum, shape (queries, strata). Similar strata should be adjacent,
                as small ones are merged with their neighbours.
            stratum: of each labelled pair.
            query: of each labelled pair.
            kind: class of each labelled pair.
            classes: how many classes there are.
        """
        queries, strata = pool.shape
        sizes, looked = pool.sum(axis=0), np.bincount(stratum, minlength=strata).astype(float)
        weights = np.divide(sizes, looked, out=np.zeros_like(sizes), where=looked > 0)
        groups = []
        for rows in merge_small(sizes, looked):
            among = np.isin(stratum, rows)
            cells = query[among] * classes + kind[among]
            seen = _sums(cells, weights[stratum[among]], queries * classes)
            groups.append(Group(pool[:, rows].sum(axis=1), seen.reshape(queries, classes)))
        return cls(tuple(groups), classes)

    @property
    def size(self) -> float:
        """The number of pairs in the pool."""
        return float(sum(group.pool.sum() for group in self.groups))

    @property
    def seen(self) -> Floats:
        """The weighted labelled pairs by query and class, shape (queries, classes)."""
        return np.sum([group.seen for group in self.groups], axis=0) if self.groups else np.zeros((1, self.classes))

    def totals(self) -> Floats:
        """Estimate the pairs of each class in the pool (Hájek's estimator); NaN where a stratum has no label."""
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [g.seen.sum(axis=0) / g.seen.sum() * g.pool.sum() for g in self.groups]
        return np.sum(parts, axis=0) if parts else np.zeros(self.classes)

    def draw(self, weights: Floats, rng: np.random.Generator) -> Floats:
        """Draw the pairs of each class in the pool, shape (draws, classes), for drawn weights of the queries.

        Args:
            weights: shape (draws, queries).
            rng: draws the prior.
        """
        drawn, whole = np.zeros((len(weights), self.classes)), self.size
        for group in self.groups:
            labelled = group.seen.sum(axis=1)
            query = (labelled**2).sum() / labelled.sum() if labelled.sum() else 1.0  # pairs that one query stands for
            prior = _PRIOR * group.pool.sum() / whole / self.classes
            counts = weights @ group.seen + query * rng.gamma(prior, size=drawn.shape)
            total = counts.sum(axis=1, keepdims=True)
            shares = np.divide(counts, total, out=np.full_like(counts, 1 / self.classes), where=total > 0)
            drawn += (weights @ group.pool)[:, None] * shares
        return drawn


@dataclass(frozen=True, eq=False)
class Sample:
    """A pool of pairs in strata, some of them labelled. All columns are of one length.

    stratum: numbered from 0; similar strata are adjacent, as small ones are merged with their neighbours.
    query: numbered from 0. relevant: 1, 0, or NaN where the pair has no label. seed: of the draws.
    pairs: how many pairs a row stands for, all without a label where there are several; None: each row is one pair.

    The labelled pairs of a stratum are treated as a random choice of its pairs.
    """

    stratum: Ints
    query: Ints
    relevant: Floats
    seed: int = 0
    pairs: Floats | None = None

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        pairs = self.relevant if self.pairs is None else self.pairs
        check_lengths("a sample", self.stratum, self.query, self.relevant, pairs)

    @property
    def labelled(self) -> Bools:
        """Which pairs have a label."""
        return np.asarray(np.isfinite(self.relevant), dtype=np.bool_)

    def share(self, among: Bools | None = None, confidence: float = CONFIDENCE) -> Interval:
        """Estimate the share of relevant pairs; not defined for no pair or no label."""
        among = np.ones(len(self.query), dtype=bool) if among is None else among
        if not among.any():
            return NOT_DEFINED
        pairs = self._classes(among, self._truth, 2)
        drawn = pairs.draw(self._weights, self._rng)
        return interval_of(
            pairs.totals()[0] / pairs.size, drawn[:, 0] / drawn.sum(axis=1), effective(pairs.seen), confidence
        )

    def precision(self, called: Bools) -> Interval:
        """Estimate the share of relevant pairs among those called relevant."""
        return self.share(called)

    def recall(self, called: Bools, confidence: float = CONFIDENCE) -> Interval:
        """Estimate the share of the relevant pairs that are called relevant; not defined where none is relevant."""
        sides = [self._classes(side, self._truth, 2) for side in (called, ~called)]
        found, missed = (side.totals()[0] for side in sides)
        if not found + missed > 0:
            return NOT_DEFINED
        rng = self._rng
        one, two = (side.draw(self._weights, rng)[:, 0] for side in sides)
        queries = effective(sum((side.seen[:, :1] for side in sides), np.zeros((1, 1))))
        return interval_of(found / (found + missed), _ratio(one, one + two), queries, confidence)

    def kappa(self, called: Bools, confidence: float = CONFIDENCE) -> Interval:
        """Estimate Cohen's kappa of the labels and of what is called relevant, over the whole pool.

        Not defined for no label, or where labels and calls are all of one class.
        """
        both = self._truth * 2 + ~called
        pairs = self._classes(np.ones(len(called), dtype=bool), both, 4)
        return kappa_of_cells(pairs, self._weights, self._rng, confidence)

    @property
    def _truth(self) -> Ints:
        """The class of each pair: 0 for relevant, 1 for not relevant, any for one without a label."""
        return np.asarray(self.relevant == 0, dtype=np.int64)

    @property
    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, 1])

    @cached_property
    def _blocks(self) -> Ints:
        return blocks(self.query, self.seed)

    @cached_property
    def _weights(self) -> Floats:
        return draw_weights(self._blocks, self.seed)

    def _classes(self, among: Bools, kind: Ints, classes: int) -> Classes:
        """Count the classes of the pairs that `among` selects."""
        strata, query = int(self.stratum.max(initial=-1)) + 1, self._blocks
        queries = int(query.max(initial=-1)) + 1
        pairs = None if self.pairs is None else self.pairs[among]
        cells = np.bincount(query[among] * strata + self.stratum[among], pairs, minlength=queries * strata)
        seen = among & self.labelled
        pool = cells.reshape(queries, strata).astype(float)
        return Classes.of(pool, self.stratum[seen], query[seen], kind[seen], classes)


def share_of_groups(
    found: Sequence[float] | Floats, sizes: Sequence[float] | Floats, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Return the share of things that were found among things that come in groups, such as the candidates of queries.

    Args:
        found: how many were found in each group.
        sizes: how many there are in each group.
        confidence: confidence of the interval.
        seed: seed of the draws.

    Returns:
        share, low, high. Not defined where there is nothing.

    >>> share_of_groups([0, 0, 0], [10, 10, 10]).rounded(1)
    {'value': 0.0, 'low': 0.0, 'high': 0.8}
    """
    check_lengths("found and sizes", found, sizes)
    hits, size = np.asarray(found, dtype=float), np.asarray(sizes, dtype=float)
    hits, size = hits[size > 0], size[size > 0]
    if not len(size):
        return NOT_DEFINED
    block = blocks(np.arange(len(size)), seed)
    seen = np.stack([_sums(block, column, int(block.max()) + 1) for column in (hits, size - hits)], axis=1)
    pairs = Classes((Group(seen.sum(axis=1), seen),), 2)
    drawn = pairs.draw(draw_weights(block, seed), np.random.default_rng([seed, 1]))
    value = float(hits.sum() / size.sum())
    return interval_of(value, drawn[:, 0] / drawn.sum(axis=1), effective(pairs.seen), confidence)


def merge_small(sizes: Floats, looked: Floats) -> list[list[int]]:
    """Merge adjacent strata until each group has enough labelled pairs. Empty strata are left out.

    Args:
        sizes: pairs in the pool, shape (strata,).
        looked: labelled pairs, shape (strata,).

    Returns:
        The strata of each group.
    """
    merged: list[list[int]] = []
    for row in (row for row in range(len(sizes)) if sizes[row] > 0):
        if merged and looked[merged[-1]].sum() < _ENOUGH:
            merged[-1].append(row)
        else:
            merged.append([row])
    if len(merged) > 1 and looked[merged[-1]].sum() < _ENOUGH:
        last = merged.pop()
        merged[-1] += last
    return merged


def number(values: Sequence[Label]) -> Ints:
    """Number values from 0, in the order in which each comes first."""
    places: dict[Label, int] = {}
    return np.array([places.setdefault(value, len(places)) for value in values], dtype=np.int64)


def blocks(query: Ints, seed: int = 0) -> Ints:
    """Join queries at random into at most `BLOCKS` blocks; with fewer queries each is a block of its own."""
    queries = int(query.max(initial=-1)) + 1
    if queries <= BLOCKS:
        return query
    order: Ints = np.random.default_rng([seed, 2]).permutation(queries) % BLOCKS
    return order[query]


def draw_weights(query: Ints, seed: int) -> Floats:
    """Draw a weight of each query, shape (draws, queries)."""
    return np.random.default_rng([seed, 0]).exponential(size=(DRAWS, int(query.max(initial=-1)) + 1))


def effective(seen: Floats) -> float:
    """Return Kish's effective number of queries behind weighted pairs, shape (queries, classes)."""
    by_query = seen.sum(axis=1)
    squared = float((by_query**2).sum())
    return float(by_query.sum()) ** 2 / squared if squared else 0.0


def kappa_of_cells(pairs: Classes, weights: Floats, rng: np.random.Generator, confidence: float) -> Interval:
    """Compute kappa of a table whose cells (label of a × label of b) are the classes, for drawn weights of queries."""
    kinds = round(pairs.classes**0.5)
    value = float(_kappas(pairs.totals()[None, :], kinds)[0])
    return interval_of(value, _kappas(pairs.draw(weights, rng), kinds), effective(pairs.seen), confidence, lowest=-1.0)


def _kappas(cells: Floats, kinds: int) -> Floats:
    """Compute kappa of each row of cells (label of a × label of b); NaN where chance agreement is 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        tables = cells.reshape(len(cells), kinds, kinds) / cells.sum(axis=1)[:, None, None]
        observed = np.trace(tables, axis1=1, axis2=2)
        expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)


def _sums(cells: Ints, weights: Floats, many: int) -> Floats:
    return np.asarray(np.bincount(cells, weights, minlength=many), dtype=np.float64)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def interval_of(value: float, drawn: Floats, queries: float, confidence: float, lowest: float = 0.0) -> Interval:
    """Return the quantiles of the draws, widened around their median for few queries; `lowest` begins the scale."""
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value):
        return NOT_DEFINED
    if not len(drawn):
        return Interval(float(value), None, None)
    scaled = np.clip((drawn - lowest) / (1 - lowest), _EDGE, 1 - _EDGE)
    ends = logit(np.asarray(np.quantile(scaled, [(1 - confidence) / 2, 0.5, (1 + confidence) / 2])))
    wider = quantile_of_t(queries, confidence) / quantile_of_t(np.inf, confidence)
    low, high = expit(ends[1] + wider * (ends[[0, 2]] - ends[1])) * (1 - lowest) + lowest
    # A draw at the edge stands for 0 or 1 itself.
    low, high = (round(float(min(1.0, max(lowest, end))), DIGITS) for end in (low, high))
    return Interval(float(value), min(low, float(value)), max(high, float(value)))


def logit(share: Floats) -> Floats:
    """Return log-odds."""
    return np.asarray(np.log(share / (1 - share)), dtype=np.float64)


def expit(value: Floats) -> Floats:
    """Return the shares of log-odds."""
    return np.asarray(1 / (1 + np.exp(-value)), dtype=np.float64)
