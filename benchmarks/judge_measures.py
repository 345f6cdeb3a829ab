"""Measure how well the scores of a judge agree with labels, with bootstrap intervals over queries.

Pairs of one query are not independent, so whole queries are drawn. Every measure uses the pairs that have a score. The
caller counts the unparsed pairs; they never count as "not relevant".
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

Floats = npt.NDArray[np.float64]
DRAWS = 1000
SEED = 0
BINS = 10
_EPSILON = 1e-6  # a score of 0 or 1 would be an infinite logit
_PENALTY = 1.0


@dataclass(frozen=True)
class Scored:
    """Pairs with P(relevant) in `score`, the label of people in `relevant`, and the query of each pair."""

    score: Floats
    relevant: npt.NDArray[np.bool_]
    query: npt.NDArray[Any]

    def __post_init__(self) -> None:
        if not len(self.score) == len(self.relevant) == len(self.query):
            lengths = [len(self.score), len(self.relevant), len(self.query)]
            raise ValueError(f"scores, labels and queries of one length expected, got {lengths}")

    def take(self, rows: npt.NDArray[np.intp]) -> "Scored":
        """Keep these rows, in this order."""
        return Scored(self.score[rows], self.relevant[rows], self.query[rows])

    def by_query(self) -> list[npt.NDArray[np.intp]]:
        """Rows of each query, in the queries' order."""
        _, place, size = np.unique(self.query, return_inverse=True, return_counts=True)
        return np.split(np.argsort(place, kind="stable"), np.cumsum(size)[:-1])


@dataclass(frozen=True)
class Weights:
    """A logistic fusion: P(relevant) = logistic(sum of weight * feature + bias), on the features as they are."""

    weights: Floats
    bias: float

    def score(self, features: Floats) -> Floats:
        """P(relevant) of rows of features."""
        return expit(features @ self.weights + self.bias)


def measure(scored: Scored, draws: int = DRAWS, seed: int = SEED) -> dict[str, Any]:
    """Measure scores against labels; `kappa_best` is at the threshold that is best on these same pairs."""
    threshold = best_threshold(scored)
    measures: dict[str, Callable[[Scored], float]] = {
        "auc": auc,
        "within_query_auc": within_query_auc,
        "kappa_half": partial(kappa, threshold=0.5),
        "kappa_best": partial(kappa, threshold=threshold),
        "brier": brier,
        "brier_base_rate": brier_base_rate,
        "calibration_error": calibration_error,
    }
    drawn = list(_draw(scored, draws, seed))
    found: dict[str, Any] = {
        name: {"value": _round(of(scored)), "interval": _interval([of(sample) for sample in drawn])}
        for name, of in measures.items()
    }
    mixed = sum(0 < int(scored.relevant[rows].sum()) < len(rows) for rows in scored.by_query())
    return found | {"best_threshold": _round(threshold), "queries_with_both": mixed}


def difference(
    first: Scored, second: Scored, of: Callable[[Scored], float], draws: int = DRAWS, seed: int = SEED
) -> dict[str, Any]:
    """`first` minus `second` in one measure, on the same pairs and the same draws of queries."""
    same = np.array_equal(first.query, second.query) and np.array_equal(first.relevant, second.relevant)
    if not same:
        raise ValueError("a paired difference: the same pairs in the same order expected, got different ones")
    pairs = zip(_draw(first, draws, seed), _draw(second, draws, seed), strict=True)
    return {"value": _round(of(first) - of(second)), "interval": _interval([of(a) - of(b) for a, b in pairs])}


def auc(scored: Scored) -> float:
    """Return P(a relevant pair scores above one that is not), ties half; NaN if one class is missing."""
    positive, negative = scored.score[scored.relevant], np.sort(scored.score[~scored.relevant])
    if not len(positive) or not len(negative):
        return math.nan
    below = np.searchsorted(negative, positive, side="left") + np.searchsorted(negative, positive, side="right")
    return float(below.mean() / (2 * len(negative)))


def within_query_auc(scored: Scored) -> float:
    """Return the mean AUC of single queries, over those that have both classes; NaN if none has."""
    found = [value for rows in scored.by_query() if not math.isnan(value := auc(scored.take(rows)))]
    return float(np.mean(found)) if found else math.nan


def kappa(scored: Scored, threshold: float) -> float:
    """Return Cohen's κ of "score at least `threshold`" with the labels; 0 if one of the two has one class only."""
    return float(_kappas(scored.relevant, (scored.score >= threshold)[None, :])[0])


def best_threshold(scored: Scored) -> float:
    """Return the threshold with the highest κ on these pairs; the lowest of several."""
    thresholds = np.unique(scored.score)
    return float(thresholds[np.argmax(_kappas(scored.relevant, scored.score[None, :] >= thresholds[:, None]))])


def _kappas(relevant: npt.NDArray[np.bool_], called: npt.NDArray[np.bool_]) -> Floats:
    observed = (called == relevant).mean(axis=1)
    said, true = called.mean(axis=1), relevant.mean()
    chance = said * true + (1 - said) * (1 - true)
    found: Floats = np.divide(observed - chance, 1 - chance, out=np.zeros_like(observed), where=chance < 1)
    return found


def brier(scored: Scored) -> float:
    """Return the mean squared error of the score."""
    return float(np.mean((scored.score - scored.relevant) ** 2))


def brier_base_rate(scored: Scored) -> float:
    """Return the Brier score of a judge that gives every pair the share of relevant pairs."""
    share = float(scored.relevant.mean())
    return share * (1 - share)


def calibration_error(scored: Scored) -> float:
    """Return the calibration error: mean |score - share relevant| over ten bins of equal mass; ties share a bin."""
    edges = np.quantile(scored.score, np.linspace(0, 1, BINS + 1)[1:-1])
    bins = np.searchsorted(edges, scored.score, side="right")
    size = np.bincount(bins, minlength=BINS)
    gap = np.bincount(bins, scored.score - scored.relevant, minlength=BINS)
    return float(np.abs(gap).sum() / size.sum())


def logit(score: Floats) -> Floats:
    """Return the log-odds; they are finite for scores of 0 and 1 too."""
    clipped = np.clip(score, _EPSILON, 1 - _EPSILON)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float64)


def expit(value: Floats) -> Floats:
    """Return the probability of log-odds."""
    return np.asarray(1 / (1 + np.exp(-value)), dtype=np.float64)


def fit(features: Floats, relevant: npt.NDArray[np.bool_]) -> Weights:
    """Fit a logistic regression, lightly penalised on features of equal spread; weights are for the raw features."""
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=_PENALTY, max_iter=1000).fit((features - centre) / spread, relevant)
    weights = model.coef_[0] / spread
    return Weights(weights, float(model.intercept_[0] - weights @ centre))


def score_held_out(features: Floats, relevant: npt.NDArray[np.bool_], query: npt.NDArray[Any]) -> Floats:
    """Return P(relevant) of the pairs of each query, by a fusion fitted on all other queries."""
    scores = np.full(len(relevant), np.nan)
    for held_out in np.unique(query):
        rows = query == held_out
        scores[rows] = fit(features[~rows], relevant[~rows]).score(features[rows])
    return scores


def _draw(scored: Scored, draws: int, seed: int) -> Iterator[Scored]:
    """Draw as many queries as there are, with replacement; one drawn twice counts as two."""
    groups, rng = scored.by_query(), np.random.default_rng(seed)
    for _ in range(draws):
        picked = [groups[i] for i in rng.integers(0, len(groups), len(groups))]
        rows = np.concatenate(picked)
        again = np.repeat(np.arange(len(picked)), [len(group) for group in picked])
        yield Scored(scored.score[rows], scored.relevant[rows], again)


def _interval(values: Sequence[float]) -> list[float | None]:
    """Return the middle 95% of the draws that could be measured."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return [None, None]
    return [_round(float(bound)) for bound in np.percentile(known, [2.5, 97.5])]


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
