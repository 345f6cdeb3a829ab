"""Differences between two systems of models, with an interval that covers other queries and other training seeds.

A system is one way to train, with a model for each seed. The mean difference D varies because other queries could have
been asked, and because other seeds could have been used. Both are estimated, as crossed random effects:

- of queries: v_q = variance of the queries' differences (each a mean over seeds) / Q, with Q - 1 degrees of freedom;
- of seeds: v_s = s_1^2 / S_1 + s_2^2 / S_2, where s_i^2 is the variance of a system's mean over its S_i seeds, with
  Welch's degrees of freedom f (between the smaller S_i - 1 and the sum of both; Welch 1947).

The bound at level a is D - sqrt(t(a, Q-1)^2 v_q + t(a, f)^2 v_s) (Banerjee, Sankhya 22, 1960). Adding v_q and v_s under
one quantile, by Satterthwaite's degrees of freedom, promotes too often where three seeds differ much
(docs/methods.md has the simulation). The variance of queries within seeds is in both terms, so the bound is never too
narrow for it (as in Owen, The pigeonhole bootstrap, 2007).

The seeds of two systems count as independent. Seeds that move both systems alike make the interval too wide.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.statistics import EQUAL

Floats = npt.NDArray[np.float64]
_QUERY = ["dataset", "query_id"]
_SMALLEST_P = 1e-15


@dataclass(frozen=True)
class Difference:
    """The difference of two systems' mean scores over the same queries.

    name: of the dataset. seeds: of the treatment and of the baseline.
    of_queries, of_seeds: the two parts of the variance of `difference`. freedom: degrees of freedom of `of_seeds`.
    spread: standard deviation of the queries' differences.
    better, equal, worse: number of queries.
    """

    name: str
    queries: int
    seeds: tuple[int, int]
    baseline: float
    treatment: float
    difference: float
    of_queries: float
    of_seeds: float
    freedom: float
    spread: float
    better: int
    equal: int
    worse: int

    @property
    def is_defined(self) -> bool:
        """Whether an interval can be given: not for one query, nor where every query has the same difference."""
        return self.queries > 1 and (self.spread > EQUAL or abs(self.difference) <= EQUAL)

    @property
    def effect(self) -> float | None:
        """The difference in standard deviations of the queries' differences; None where these do not vary."""
        return self.difference / self.spread if self.spread > EQUAL else None

    def reach(self, level: float) -> float:
        """Return the distance from the difference to its one-sided bound at a level."""
        return math.sqrt(sum(self.reaches(level)))

    def reaches(self, level: float) -> tuple[float, float]:
        """Return the squared reach that comes from the queries, and the one that comes from the seeds."""
        from scipy.special import stdtrit  # the quantile of Student's t; much faster than scipy.stats

        of_queries = float(stdtrit(self.queries - 1, level)) ** 2 * self.of_queries
        return of_queries, float(stdtrit(self.freedom, level)) ** 2 * self.of_seeds if self.of_seeds > 0 else 0.0

    def p_value(self, bound: float = 0.0) -> float:
        """Return the one-sided p-value of "the difference is at most `bound`"."""
        distance = self.difference - bound
        if not self.is_defined:
            return 1.0
        if distance < 0:
            return 1 - self._p_of(-distance)
        return self._p_of(distance)

    def _p_of(self, distance: float) -> float:
        from scipy.optimize import brentq

        if distance <= 0:
            return 0.5
        if self.of_queries + self.of_seeds <= EQUAL**2 or self.reach(_SMALLEST_P) <= distance:
            return _SMALLEST_P
        log = brentq(lambda x: self.reach(math.exp(x)) - distance, math.log(_SMALLEST_P), math.log(0.5))
        return math.exp(float(log))


def difference_of(name: str, treatment: Floats, baseline: Floats) -> Difference:
    """Compare two systems on the same queries.

    Args:
        name: of the difference.
        treatment: scores, shape (queries, seeds).
        baseline: likewise, of the same queries. The number of seeds may differ. A single column counts as one model
            that does not vary: the untrained one, or one whose other seeds are not known.
    """
    queries = len(treatment)
    of_query = treatment.mean(axis=1) - baseline.mean(axis=1)
    parts = [_seed_part(scores) for scores in (treatment, baseline)]
    of_seeds = sum(variance for variance, _ in parts)
    squares = sum(variance**2 / freedom for variance, freedom in parts if freedom)
    spread = float(of_query.std(ddof=1)) if queries > 1 else 0.0
    return Difference(
        name=name,
        queries=queries,
        seeds=(treatment.shape[1], baseline.shape[1]),
        baseline=float(baseline.mean()),
        treatment=float(treatment.mean()),
        difference=float(of_query.mean()),
        of_queries=spread**2 / queries,
        of_seeds=of_seeds,
        freedom=of_seeds**2 / squares if squares > 0 else max(1, *(freedom for _, freedom in parts)),
        spread=spread,
        better=int((of_query > EQUAL).sum()),
        equal=int((np.abs(of_query) <= EQUAL).sum()),
        worse=int((of_query < -EQUAL).sum()),
    )


def differences(
    scores: pl.DataFrame, treatment: str, baseline: str, measure: str, few: int = 0
) -> tuple[Difference, ...]:
    """Compare two systems by their names in the scores: over all queries, then for each dataset if there are several.

    Only queries that both systems have with each of their seeds are compared; without any the result is empty. Each
    query counts once in the first difference, whatever its dataset.

    Args:
        scores: by model, dataset, measure, query and seed.
        treatment: the name of a model.
        baseline: likewise.
        measure: what is compared.
        few: datasets with fewer queries are compared as one, as each alone tells too little.
    """
    chosen = scores.filter(pl.col("measure") == measure)
    sides = [_by_seed(chosen, name, side) for name, side in ((treatment, "t"), (baseline, "b"))]
    if any(side is None for side in sides):
        return ()
    both = sides[0].join(sides[1], on=_QUERY).sort(_QUERY)  # type: ignore[union-attr, arg-type]
    if both.is_empty():
        return ()
    found = [_of_frame("all datasets", both)]
    groups = both.partition_by("dataset", maintain_order=True)
    if len(groups) == 1:
        return tuple(found)
    small = [group for group in groups if group.height < few]
    found += [_of_frame(group["dataset"][0], group) for group in groups if group.height >= few]
    if small:
        named = ", ".join(group["dataset"][0] for group in small)
        found.append(_of_frame(named, pl.concat(small)))
    return tuple(found)


def seeds_of(scores: pl.DataFrame, model: str) -> int:
    """Return the number of seeds of a system in the scores."""
    return scores.filter(pl.col("model") == model)["seed"].n_unique()


def level_of_night(alpha: float, night: int, nights: int) -> float:
    """Return the level of one night's tests, so that those of `nights` nights add up to `alpha`.

    The first night after a promotion gets the most. After `nights` nights without one the levels begin anew.

    >>> round(level_of_night(0.025, 1, 1), 4), round(level_of_night(0.025, 1, 7), 4)
    (0.025, 0.0143)
    >>> round(sum(level_of_night(0.025, night, 7) for night in range(1, 8)), 4)
    0.025
    """
    place = (night - 1) % nights + 1
    return alpha * (nights + 1) / (nights * place * (place + 1))


def _by_seed(scores: pl.DataFrame, model: str, side: str) -> pl.DataFrame | None:
    """Return a row for each query that a model has with each of its seeds, and a column for each seed."""
    own = scores.filter(pl.col("model") == model)
    if own.is_empty():
        return None
    wide = own.pivot(on="seed", index=_QUERY, values="value").drop_nulls()
    return wide.rename({name: f"{side}{name}" for name in wide.columns if name not in _QUERY})


def _of_frame(name: str, both: pl.DataFrame) -> Difference:
    columns: Collection[str] = [column for column in both.columns if column not in _QUERY]
    sides = (both.select(column for column in columns if column[0] == side).to_numpy() for side in "tb")
    treatment, baseline = sides
    return difference_of(name, treatment, baseline)


def _seed_part(scores: Floats) -> tuple[float, int]:
    """Return the variance that seeds bring into a system's mean, with its degrees of freedom; 0, 0 for one seed."""
    seeds = scores.shape[1]
    if seeds < 2:  # noqa: PLR2004 - one seed has no spread
        return 0.0, 0
    return float(scores.mean(axis=0).var(ddof=1)) / seeds, seeds - 1
