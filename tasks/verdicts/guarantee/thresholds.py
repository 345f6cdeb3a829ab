"""Choose the two thresholds of a cascade with a guarantee: accept from one score, reject below another (SUPG, BARGAIN).

Pool: N questions with scores; the oracle would call Y of them relevant. Final set: what the oracle is asked about and
calls relevant, and all that is accepted. With W wrong ones among the accepted and M missed ones among the rejected,
neither of them asked:

    recall    = (Y - M) / Y            >= t   if M <= (1 - t) Y
    precision = (Y - M) / (Y - M + W)  >= p   if W <= (1 - p) / p * t Y, given the recall (t = 1 if nothing is rejected)

Y is bounded from below. Each threshold is then tested, from the safest on, up to the first that fails (fixed-sequence
testing): the counts grow with the threshold, so the guarantee is broken only if the first wrong one passes its test.
Three statements share the chance of failing: on Y, on M and on W. All tests are hypergeometric, so exact.

Sources: D. Kang et al., Approximate Selection with Guarantees using Proxies (SUPG), VLDB 2020; S. Zeighami et al., Cut
Costs, Not Accuracy: LLM-Powered Data Processing with Guarantees (BARGAIN), 2025; A. Angelopoulos et al., Learn then
Test, 2021 (fixed sequences). SUPG's bounds are asymptotic; these are not.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.verdicts.guarantee.bounds import Floats, Ints, chance_of_at_most, fewest

Bools = npt.NDArray[np.bool_]

_FOR_COUNT, _FOR_RECALL = 0.2, 0.5  # shares of the chance of failing; the rest is for precision
_GRID = 400  # thresholds that are tested on each side
_AT_ONCE = 40
_TO_MISS, _TO_BE_WRONG = 11, 40  # expected in the audit of what a threshold just may leave; see `sizes`
_RAREST = 0.002  # prevalence; what is rarer is audited like this
_EPSILON = 1e-9  # 0.05 * 100 is below 5
_SMALLEST_HIGH, _LARGEST_HIGH = 0.02, 0.5  # shares of the pool


@dataclass(frozen=True)
class Target:
    """What is guaranteed of the final set against the oracle's verdicts; None: no demand."""

    recall: float | None
    precision: float | None
    confidence: float


@dataclass(frozen=True)
class Audit:
    """The draw: `high` marks the stratum of high scores, `drawn` the audited questions, in the order of the scores."""

    high: Bools
    drawn: Bools
    chance: Floats  # inclusion probability of each question


@dataclass(frozen=True)
class Thresholds:
    """What is accepted (score >= accept) and rejected (score < reject); None: nothing.

    relevant: a lower bound of how many the oracle calls relevant; it holds with a fifth of the chance of failing.
    """

    accept: float | None
    reject: float | None
    relevant: int

    def sides(self, scores: Floats) -> tuple[Bools, Bools]:
        """Return which of several scores are accepted, and which are rejected."""
        nothing = np.zeros(scores.size, bool)
        accepted = nothing if self.accept is None else scores >= self.accept
        return accepted, nothing if self.reject is None else scores < self.reject


@dataclass(frozen=True)
class Counts:
    """What is known once all that was passed on is asked.

    found: asked, and called relevant. accepted, rejected: not asked. found_rejected: audited below the threshold of
    rejection, and called relevant. found_wrong: audited above that of acceptance, and not called relevant.
    """

    found: int
    accepted: int
    rejected: int
    found_rejected: int
    found_wrong: int


def draw(target: Target, scores: Floats, uniforms: Floats, size: int | None = None) -> Audit:
    """Draw an audit sample from two strata of the scores, each simple and without replacement.

    The stratum of high scores holds as many questions as are expected to be relevant, if the scores are probabilities
    (2% to 50% of the pool). Its sampling rate differs from that of the others. Nothing is left out: a low score can be
    wrong too. Whatever the scores mean, the bounds hold; only how many questions are passed on depends on them.

    Args:
        target: the guarantee, for the sizes of the two samples.
        scores: of the pool, without gaps.
        uniforms: a random number in 0..1 for each question, independent of its score and verdict.
        size: how many are drawn; None: as many as the target needs (`sizes`), at most half of the pool.
    """
    total = scores.size
    if not total:
        return Audit(np.zeros(0, bool), np.zeros(0, bool), np.zeros(0))
    high = _high(scores)
    upper = int(high.sum())
    of_low, of_high = sizes(target, float(scores.mean()))
    wanted = min(of_low + of_high, -(-total // 2)) if size is None else min(size, total)
    part = round(wanted * of_high / (of_low + of_high))
    part = min(upper, max(part, wanted - (total - upper)))
    drawn, chance = np.zeros(total, bool), np.zeros(total)
    for stratum, count in ((high, part), (~high, wanted - part)):
        members = np.flatnonzero(stratum)
        if count:
            drawn[members[np.argpartition(uniforms[members], count - 1)[:count]]] = True
        chance[members] = count / max(1, members.size)
    return Audit(high, drawn, chance)


def _high(scores: Floats) -> Bools:
    """Return which scores make the high stratum; equal scores stay together."""
    wanted = max(1, int(np.clip(scores.mean(), _SMALLEST_HIGH, _LARGEST_HIGH) * scores.size))
    edge = np.partition(scores, scores.size - wanted)[scores.size - wanted]
    above, from_edge = scores > edge, scores >= edge
    nearer = above.any() and wanted - above.sum() < from_edge.sum() - wanted
    return np.asarray(above if nearer else from_edge, dtype=np.bool_)


def sizes(target: Target, prevalence: float) -> tuple[int, int]:
    """Return how many questions of the low and of the high stratum an audit needs, whatever the size of the pool.

    Of the low scores (1 - t) Y may be missed. A sample in which that many would leave about 11 lets some four be found;
    with none found, ln(1 / alpha), about 4, would do. Likewise 40 of the high scores for the wrong ones that may be
    accepted. The rarer the relevant ones, the larger the audit: at 1% it exceeds what a cascade can save.

    >>> sizes(Target(0.95, 0.9, 0.95), 0.1)
    (1980, 495)
    """
    share = min(_LARGEST_HIGH, max(_RAREST, prevalence))
    keep = 1.0 if target.recall is None else target.recall
    low = 0 if keep == 1.0 else math.ceil(_TO_MISS * (1 - share) / ((1 - keep) * share) - _EPSILON)
    demand = target.precision or 0.0
    high = 0 if not 0 < demand < 1 else math.ceil(_TO_BE_WRONG * demand / ((1 - demand) * keep) - _EPSILON)
    return max(low, high // 4, 1), max(high, low // 4, 1)


def choose(target: Target, scores: Floats, audit: Audit, relevant: Bools, unread: Bools) -> Thresholds:
    """Choose the thresholds that pass on the fewest questions, of those that the audit shows to keep the target.

    Args:
        target: the guarantee.
        scores: of the pool.
        audit: its audit, as `draw` made it.
        relevant: where the oracle said relevant; read where it was audited.
        unread: where its answer could not be read; such a question counts against every threshold.
    """
    order = np.argsort(scores, kind="stable")
    s, drawn = scores[order], audit.drawn[order]
    lower = int((~audit.high).sum())  # sorted by score, the low stratum comes first
    said, maybe = (drawn & relevant[order]), (drawn & (relevant | unread)[order])
    failing = 1.0 - target.confidence
    count_alpha = failing * _FOR_COUNT
    recall_alpha, precision_alpha = _shares(target, failing - count_alpha)
    least = sum(
        fewest(int(said[part].sum()), int(drawn[part].sum()), int(s[part].size), count_alpha / 2)
        for part in (slice(0, lower), slice(lower, None))
    )
    keep = 1.0 if target.recall is None else target.recall
    below = _count(_grid(s, lower), drawn, maybe) if target.recall is not None else None
    rejects = 0 if below is None else _last_passing(*below, int((1.0 - keep) * least + _EPSILON), recall_alpha)
    start = s.size
    if target.precision is not None:
        turned = _count(_grid_from_top(s, lower), drawn[::-1], (drawn & ~said)[::-1])
        wrong = int((1.0 - target.precision) / target.precision * keep * least + _EPSILON)
        start -= _last_passing(*turned, wrong, precision_alpha)
    return Thresholds(
        accept=float(s[start]) if start < s.size else None,
        reject=None if rejects == 0 else _edge(s, rejects),
        relevant=least,
    )


def reached(target: Target, counts: Counts) -> tuple[float, float]:
    """Return lower bounds of recall and precision that hold together with the confidence.

    They are the targets, and better by what the audit found behind the thresholds, because that is asked and so right.
    With R = found + accepted, k = found_rejected, f = found_wrong, t and p the targets (t = 1 if nothing is rejected):
    from M <= (1 - t) Y - k, W <= (1 - p) / p * t Y - f and Y = R - W + M follow

        recall    >= t + t k / (R - k)
        precision >= p + ((1 - p) k + p f) / R

    Nor can more be missed than is rejected, or more be wrong than is accepted.
    """
    size, k, f = counts.found + counts.accepted, counts.found_rejected, counts.found_wrong
    keep = target.recall if target.recall is not None and counts.rejected else 1.0
    recall = min(1.0, keep + keep * k / (size - k)) if size > k else keep
    whole = counts.found + counts.rejected  # of the accepted none may be relevant
    recall = max(recall, counts.found / whole if whole else 1.0)
    if not counts.accepted or not size:
        return recall, 1.0
    p = 0.0 if target.precision is None else target.precision
    return recall, max(min(1.0, p + ((1.0 - p) * k + p * f) / size), counts.found / size)


def _shares(target: Target, failing: float) -> tuple[float, float]:
    """Split the chance of failing between recall and precision."""
    if target.recall is None or target.precision is None:
        return failing, failing
    recall = failing * _FOR_RECALL / (1.0 - _FOR_COUNT)
    return recall, failing - recall


def _edge(s: Floats, rejects: int) -> float:
    """Return the threshold below which the `rejects` lowest scores lie."""
    return float(s[rejects]) if rejects < s.size else float(np.nextafter(s[-1], np.inf))


def _grid(s: Floats, lower: int) -> Ints:
    """Return numbers of lowest scores that can be rejected: equal scores stay together, none of the high stratum."""
    places = np.unique(np.linspace(0, lower, _GRID + 1).astype(np.int64))
    inner = places[places < lower]
    return np.unique(np.append(np.searchsorted(s, s[inner], side="left"), lower)).astype(np.int64)


def _grid_from_top(s: Floats, lower: int) -> Ints:
    """Return numbers of highest scores that can be accepted: equal scores stay together, none of the low stratum."""
    places = s.size - np.unique(np.linspace(0, s.size - lower, _GRID + 1).astype(np.int64))
    inner = places[places < s.size]
    return np.unique(np.append(s.size - np.searchsorted(s, s[inner], side="left"), 0)).astype(np.int64)


def _count(grid: Ints, drawn: Bools, against: Bools) -> tuple[Ints, Ints, Ints]:
    """Return, for each number of first questions, that number, how many are drawn, and how many of these speak against.

    A threshold that rejects or accepts so many is tested with them.
    """
    of_drawn, of_against = (
        np.concatenate([[0], np.cumsum(values)]).astype(np.int64)[grid] for values in (drawn, against)
    )
    return grid, of_drawn, of_against


def _last_passing(sizes: Ints, drawn: Ints, against: Ints, most: int, alpha: float) -> int:
    """Return the largest size up to which every test shows, at level `alpha`, that at most `most` speak against it."""
    last = 0
    for block in _blocks(sizes.size):
        size, marked = sizes[block], np.minimum(most + 1, sizes[block])
        chance = np.where(size <= most, 0.0, chance_of_at_most(against[block], drawn[block], marked, size))
        failed = np.flatnonzero(chance > alpha)
        if failed.size:
            return int(size[failed[0] - 1]) if failed[0] else last
        last = int(size[-1])
    return last


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE))
