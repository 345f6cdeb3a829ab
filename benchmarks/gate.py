"""Measure the promotion gate by simulation: how often it promotes without a gain, and how often with one.

A release is made of scores of two systems over five datasets (900 queries and four times 50), with three sources of
chance: queries (standard deviation of their differences 0.1, or a skewed kind: nine of ten do not change), seeds (each
trained model is off by a normal number of deviation 0.006 on all queries, and by 0.003 on each dataset), and queries
within seeds (0.05). The gate's own functions decide: the difference over all queries, and the bound of each dataset.

- `former rule`: one seed, the 95% interval of a bootstrap of queries (here its normal form), no bound for a dataset.
- `no gain`: the false promotions; `score` counts the test over all queries alone. `one noisy system`: only one of the
  two systems has seed noise, ten times as much noise, and other cases in which the quantiles could be too small.
- `a week without gain`: seven nights on the same queries, each trained anew; a promotion in any of them counts.
- `one dataset worse`: 0.05 better on the large dataset, worse by the given number on one of 50 queries.
- `better`: better everywhere by the given number: the power, in the first night.
- `as good as the release`: no difference over all queries, by the rule for the current release.

`quantiles` compares two bounds without a gain: the gate's (a quantile for the variance of queries and one for that of
seeds), and one quantile for their sum by Satterthwaite's degrees of freedom. Both are shares of the level, which should
be at most 1.

    python -m benchmarks.gate

writes benchmarks/results/gate.json.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit
from scipy.stats import binomtest

from tasks.training.gate.checks import check_differences
from tasks.training.gate.differences import Difference, difference_of, level_of_night
from tasks.training.promote import PromoteConfig

RESULT = Path(__file__).parent / "results" / "gate.json"
REPETITIONS = 1_000
SIZES: Mapping[str, int] = {"large": 900, "a": 50, "b": 50, "c": 50, "d": 50}
_NOMINAL = PromoteConfig().alpha
_Z = 1.96

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """How scores come about. gains: by dataset. noise: of seeds, of the treatment's and of the baseline's trainings."""

    gains: Mapping[str, float]
    sizes: Mapping[str, int]
    seeds: int = 3
    noise: tuple[float, float] = (0.006, 0.006)
    of_dataset: float = 0.003
    of_query: float = 0.1
    within: float = 0.05
    skewed: bool = False

    def draw_queries(self, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw by how much the treatment changes each query, whatever the seed."""
        return {name: self.gains.get(name, 0.0) + self._spread(rng, size) for name, size in self.sizes.items()}

    def _spread(self, rng: np.random.Generator, size: int) -> Floats:
        if not self.skewed:
            return rng.normal(0, self.of_query, size)
        # One of ten loses much or, less, wins: mean 0, long tail of losses.
        changed = rng.random(size) < 0.1
        return np.where(changed, 0.3 - rng.exponential(0.3, size), 0.0)

    def compare(self, rng: np.random.Generator, queries: Mapping[str, Floats]) -> list[Difference]:
        """Train both systems with their seeds, and compare all queries together and each dataset."""
        offs = [rng.normal(0, noise, self.seeds) for noise in self.noise]
        scores = [
            {
                name: (off + rng.normal(0, self.of_dataset * bool(noise), self.seeds))[None]
                + rng.normal(0, self.within, (size, self.seeds))
                for name, size in self.sizes.items()
            }
            for off, noise in zip(offs, self.noise, strict=True)
        ]
        treatment = {name: scores[0][name] + queries[name][:, None] for name in self.sizes}
        every = [np.concatenate(list(side.values())) for side in (treatment, scores[1])]
        single = [difference_of(name, treatment[name], scores[1][name]) for name in self.sizes]
        return [difference_of("all datasets", *every), *(single if len(single) > 1 else [])]


def decide(found: list[Difference], config: PromoteConfig, night: int, *, released: bool) -> dict[str, bool]:
    """Apply the gate: whether it promotes, and whether the test over all queries alone would."""
    level = level_of_night(config.alpha, night, config.nights)
    rule = config.release_rule(level) if released else config.rule(level)
    checks = check_differences(rule, found)
    return {"promoted": all(check.passed is not False for check in checks), "score": bool(checks[0].passed)}


def decide_formerly(found: list[Difference]) -> dict[str, bool]:
    """Apply the former rule: the 95% interval over queries alone is above 0."""
    low = found[0].difference - _Z * found[0].of_queries ** 0.5
    return {"promoted": low > 0, "score": low > 0}


def simulate(
    name: str, world: World, repetitions: int, *, nights: int = 1, old: bool = False, released: bool = False
) -> dict[str, Any]:
    """Repeat a world; with several nights, count the repetitions in which any of them promotes.

    old: by the former rule. released: the baseline is the current release.
    """
    rng, config = np.random.default_rng(0), PromoteConfig()
    counts = {"promoted": 0, "score": 0}
    for _ in range(repetitions):
        queries = world.draw_queries(rng)
        said = []
        for night in range(1, nights + 1):
            found = world.compare(rng, queries)
            said.append(decide_formerly(found) if old else decide(found, config, night, released=released))
        for key in counts:
            counts[key] += any(each[key] for each in said)
    interval = binomtest(counts["promoted"], repetitions).proportion_ci(0.95, method="exact")
    return {
        "name": name,
        "seeds": world.seeds,
        "queries": sum(world.sizes.values()),
        "repetitions": repetitions,
        "promoted": counts["promoted"] / repetitions,
        "interval": [round(float(interval.low), 4), round(float(interval.high), 4)],
        "score": counts["score"] / repetitions,
    }


def measure(repetitions: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of each case."""
    still = World({}, SIZES)
    for size in (600, 900, 1_500):
        alone = replace(still, sizes={"large": size}, seeds=1)
        yield simulate("former rule, no gain", alone, repetitions, old=True)
    lost = replace(still, gains={"large": 0.05, "a": -0.499})
    yield simulate("former rule, +0.05 on 900 queries and -0.499 on 50", replace(lost, seeds=1), repetitions, old=True)
    odd = {
        "no gain": still,
        "no gain, 5 seeds": replace(still, seeds=5),
        "no gain, skewed queries": replace(still, skewed=True),
        "no gain, one dataset": replace(still, sizes={"large": 900}),
        "no gain, 50 queries": replace(still, sizes={"large": 50}),
        "no gain, one noisy system": replace(still, noise=(0.06, 0.0)),
        "no gain, noisy seeds": replace(still, noise=(0.06, 0.06)),
    }
    for name, world in odd.items():
        yield simulate(name, world, repetitions)
    yield simulate("a week without gain", still, repetitions, nights=7)
    yield simulate("+0.05 on 900 queries and -0.499 on 50", lost, repetitions)
    for loss in (0.05, 0.1):
        world = replace(still, gains=dict.fromkeys(SIZES, 0.05) | {"a": -loss})
        yield simulate(f"one dataset worse by {loss}", world, repetitions)
    for seeds in (3, 5):
        for gain in (0.02, 0.03, 0.05):
            world = replace(still, gains=dict.fromkeys(SIZES, gain), seeds=seeds)
            yield simulate(f"better by {gain}", world, repetitions)
        for loss in (0.0, 0.05, 0.1):
            world = replace(still, gains={"a": -loss}, seeds=seeds)
            name = f"as good as the release, one dataset worse by {loss}" if loss else "as good as the release"
            yield simulate(name, world, repetitions, released=True)
        world = replace(still, gains=dict.fromkeys(SIZES, -PromoteConfig().release_margin), seeds=seeds)
        yield simulate("worse than the release by its margin", world, repetitions, released=True)


def compare_quantiles(draws: int) -> list[dict[str, Any]]:
    """Return how often two bounds show a gain that is none, as a share of the level; three seeds, 900 queries."""
    rng, found = np.random.default_rng(0), []
    queries, seeds, of_queries = 900, 3, 0.1**2 / 900
    for noise in ((0.003, 0.003), (0.006, 0.006), (0.006, 0.0), (0.02, 0.02), (0.02, 0.0)):
        offs = [rng.normal(0, each, (draws, seeds)) for each in noise]
        gains = rng.normal(0, of_queries**0.5, draws) + offs[0].mean(axis=1) - offs[1].mean(axis=1)
        v_q = of_queries * rng.chisquare(queries - 1, draws) / (queries - 1)
        parts = [off.var(axis=1, ddof=1) / seeds for off in offs]
        v_s, squares = sum(parts), sum(part**2 for part in parts) / (seeds - 1)
        sum_of_both = v_q + v_s
        freedom = sum_of_both**2 / (v_q**2 / (queries - 1) + squares)
        of_seeds = v_s**2 / squares
        for level in (0.0125, 0.001):
            one = -stdtrit(freedom, level) * sum_of_both**0.5
            two = (stdtrit(queries - 1, level) ** 2 * v_q + stdtrit(of_seeds, level) ** 2 * v_s) ** 0.5
            shares = {"satterthwaite": (gains > one).mean() / level, "gate": (gains > two).mean() / level}
            found.append({"noise": noise, "level": level} | {name: round(float(x), 2) for name, x in shares.items()})
    return found


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    cases = []
    for case in measure(given.repetitions):
        cases.append(case)
        print(json.dumps(case), flush=True)
    quantiles = compare_quantiles(200 * given.repetitions)
    print(json.dumps(quantiles))
    result = {
        "command": "python -m benchmarks.gate",
        "nominal": _NOMINAL,
        "sizes": dict(SIZES),
        "cases": cases,
        "quantiles": quantiles,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
