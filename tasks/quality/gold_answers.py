"""Compare the answers of one judge to the gold set over nights: how many are right, and how many other than usual."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.schemas import VERDICT_STATES

Floats = npt.NDArray[np.float64]
_GUARD = 1e-9


@dataclass(frozen=True)
class Answers:
    """The answers of one judge to the gold set in one night: which were right, in the order of the items.

    judge, items: only nights with the same judge and the same items are compared.
    states: the answers themselves; empty where they were not recorded. Right and wrong answers are compared then.
    queries: how many of the items, in their order, belong to each query; empty: every item has a query of its own.
    """

    judge: str
    items: str
    right: tuple[bool, ...]
    states: tuple[str, ...] = ()
    queries: tuple[int, ...] = ()

    @property
    def accuracy(self) -> float:
        """Return the share of right answers."""
        return sum(self.right) / len(self.right)


def paired_p(before: npt.NDArray[np.bool_], tonight: npt.NDArray[np.bool_], queries: Sequence[int] = ()) -> float:
    """Return the p-value that tonight's number of right answers is that of the nights before (same items, two-sided).

    Without drift, the answers to a query's items in each night are equally likely to be tonight's. With one earlier
    night and one item a query this is the exact test of McNemar.

    Args:
        before: shape (nights, items).
        tonight: shape (items,).
        queries: how many of the items, in their order, belong to each query; empty: one each.
    """
    answers = _by_query(np.vstack([before, tonight]).astype(np.int64), queries)
    distribution = _distribution(answers)  # of the number of right answers tonight
    expected = answers.sum() / len(answers)
    distance = np.abs(np.arange(len(distribution)) - expected)
    observed = abs(answers[-1].sum() - expected)
    return float(min(1.0, distribution[distance >= observed - _GUARD].sum()))


def answers_of(nights: Sequence[Answers]) -> npt.NDArray[np.int64]:
    """Return the answers of nights as numbers, shape (nights, items): states where all nights have them, else right."""
    if all(night.states for night in nights):
        return np.array([[VERDICT_STATES.index(state) for state in night.states] for night in nights], dtype=np.int64)
    return np.array([night.right for night in nights], dtype=np.int64)


def churn(nights: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the share of answers that are other than usual: in a night before, on average, and in the last night.

    The usual answer to an item is that of most other nights before. Where half of them give the answer, it is usual.

    Args:
        nights: answers as numbers, shape (nights, items); the last night is compared with those before.
    """
    before = nights[:-1]
    was = float(_unusual(before).mean()) if len(before) > 1 else 0.0
    return was, float(_unusual(nights)[-1].mean())


def churn_p(nights: npt.NDArray[np.int64], queries: Sequence[int] = ()) -> float:
    """Return the p-value that the last night has no more unusual answers than any other night (one-sided, exact).

    Without drift, the answers to a query's items in each night are equally likely to be those of the last night.

    Args:
        nights: answers as numbers, shape (nights, items).
        queries: how many of the items, in their order, belong to each query; empty: one each.
    """
    unusual = _by_query(_unusual(nights), queries)
    return float(min(1.0, _distribution(unusual)[unusual[-1].sum() :].sum()))


def _unusual(nights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Tell for each answer whether most other nights give another one, shape (nights, items)."""
    same = (nights[:, None, :] == nights[None, :, :]).sum(axis=1) - 1
    return np.asarray(2 * same < len(nights) - 1, dtype=np.int64)


def _by_query(values: npt.NDArray[np.int64], queries: Sequence[int]) -> npt.NDArray[np.int64]:
    """Add up the items of each query, shape (nights, queries)."""
    if not queries:
        return values
    begins = np.concatenate([[0], np.cumsum(queries)[:-1]]).astype(np.int64)
    return np.asarray(np.add.reduceat(values, begins, axis=1), dtype=np.int64)


def _distribution(values: npt.NDArray[np.int64]) -> Floats:
    """Return the chance of each sum over the queries (0, 1, …), if each query takes the value of a random night.

    Args:
        values: not negative, shape (nights, queries).
    """
    nights = len(values)
    chance: Floats = np.ones(1)
    kinds, many = np.unique(np.sort(values, axis=0), axis=1, return_counts=True)
    for kind, times in zip(kinds.T, many, strict=True):
        one = np.bincount(kind) / nights
        for _ in range(times):
            chance = np.asarray(np.convolve(chance, one), dtype=np.float64)
    return chance
