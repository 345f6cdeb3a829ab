"""Values with intervals, and what all estimates share. Intervals clustered by query are in `tasks.clustered`."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Label = Hashable

CONFIDENCE = 0.95
EQUAL = 1e-12  # differences of scores that are closer than this count as equal
_FEWEST = 5.0  # groups; with fewer, t would be so wide that nothing could be said


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


def quantile_of_t(groups: float, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t for a spread estimated from this many groups.

    >>> round(quantile_of_t(float("inf")), 2), round(quantile_of_t(10), 2), round(quantile_of_t(1), 2)
    (1.96, 2.26, 2.78)
    """
    from scipy.stats import norm, t

    level = (1 + confidence) / 2
    return float(norm.ppf(level) if np.isinf(groups) else t.ppf(level, max(groups, _FEWEST) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that are corrected for the number of tests (Holm 1979), in the given order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def check_lengths(name: str, *columns: Sequence[object] | npt.NDArray[np.generic]) -> None:
    """Refuse columns of different lengths.

    Raises:
        ValueError: the lengths differ.
    """
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise ValueError(f"{name}: columns of equal length expected, got lengths {lengths}")
