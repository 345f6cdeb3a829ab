"""Detect that a calibration no longer holds: tonight's labelled pairs against the probabilities it gave them.

A calibrated P says how many of the pairs are relevant. Where labels say otherwise, by more than chance and by enough to
matter, the judges, the encoder or the data have changed since it was fitted. Pairs are compared in bins of P and
together. Which pairs are labelled may depend on P: within a bin that makes no difference.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.quality.drift import Alarm, DriftConfig

KIND, TIER = "calibration", "combined"
EDGES = (0.0, 0.1, 0.3, 0.7, 0.9, 1.0)  # of the bins of P
_LEAST = 0.05  # least distance of P and the share of relevant pairs that matters
_FEW_QUERIES = 5
_ADVICE = (
    "P(relevant) is not what it says: the judges, the encoder or the data have changed since the calibration was made. "
    "Promote nothing that was decided by it tonight; let people label the sample sheet, then `reneg calibrate`."
)


@dataclass(frozen=True)
class Observed:
    """Labelled pairs with P between two bounds: expected and observed share of relevant ones.

    p: of the difference, by a test over queries, as the pairs of one are not independent; 1 with few queries.
    """

    low: float
    high: float
    pairs: int
    queries: int
    expected: float
    observed: float
    p: float


def observe(pairs: pl.DataFrame) -> list[Observed]:
    """Compare P with labels, over all pairs first and then in each bin that has any.

    Args:
        pairs: query_hash, `p` (P(relevant) before the label was known, 0 to 1), `relevant` (Boolean).
    """
    known = pairs.filter(pl.col("p").is_not_null(), pl.col("relevant").is_not_null())
    bounds = [(EDGES[0], EDGES[-1]), *itertools.pairwise(EDGES)]
    found = []
    for low, high in bounds:
        closed = "both" if high == EDGES[-1] else "left"
        part = known.filter(pl.col("p").is_between(low, high, closed=closed))  # type: ignore[arg-type]
        if not part.is_empty():
            found.append(_observe(part, low, high))
    return found


def find_miscalibration(config: DriftConfig, observed: Sequence[Observed], labels_from: str) -> list[Alarm]:
    """Return at most one alarm: the comparison with the smallest p-value, if it is below chance and large enough.

    Comparisons with fewer than `min_pairs` pairs are left out. `labels_from` names who labelled the pairs.
    """
    tested = [one for one in observed if one.pairs >= config.min_pairs and one.queries >= _FEW_QUERIES]
    off = [one for one in tested if abs(one.observed - one.expected) >= _LEAST and one.p < config.alpha / len(tested)]
    if not off:
        return []
    worst = min(off, key=lambda one: (one.p, one.low))
    between = (
        "" if (worst.low, worst.high) == (EDGES[0], EDGES[-1]) else f" with P from {worst.low:g} to {worst.high:g}"
    )
    message = (
        f"calibration: of {worst.pairs:,} pairs{between} that {labels_from} labelled {worst.observed:.0%} are "
        f"relevant, where it says {worst.expected:.0%} (p = {worst.p:.2g})"
    )
    change = worst.observed - worst.expected
    return [Alarm(KIND, TIER, worst.expected, worst.observed, change, worst.p, message, _ADVICE)]


def _observe(part: pl.DataFrame, low: float, high: float) -> Observed:
    gap = (pl.col("relevant").cast(pl.Float64) - pl.col("p")).sum()
    by_query = part.group_by("query_hash").agg(gap=gap, chance=(pl.col("p") * (1 - pl.col("p"))).sum())
    by_query = by_query.sort("gap", "chance")
    return Observed(
        low=low,
        high=high,
        pairs=part.height,
        queries=by_query.height,
        expected=float(part["p"].mean()),  # type: ignore[arg-type]
        observed=float(part["relevant"].mean()),  # type: ignore[arg-type]
        p=_p_value(by_query["gap"].to_numpy(), by_query["chance"].to_numpy()),
    )


def _p_value(gaps: np.ndarray, chance: np.ndarray) -> float:
    """Return the p-value that the queries' sums of (label - P) have a mean of 0, by Student's t; shapes (queries,).

    The spread is that of the sums, and at least what chance alone gives where P is right (`chance`: the variance of
    each sum if its labels were independent). Where all labels seen are equal, the sums hardly differ, and their own
    spread would make an alarm of every bin of low P without a relevant pair.
    """
    from scipy.stats import t

    if len(gaps) < _FEW_QUERIES or not gaps.any():
        return 1.0
    spread = np.sqrt(max(float(gaps.var(ddof=1)), float(chance.mean())) / len(gaps))
    return float(2 * t.sf(abs(gaps.mean()) / spread, len(gaps) - 1)) if spread > 0 else 0.0
