"""How often the intervals of `tasks.clustered` hold the true value, over many simulated samples of correlated pairs.

python -m tests.tasks.coverage    # the table of docs/experiments.md (minutes)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.agreement import auc_interval
from tasks.clustered import Sample, share_of_groups
from tasks.statistics import Interval

Floats = npt.NDArray[np.float64]
CORRELATION = 0.4  # of the relevance of two pairs of one query
_OF_ERRORS = 0.2  # the same of a judge's errors


@dataclass(frozen=True)
class World:
    """Queries with correlated pairs, and a judge that finds some of the relevant ones.

    queries, size: how many, and how many pairs each has; with `uneven` 1 to 2 * size - 1. share: of relevant pairs.
    sensitivity, false_alarms: what share of the relevant and of the other pairs the judge calls relevant.
    labels: how many pairs people label, the same number from each stratum; None: all.
    """

    queries: int
    size: int
    share: float
    sensitivity: float = 0.8
    false_alarms: float = 0.1
    labels: int | None = None
    uneven: bool = False

    @property
    def truth(self) -> dict[str, float]:
        """The values that the intervals should hold, by measure."""
        hit, missed = self.share * self.sensitivity, self.share * (1 - self.sensitivity)
        wrong = (1 - self.share) * self.false_alarms
        called = hit + wrong
        chance = called * self.share + (1 - called) * (1 - self.share)
        kappa = (1 - missed - wrong - chance) / (1 - chance)
        values = {"share": self.share, "precision": hit / called, "recall": self.sensitivity, "kappa": kappa}
        return values | ({"groups": self.share} if self.labels is None else {})

    def measure(self, rng: np.random.Generator, seed: int) -> dict[str, Interval]:
        """Draw a pool and its labels, and estimate each measure."""
        sizes = rng.integers(1, 2 * self.size, self.queries) if self.uneven else np.full(self.queries, self.size)
        query = np.repeat(np.arange(self.queries), sizes)
        relevant = rng.random(len(query)) < _beta(rng, self.share, CORRELATION, self.queries)[query]
        finds = _beta(rng, self.sensitivity, _OF_ERRORS, self.queries)[query]
        errs = _beta(rng, self.false_alarms, _OF_ERRORS, self.queries)[query]
        called = rng.random(len(query)) < np.where(relevant, finds, errs)
        stratum = called * 2 + (rng.random(len(query)) < 0.5)
        sample = Sample(stratum.astype(np.int64), query, self._labels(rng, stratum, relevant), seed)
        found = {
            "share": sample.share(),
            "precision": sample.precision(called),
            "recall": sample.recall(called),
            "kappa": sample.kappa(called),
        }
        if self.labels is None:
            found["groups"] = share_of_groups(
                np.bincount(query, relevant, self.queries).tolist(), sizes.tolist(), seed=seed
            )
        return found

    def _labels(
        self, rng: np.random.Generator, stratum: npt.NDArray[np.int64], relevant: npt.NDArray[np.bool_]
    ) -> Floats:
        if self.labels is None:
            return relevant.astype(float)
        labels = np.full(len(stratum), np.nan)
        strata = np.unique(stratum)
        for one in strata:
            rows = np.flatnonzero(stratum == one)
            drawn = rng.choice(rows, min(len(rows), self.labels // len(strata)), replace=False)
            labels[drawn] = relevant[drawn]
        return labels


WORLDS: Mapping[str, World] = {
    "100 labels of 50 queries": World(50, 20, 0.3, labels=100),
    "400 labels of 50 queries": World(50, 20, 0.3, labels=400),
    "200 labels of 400 queries": World(400, 20, 0.2, 0.7, labels=200),
    "200 labels of 100 queries, rarely relevant": World(100, 20, 0.05, 0.8, 0.05, labels=200),
    "all pairs of 8 queries": World(8, 20, 0.3),
    "all pairs of 20 queries": World(20, 10, 0.3),
    "all pairs of 20 uneven queries": World(20, 10, 0.3, uneven=True),
    "all pairs of 30 queries, rarely relevant": World(30, 10, 0.05, 0.8, 0.05),
    "all pairs of 100 queries": World(100, 10, 0.2),
}


def _beta(rng: np.random.Generator, mean: float, correlation: float, size: int) -> Floats:
    strength = 1 / correlation - 1
    return rng.beta(mean * strength, (1 - mean) * strength, size)


def covered(world: World, repeats: int, seed: int = 0) -> dict[str, float]:
    """Return by measure the share of intervals that hold the true value, where the measure is defined."""
    rng = np.random.default_rng(seed)
    held, defined = dict.fromkeys(world.truth, 0), dict.fromkeys(world.truth, 0)
    for repeat in range(repeats):
        for name, (value, low, high) in world.measure(rng, repeat).items():
            if value is not None and low is not None and high is not None:
                defined[name] += 1
                held[name] += low <= world.truth[name] <= high
    return {name: held[name] / max(1, defined[name]) for name in held}


def auc_covered(queries: int, repeats: int, seed: int = 0) -> float:
    """Return the share of intervals that hold the AUC, where scores and relevance of a query's 10 pairs are alike."""
    rng = np.random.default_rng(seed)

    def pairs(many: int) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        query = np.repeat(np.arange(many), 10)
        relevant = rng.random(len(query)) < _beta(rng, 0.3, CORRELATION, many)[query]
        return relevant + rng.normal(size=many)[query] + rng.normal(size=len(query)), relevant, query

    scores, relevant, _ = pairs(50_000)
    order = np.argsort(np.argsort(scores)) + 1.0
    positives = relevant.sum()
    truth = (order[relevant].sum() - positives * (positives + 1) / 2) / (positives * (len(scores) - positives))
    held = 0
    for _ in range(repeats):
        scores, relevant, query = pairs(queries)
        _, low, high = auc_interval(scores, relevant, query.tolist())
        held += low is not None and high is not None and low <= truth <= high
    return held / repeats


def rows(repeats: int) -> Iterator[str]:
    """Write the table of docs/experiments.md."""
    names = ("share", "precision", "recall", "kappa", "groups")
    yield f"| world | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for name, world in WORLDS.items():
        found = covered(world, repeats)
        yield f"| {name} | " + " | ".join(f"{found[one]:.3f}" if one in found else "" for one in names) + " |"
    for queries in (8, 20, 100):
        yield f"| AUC, {queries} queries | {auc_covered(queries, repeats):.3f} | | | | |"


if __name__ == "__main__":
    for row in rows(500):
        print(row, flush=True)  # noqa: T201 - a script
