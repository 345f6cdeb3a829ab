"""Measure probabilities against labels, with intervals that draw whole queries.

The candidates of one query are alike, so a query is drawn with all its pairs (the cluster bootstrap). As in
`tasks.clustered`, shares and AUC have a prior worth one query, half at each end of the scale: an interval is never of
no width because all labels seen were equal. With few queries intervals are widened to Student's t distribution. All
figures are weighted by 1 / inclusion probability. The probabilities must come from a fit on other queries.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from tasks.clustered import interval_of
from tasks.verdicts.fitting.folds import Bools, Floats, Ints

DRAWS = 1000
BINS = 10
_CONFIDENCE = 0.95
_STEPS = 100  # parts into which the thresholds of a sweep split the pairs, and the relevant ones
_DIGITS = 6


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Value(_Frozen):
    """A figure with its interval (95%, over queries); None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Bin(_Frozen):
    """Pairs of similar P: how many, their mean P, and the share that is relevant."""

    pairs: int
    mean_p: float
    relevant: Value


class Single(_Frozen):
    """One tier alone, on the pairs that it answered, and what the combination gains there (paired by query)."""

    pairs: int
    auc: Value
    auc_within: Value
    gain: Value
    gain_within: Value


class Figures(_Frozen):
    """How good the probabilities are, on queries they were not fitted on.

    pairs, queries: labelled. prevalence: the share of relevant pairs. bins: of equal mass. ece: the mean distance of
    the bins' P and share. brier: the mean squared error, brier_base: that of the prevalence. auc: over all pairs.
    auc_within: the mean over the queries with both labels. singles: by tier.
    """

    pairs: int
    queries: int
    prevalence: Value
    bins: tuple[Bin, ...]
    ece: Value
    brier: Value
    brier_base: Value
    auc: Value
    auc_within: Value
    singles: Mapping[str, Single]

    @property
    def separates(self) -> bool:
        """Tell whether the scores order the candidates of a query better than chance does, by the interval."""
        judged = self.auc_within if self.auc_within.value is not None else self.auc
        return judged.low is not None and judged.low > 0.5  # noqa: PLR2004 - chance


class Point(_Frozen):
    """What a threshold calls relevant: the share of the pairs, precision, recall and F1."""

    threshold: float
    share: float
    precision: Value
    recall: Value
    f1: Value


@dataclass(frozen=True)
class Scored:
    """Labelled pairs: P(relevant) or another score, label, query and weight of each; arrays of one length."""

    p: Floats
    relevant: Bools
    group: npt.NDArray[Any]
    weight: Floats

    def __post_init__(self) -> None:
        lengths = {len(self.p), len(self.relevant), len(self.group), len(self.weight)}
        if len(lengths) > 1:
            raise ValueError(f"scores, labels, queries, weights of one length expected, got lengths {sorted(lengths)}")

    def only(self, rows: Bools | Ints) -> "Scored":
        """Keep these rows."""
        return Scored(self.p[rows], self.relevant[rows], self.group[rows], self.weight[rows])

    def reweighted(self, times: Floats) -> "Scored":
        """Multiply the weights, shape (pairs,)."""
        return Scored(self.p, self.relevant, self.group, self.weight * times)

    def with_scores(self, p: Floats) -> "Scored":
        """Score the same pairs otherwise."""
        return Scored(p, self.relevant, self.group, self.weight)


def measure(scored: Scored, tiers: Mapping[str, Floats], seed: int = 0) -> Figures:
    """Compute all figures.

    Args:
        scored: the pairs, with P by fits on other queries.
        tiers: scores of each tier alone, shape (pairs,), NaN where the tier did not answer.
        seed: of the draws of queries.
    """
    counts = draw_counts(scored.group, seed)
    base = float(np.average(scored.relevant, weights=scored.weight)) if len(scored.p) else 0.0
    return Figures(
        pairs=len(scored.p),
        queries=len(np.unique(scored.group)),
        prevalence=_mean(scored, scored.relevant.astype(np.float64), counts),
        bins=reliability(scored, counts),
        ece=interval(scored, ece, counts, prior=False),
        brier=_mean(scored, (scored.p - scored.relevant) ** 2, counts, prior=False),
        brier_base=_value(base * (1 - base), np.empty(0), 0.0),
        auc=interval(scored, auc, counts),
        auc_within=auc_within(scored, counts),
        singles={
            tier: _single(scored.only(there), values[there], seed)
            for tier, values in tiers.items()
            if (there := ~np.isnan(values)).any()
        },
    )


def draw_counts(group: npt.NDArray[Any], seed: int = 0, draws: int = DRAWS) -> Floats:
    """Draw queries with replacement: how often each occurs, shape (draws, queries), in sorted order of the queries."""
    queries = len(np.unique(group))
    rng = np.random.default_rng(seed)
    return rng.multinomial(queries, np.full(queries, 1 / queries), draws).astype(np.float64)


def interval(scored: Scored, of: Callable[[Scored], float], counts: Floats, *, prior: bool = True) -> Value:
    """Return a figure (0 to 1) of weighted pairs with its interval over draws of queries.

    prior: whether the figure can be at an end of the scale by chance, as a share or an AUC can.
    """
    place = np.unique(scored.group, return_inverse=True)[1]
    drawn = np.array([of(scored.reweighted(row[place])) for row in counts])
    queries = _effective(_sums(place, scored.weight)) if len(place) else 0.0
    mass = np.where(np.isfinite(drawn), queries, 0.0)
    return _value(of(scored), _with_prior(drawn * queries, mass) if prior else drawn, queries)


def difference(first: Scored, second: Scored, of: Callable[[Scored], float], counts: Floats) -> Value:
    """Return `first` minus `second` in one figure, on the same pairs and the same draws of queries."""
    place = np.unique(first.group, return_inverse=True)[1]

    drawn = [of(first.reweighted(row[place])) - of(second.reweighted(row[place])) for row in counts]
    queries = _effective(_sums(place, first.weight))
    return _value(of(first) - of(second), np.array(drawn), queries, lowest=-1.0)


def auc(scored: Scored) -> float:
    """Return P(a relevant pair scores above one that is not), ties half; NaN if one class is missing."""
    _, place = np.unique(scored.p, return_inverse=True)
    steps = int(place.max()) + 1 if len(place) else 0
    positive = np.bincount(place, scored.weight * scored.relevant, steps)
    negative = np.bincount(place, scored.weight * ~scored.relevant, steps)
    both = positive.sum() * negative.sum()
    if not both > 0:
        return float("nan")
    return float((positive * (np.cumsum(negative) - negative / 2)).sum() / both)


def auc_within(scored: Scored, counts: Floats) -> Value:
    """Return the mean AUC of single queries, over those that have both labels."""
    values = _by_query(scored)
    return _mean_of_queries(values, counts)


def ece(scored: Scored) -> float:
    """Return the expected calibration error: mean |P - share relevant| over bins of equal mass; ties share a bin."""
    total, gap = 0.0, 0.0
    for rows in _bins(scored):
        weight = scored.weight[rows]
        gap += abs(float((weight * (scored.p[rows] - scored.relevant[rows])).sum()))
        total += float(weight.sum())
    return gap / total if total else float("nan")


def reliability(scored: Scored, counts: Floats) -> tuple[Bin, ...]:
    """Return the bins of equal mass, from low P to high."""
    names = np.unique(scored.group)
    bins = []
    for rows in _bins(scored):
        part = scored.only(rows)
        known = np.isin(names, part.group)
        share = _mean(part, part.relevant.astype(np.float64), counts[:, known])
        bins.append(Bin(pairs=len(rows), mean_p=_round(np.average(part.p, weights=part.weight)), relevant=share))
    return tuple(bins)


def sweep(scored: Scored, seed: int = 0) -> tuple[Point, ...]:
    """Return what each threshold would call relevant, from low to high.

    The thresholds split the pairs into parts of equal mass, and the relevant ones that P expects: where few are
    relevant, nearly all pairs lie below every threshold that one would choose.
    """
    if not len(scored.p):
        return ()
    counts = draw_counts(scored.group, seed)
    place = np.unique(scored.group, return_inverse=True)[1]
    steps, p = np.linspace(0, 1, _STEPS + 1), np.sort(scored.p)
    expected = np.cumsum(p) / max(p.sum(), np.finfo(np.float64).tiny)
    after = np.minimum(np.searchsorted(expected, steps[:-1], side="right"), len(p) - 1)  # the last, where all P are 0
    quantiles = np.concatenate([np.quantile(p, steps, method="lower"), p[after]])
    thresholds = np.unique(np.floor(quantiles * 10**_DIGITS) / 10**_DIGITS)
    found = []
    relevant = _sums(place, scored.weight * scored.relevant)
    for threshold in thresholds.tolist():
        called = scored.p >= threshold
        hits = _sums(place, scored.weight * (scored.relevant & called))
        said = _sums(place, scored.weight * called)
        found.append(
            Point(
                threshold=threshold,
                share=_round(said.sum() / scored.weight.sum()),
                precision=_ratio(hits, said, counts),
                recall=_ratio(hits, relevant, counts),
                f1=_ratio(2 * hits, said + relevant, counts),
            )
        )
    return tuple(found)


def _single(scored: Scored, values: Floats, seed: int) -> Single:
    counts, alone = draw_counts(scored.group, seed), scored.with_scores(values)
    return Single(
        pairs=len(values),
        auc=interval(alone, auc, counts),
        auc_within=auc_within(alone, counts),
        gain=difference(scored, alone, auc, counts),
        gain_within=_mean_of_queries(_by_query(scored) - _by_query(alone), counts, gain=True),
    )


def _bins(scored: Scored) -> list[Ints]:
    """Return the rows of each bin, from low P to high; equal P are never split."""
    order = np.argsort(scored.p, kind="stable")
    p, mass = scored.p[order], np.cumsum(scored.weight[order])
    if not len(p) or not mass[-1] > 0:
        return []
    first = np.concatenate([[True], p[1:] != p[:-1]])
    middle = (mass - scored.weight[order] / 2) / mass[-1]
    starts = np.maximum.accumulate(np.where(first, np.arange(len(p)), 0))
    place = np.minimum((middle[starts] * BINS).astype(np.int64), BINS - 1)
    return [np.asarray(order[place == one], dtype=np.int64) for one in np.unique(place)]


def _by_query(scored: Scored) -> Floats:
    """Return the AUC of each query, NaN where it has one label only, in sorted order of the queries."""
    _, place, size = np.unique(scored.group, return_inverse=True, return_counts=True)
    rows = np.split(np.argsort(place, kind="stable"), np.cumsum(size)[:-1])
    return np.array([auc(scored.only(one)) for one in rows])


def _mean_of_queries(values: Floats, counts: Floats, *, gain: bool = False) -> Value:
    """Return the mean with its interval; `gain`: of differences, -1 to 1, else of values from 0 to 1."""
    known = ~np.isnan(values)
    if not known.any():
        return Value(value=None)
    return _ratio(np.where(known, values, 0.0), known.astype(np.float64), counts, prior=not gain, lowest=-float(gain))


def _mean(scored: Scored, values: Floats, counts: Floats, *, prior: bool = True) -> Value:
    place = np.unique(scored.group, return_inverse=True)[1]
    return _ratio(_sums(place, scored.weight * values), _sums(place, scored.weight), counts, prior=prior)


def _sums(place: npt.NDArray[np.intp], values: Floats) -> Floats:
    return np.bincount(place, values).astype(np.float64)


def _ratio(above: Floats, below: Floats, counts: Floats, *, prior: bool = True, lowest: float = 0.0) -> Value:
    """Return Σ above / Σ below over queries, with its interval; not defined where the sum below is 0."""
    whole = float(below.sum())
    if not whole > 0:
        return Value(value=None)
    queries = _effective(below)
    part, mass = (counts @ column * (queries / whole) for column in (above, below))
    if prior:
        drawn = _with_prior(part, mass)
    else:
        drawn = np.divide(part, mass, out=np.full_like(part, np.nan), where=mass > 0)
    return _value(float(above.sum()) / whole, drawn, queries, lowest)


def _effective(below: Floats) -> float:
    """Return Kish's effective number of queries behind the weights of queries."""
    squared = float((below**2).sum())
    return float(below.sum()) ** 2 / squared if squared else 0.0


def _with_prior(part: Floats, mass: Floats) -> Floats:
    """Return drawn shares with the prior; `mass` in queries, and of it `part`, shape (draws,)."""
    one, other = np.random.default_rng(len(mass)).gamma(0.5, size=(2, len(mass)))
    return np.asarray((np.where(mass > 0, part, 0.0) + one) / (mass + one + other))


def _value(value: float, drawn: Floats, queries: float, lowest: float = 0.0) -> Value:
    found = interval_of(value, drawn, queries, _CONFIDENCE, lowest)
    return Value(**{name: None if x is None else _round(x) for name, x in found._asdict().items()})


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), _DIGITS)
