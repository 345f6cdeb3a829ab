"""Map the raw scores of one judge to probabilities: monotone maps, chosen by the loss on queries left out.

- `platt`: P = logistic(slope · logit(score) + intercept), with slope ≥ 0 (Platt, Probabilistic Outputs for Support
  Vector Machines, 1999, with his smoothed targets).
- `isotonic`: the increasing step function with the least squared error (pool adjacent violators), each step shrunk to
  the share of relevant pairs, and drawn as a line through the middles of the steps, in log-odds. It is never 0 or 1.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from tasks.verdicts.fitting.folds import Bools, Floats, effective, expit, log_loss, logit, split_folds

Kind = Literal["platt", "isotonic"]
_SHRINK = 4.0  # each step of an isotonic map counts so many further pairs with the share of all
_LEAST_ISOTONIC = 100  # with fewer labels the steps of an isotonic map are noise
_RIDGE = 0.1  # penalty on Platt's slope, which is pulled to 0: a judge that tells nothing maps to the base rate


class ScoreMap(BaseModel):
    """A map from score to P(relevant): a line through `knots` (logit of score, logit of P), or Platt's line.

    kind: how it was fitted. slope, intercept: of Platt's line. knots: of an isotonic map, both increasing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind
    slope: float = 0.0
    intercept: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()

    def log_odds(self, score: Floats) -> Floats:
        """Return logit P of each score, shape as given; NaN where the score is NaN."""
        raw = logit(score)
        if self.kind == "platt":
            return np.asarray(self.slope * raw + self.intercept, dtype=np.float64)
        x, y = np.array(self.knots).T
        return np.where(np.isnan(raw), np.nan, np.interp(raw, x, y))

    def apply(self, score: Floats) -> Floats:
        """Return P(relevant) of each score, shape as given; NaN where the score is NaN."""
        return expit(self.log_odds(score))


def fit_map(
    score: Floats, relevant: Bools, groups: npt.NDArray[Any], weights: Floats | None = None, kind: Kind | None = None
) -> tuple[ScoreMap, Floats]:
    """Fit a map on labelled pairs; which kind is decided by the log-loss on groups left out, unless `kind` says it.

    Args:
        score: raw scores in 0..1, shape (pairs,), none missing.
        relevant: labels, of both classes.
        groups: the query of each pair.
        weights: 1 / inclusion probability of each pair; equal by default.
        kind: fit this kind.

    Returns:
        The map, and logit P of each pair by maps of this kind that were fitted on other queries, shape (pairs,).
    """
    weighing = effective(np.ones(len(score)) if weights is None else weights)
    few = len(score) < _LEAST_ISOTONIC or min(relevant.sum(), (~relevant).sum()) < _LEAST_ISOTONIC // 5
    kinds: tuple[Kind, ...] = (kind,) if kind else ("platt",) if few else ("platt", "isotonic")
    crossed = {one: _cross(score, relevant, groups, weighing, _FITS[one]) for one in kinds}
    best = min(kinds, key=lambda one: log_loss(expit(crossed[one]), relevant, weighing))
    return _FITS[best](score, relevant, weighing), crossed[best]


def _cross(
    score: Floats,
    relevant: Bools,
    groups: npt.NDArray[Any],
    weights: Floats,
    fit: Callable[[Floats, Bools, Floats], ScoreMap],
) -> Floats:
    """Return logit P of each pair by a map that was fitted on other queries, shape (pairs,)."""
    fold, found = split_folds(groups, relevant, 5), np.full(len(score), np.nan)
    for one in np.unique(fold):
        out = fold == one
        rest = fit(score[~out], relevant[~out], weights[~out]) if not out.all() else fit(score, relevant, weights)
        found[out] = rest.log_odds(score[out])
    return found


def _platt(score: Floats, relevant: Bools, weights: Floats) -> ScoreMap:
    """Fit by Newton's method on Platt's targets: (n₊ + 1) / (n₊ + 2) for relevant pairs, 1 / (n₋ + 2) for others."""
    positive, negative = float(weights[relevant].sum()), float(weights[~relevant].sum())
    target = np.where(relevant, (positive + 1) / (positive + 2), 1 / (negative + 2))
    x = logit(score)
    centre, spread = float(np.average(x, weights=weights)), float(x.std()) or 1.0
    design = np.column_stack([(x - centre) / spread, np.ones(len(x))])
    penalty, beta = np.diag([_RIDGE, 0.0]), np.array([0.0, _log_odds_of(target, weights)])
    for _ in range(50):
        p = expit(design @ beta)
        gradient = design.T @ (weights * (p - target)) + penalty @ beta
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design + penalty + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        beta = beta - np.clip(step, -4, 4)
        if np.abs(step).max() < 1e-9:  # noqa: PLR2004 - converged
            break
    if beta[0] <= 0:
        return ScoreMap(kind="platt", slope=0.0, intercept=_log_odds_of(target, weights))
    slope = float(beta[0] / spread)
    return ScoreMap(kind="platt", slope=slope, intercept=float(beta[1]) - slope * centre)


def _log_odds_of(target: Floats, weights: Floats) -> float:
    return float(logit(np.array([np.average(target, weights=weights)]))[0])


def _isotonic(score: Floats, relevant: Bools, weights: Floats) -> ScoreMap:
    from sklearn.isotonic import IsotonicRegression

    x, share = logit(score), float(np.average(relevant, weights=weights))
    steps = IsotonicRegression(out_of_bounds="clip").fit_transform(
        x, relevant.astype(np.float64), sample_weight=weights
    )
    _, block = np.unique(steps, return_inverse=True)
    mass = np.bincount(block, weights)
    middle = np.bincount(block, weights * x) / mass
    value = (np.bincount(block, weights * relevant) + _SHRINK * share) / (mass + _SHRINK)
    value = np.maximum.accumulate(value)  # small steps are shrunk more, which may turn two neighbours around
    knots = zip(middle.tolist(), logit(value).tolist(), strict=True)
    return ScoreMap(kind="isotonic", knots=tuple(knots))


_FITS: dict[Kind, Callable[[Floats, Bools, Floats], ScoreMap]] = {"platt": _platt, "isotonic": _isotonic}
