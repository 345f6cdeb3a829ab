"""Exact bounds on a count in a finite pool, from a simple random sample of it (the hypergeometric distribution).

The only chance is that of the draw, so the bounds hold whatever the pool holds. With a large pool they become those of
Clopper and Pearson (1934).
"""

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def chance_of_at_most(found: Ints | int, drawn: Ints | int, marked: Ints | int, size: Ints | int) -> Floats:
    """Return P(X <= found), where X is the number of marked ones among `drawn` of `size` without replacement.

    All four are broadcast against each other; `marked` is how many of the `size` are marked.

    >>> chance_of_at_most(0, 2, 2, 4).round(4).tolist()  # C(2,2) / C(4,2)
    [0.1667]
    """
    k, n, m, total = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(x, dtype=np.int64)) for x in (found, drawn, marked, size))
    )
    if (m > total).any() or (n > total).any():
        raise ValueError("at most `size` marked and at most `size` drawn expected; more came")
    least, last = np.maximum(0, n - (total - m)), np.minimum(k, np.minimum(n, m))
    width = max(0, int((last - least).max(initial=-1)) + 1)
    x = least[:, None] + np.arange(width)
    inside = x <= last[:, None]
    x = np.where(inside, x, least[:, None])
    columns = (values[:, None] for values in (n, m, total))
    chances = np.where(inside, np.exp(_log_chance(x, *columns)), 0.0).sum(axis=1)
    return np.where(k >= np.minimum(n, m), 1.0, np.minimum(1.0, chances))


def fewest(found: int, drawn: int, size: int, alpha: float) -> int:
    """Return a lower bound of how many of `size` are marked, if `found` of `drawn` are; it fails with chance <= alpha.

    It is the smallest number M with P(X >= found | M) > alpha.

    >>> fewest(0, 10, 100, 0.05), fewest(8, 10, 100, 0.05), fewest(8, 10, 10, 0.05)
    (0, 51, 8)
    """
    low, high = found, size - (drawn - found)
    while low < high:
        middle = (low + high) // 2
        if found and 1.0 - float(chance_of_at_most(found - 1, drawn, middle, size)[0]) <= alpha:
            low = middle + 1
        else:
            high = middle
    return low


def _log_chance(x: Ints, drawn: Ints, marked: Ints, size: Ints) -> Floats:
    rest = _log_choose(size - marked, drawn - x)
    return np.asarray(_log_choose(marked, x) + rest - _log_choose(size, drawn), dtype=np.float64)


def _log_choose(n: Ints, k: Ints) -> Floats:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), dtype=np.float64)
