"""Logistic regressions with a ridge, partially pooled over datasets.

logit P = intercept + x·β + (intercept_d + x·β_d) for a pair of dataset d, where x are the columns, each minus its mean
and divided by its spread. The penalty is (|β|² + (intercept_d² + |β_d|²) / pooling²) / (2C): a dataset of few labels
stays near the coefficients of all, and one that was never seen gets them as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from tasks.verdicts.fitting.folds import Bools, Floats, Ints, expit, log_loss

_STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_POOLINGS = (0.0, 0.3, 1.0)
_LEAST_OF_DATASET = 20  # labels from which a dataset has coefficients of its own


class Deviation(BaseModel):
    """What a dataset adds to the coefficients of all."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    intercept: float
    coefficients: tuple[float, ...]


class Regression(BaseModel):
    """A fitted regression.

    columns: names, in order. centre, spread: by which each column is standardised; a missing value counts as the mean.
    intercept, coefficients: of all datasets. deviations: by dataset. strength, pooling: C and the pooling, as chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    columns: tuple[str, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    intercept: float
    coefficients: tuple[float, ...]
    deviations: Mapping[str, Deviation]
    strength: float
    pooling: float

    def log_odds(self, x: Floats, dataset: npt.NDArray[Any]) -> Floats:
        """Return logit P of each row of `x`, shape (rows, columns), NaN where a value is missing."""
        standard = _standardise(x, np.array(self.centre), np.array(self.spread))
        found = self.intercept + standard @ np.array(self.coefficients)
        for name, own in self.deviations.items():
            rows = dataset == name
            found[rows] += own.intercept + standard[rows] @ np.array(own.coefficients)
        return np.asarray(found, dtype=np.float64)


def fit_regression(
    x: Floats,
    relevant: Bools,
    weights: Floats,
    dataset: npt.NDArray[Any],
    columns: Sequence[str],
    how: tuple[float, float],
) -> Regression:
    """Fit with a given strength C and pooling.

    Args:
        x: shape (pairs, columns); NaN where a value is missing.
        relevant: labels, of both classes.
        weights: of the pairs; they should add up to the effective number of pairs.
        dataset: name of each pair's dataset.
        columns: names of the columns.
        how: (C, pooling).
    """
    from sklearn.linear_model import LogisticRegression

    strength, pooling = how
    centre, spread = _moments(x, weights)
    own = _own_datasets(dataset) if pooling > 0 else []
    design = _design(_standardise(x, centre, spread), dataset, own, pooling)
    if design.shape[1]:
        model = LogisticRegression(C=strength, solver="newton-cholesky", max_iter=200, tol=1e-8)
        model.fit(design, relevant, sample_weight=weights)
        intercept, found = float(model.intercept_[0]), model.coef_[0]
    else:
        intercept, found = float(_newton(design, relevant, weights, strength)[0]), np.empty(0)
    width = x.shape[1]
    parts = [pooling * part for part in found[width:].reshape(len(own), width + 1)]
    return Regression(
        columns=tuple(columns),
        centre=tuple(centre.tolist()),
        spread=tuple(spread.tolist()),
        intercept=intercept,
        coefficients=tuple(found[:width].tolist()),
        deviations={
            name: Deviation(intercept=float(part[0]), coefficients=tuple(part[1:].tolist()))
            for name, part in zip(own, parts, strict=True)
        },
        strength=strength,
        pooling=pooling,
    )


def choose(
    x: Floats, relevant: Bools, weights: Floats, dataset: npt.NDArray[Any], fold: Ints
) -> tuple[tuple[float, float], Floats]:
    """Choose C and the pooling by the log-loss on folds left out; returns (C, pooling) and P there, shape (pairs,)."""
    poolings = _POOLINGS if len(_own_datasets(dataset)) > 1 else (0.0,)
    ways = [(strength, pooling) for pooling in poolings for strength in _STRENGTHS]
    p = np.full((len(x), len(ways)), np.nan)
    for one in np.unique(fold):
        out = fold == one
        for first in range(0, len(ways), len(_STRENGTHS)):
            p[out, first : first + len(_STRENGTHS)] = _path(x, relevant, weights, dataset, ~out, ways[first][1])[out]
    best = int(np.argmin([round(log_loss(column, relevant, weights), 9) for column in p.T]))
    return ways[best], np.asarray(p[:, best])


def _path(
    x: Floats, relevant: Bools, weights: Floats, dataset: npt.NDArray[Any], used: Bools, pooling: float
) -> Floats:
    """Fit on the rows in use with each strength, from the strongest penalty on; returns P, shape (rows, strengths)."""
    centre, spread = _moments(x[used], weights[used])
    own = _own_datasets(dataset[used]) if pooling > 0 else []
    design = _design(_standardise(x, centre, spread), dataset, own, pooling)
    found, beta = [], None
    for strength in _STRENGTHS:
        beta = _newton(design[used], relevant[used], weights[used], strength, beta)
        found.append(expit(beta[0] + design @ beta[1:]))
    return np.column_stack(found)


def _newton(design: Floats, relevant: Bools, weights: Floats, strength: float, start: Floats | None = None) -> Floats:
    """Minimise C · Σ w · log-loss + |β|² / 2, the intercept (first) unpenalised: what scikit-learn does, from a start.

    The intercept has a penalty of 1e-6, so that it is finite where all labels are equal.
    """
    full = np.column_stack([np.ones(len(design)), design])
    penalty = np.full(full.shape[1], 1 / strength)
    penalty[0] = 1e-6
    beta = np.zeros(full.shape[1]) if start is None else start
    value = _objective(full, relevant, weights, penalty, beta)
    for _ in range(60):
        p = expit(full @ beta)
        gradient = full.T @ (weights * (p - relevant)) + penalty * beta
        curvature = (full * (weights * p * (1 - p))[:, None]).T @ full + np.diag(penalty)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while (lower := _objective(full, relevant, weights, penalty, beta - size * step)) > value and size > 1e-4:  # noqa: PLR2004
            size /= 2
        beta, gained, value = beta - size * step, value - lower, lower
        if gained < 1e-8 * (1 + abs(value)):
            break
    return np.asarray(beta, dtype=np.float64)


def _objective(full: Floats, relevant: Bools, weights: Floats, penalty: Floats, beta: Floats) -> float:
    z = full @ beta
    return float((weights * (np.logaddexp(0, z) - relevant * z)).sum() + (penalty * beta**2).sum() / 2)


def _design(standard: Floats, dataset: npt.NDArray[Any], own: Sequence[str], pooling: float) -> Floats:
    """Return the columns of all, then for each dataset an intercept and its columns, scaled by the pooling."""
    blocks = [standard]
    for name in own:
        blocks.append(pooling * np.column_stack([np.ones(len(standard)), standard]) * (dataset == name)[:, None])
    return np.column_stack(blocks)


def _moments(x: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return mean and spread of each column, over the values that are there; 0 and 1 where they do not vary."""
    present = ~np.isnan(x)
    mass = np.maximum((weights[:, None] * present).sum(axis=0), 1e-12)
    centre = (weights[:, None] * np.where(present, x, 0.0)).sum(axis=0) / mass
    varied = (weights[:, None] * np.where(present, x - centre, 0.0) ** 2).sum(axis=0) / mass
    return centre, np.where(varied > 1e-12, np.sqrt(np.maximum(varied, 1e-12)), 1.0)  # noqa: PLR2004


def _own_datasets(dataset: npt.NDArray[Any]) -> list[str]:
    """Name the datasets with enough labels; none where there is only one dataset, as it is the pool."""
    names, counts = np.unique(dataset, return_counts=True)
    if len(names) < 2:  # noqa: PLR2004
        return []
    return [str(name) for name, count in zip(names, counts, strict=True) if count >= _LEAST_OF_DATASET]


def _standardise(x: Floats, centre: Floats, spread: Floats) -> Floats:
    return np.where(np.isnan(x), 0.0, (x - centre) / spread)
