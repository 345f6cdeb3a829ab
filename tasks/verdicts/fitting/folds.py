"""Numbers in common: log-odds, and folds that keep all pairs of a query together."""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
EPSILON = 1e-6  # scores are clipped by this, as the logit of 0 or 1 is infinite


def single_thread() -> AbstractContextManager[Any]:
    """Compute on one thread: the matrices are small, and the sums are the same on every machine with any load."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def logit(score: Floats) -> Floats:
    """Return the log-odds; they are finite for scores of 0 and 1 too, and NaN for NaN."""
    clipped = np.clip(score, EPSILON, 1 - EPSILON)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float64)


def expit(value: Floats) -> Floats:
    """Return the probability of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(value / 2)), dtype=np.float64)


def log_loss(p: Floats, relevant: Bools, weights: Floats | None = None) -> float:
    """Return the mean of -log P(the label), weighted."""
    return float(np.average(_losses(p, relevant), weights=weights))


def is_better(p: Floats, than: Floats, relevant: Bools, weights: Floats, groups: npt.NDArray[Any]) -> bool:
    """Tell whether the log-loss of `p` is lower by more than the standard error of the difference over groups."""
    gain = np.bincount(
        np.unique(groups, return_inverse=True)[1], weights * (_losses(than, relevant) - _losses(p, relevant))
    )
    if len(gain) < 2:  # noqa: PLR2004 - one group has no spread
        return False
    return bool(gain.sum() > np.sqrt(len(gain)) * gain.std(ddof=1))


def _losses(p: Floats, relevant: Bools) -> Floats:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-np.where(relevant, np.log(p), np.log1p(-p)))


def split_folds(groups: npt.NDArray[Any], relevant: Bools, folds: int, seed: int = 0) -> Ints:
    """Give each pair a fold, shape (pairs,); pairs of one group share it.

    Groups are shuffled, then dealt out so that the relevant pairs, and then all pairs, are spread evenly.
    """
    names, place = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    folds = min(folds, len(names))
    size = np.bincount(place, minlength=len(names))
    positive = np.bincount(place, relevant.astype(np.float64), minlength=len(names))
    order = rng.permutation(len(names))
    order = order[np.argsort(-positive[order], kind="stable")]
    load, fold_of = np.zeros((folds, 2)), np.zeros(len(names), dtype=np.int64)
    for group in order:
        fold = min(range(folds), key=lambda one: (load[one, 0] if positive[group] else 0, load[one, 1]))
        fold_of[group] = fold
        load[fold] += (positive[group], size[group])
    return np.asarray(fold_of[place], dtype=np.int64)


def effective(weights: Floats) -> Floats:
    """Scale weights so that they add up to Kish's effective number of pairs: (Σw)² / Σw²."""
    total = float(weights.sum())
    return weights * (total / float((weights**2).sum())) if total else weights
