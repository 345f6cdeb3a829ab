"""Measure a cascade of real judges on TREC DL 2019: open rerankers on all pairs, GPT-4o on a share of them.

    python -m benchmarks.cascade [--data ../shared/data/trec_dl19] [--quick]

The verdicts come from `judges.tsv.gz`, the pairs are BM25's judged candidates; relevant means grade 2 and above. No
judge is run. Everything is fitted with `tasks.verdicts.combiner`, the one that curations use.

For each of 20 splits of the queries into 10 folds, each fold is decided by what the other nine (its training folds)
teach. Chosen inside the training folds only, by groups of folds within them: which open judges are fused, by which rule
pairs are chosen for GPT-4o (both by the Brier score), and the threshold (by kappa). Then the combiner is fitted on the
nine folds and used on the tenth. A figure is the mean over the splits, and its interval draws queries (95%), paired
where two are compared. Writes benchmarks/results/cascade.json.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.verdicts.combiner import CombineConfig, fit_combiner
from tasks.verdicts.features import score_column
from tasks.verdicts.fitting.figures import Scored, auc, draw_counts, ece
from tasks.verdicts.fitting.folds import Bools, Floats, Ints

RESULT = Path(__file__).parent / "results" / "cascade.json"
STRONG = "gpt4o_umbrela"
OPEN = ("monot5_base", "monot5_3b", "rank1_3b", "rank1_7b", "rank1_14b", "rankllama_v1_7b_lora_passage")
FUSED = ("monot5_base", "rank1_3b")  # small enough for one small GPU
CHOICES = (("rank1_3b",), FUSED, OPEN)
ASKING = ("near the threshold", "near one half", "highest", "expected change")
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
TARGET = 0.2
SPLITS, FOLDS, DRAWS = 20, 10, 1000
TOGETHER = 2  # folds that form a group; choices inside the training folds leave out whole groups
RELEVANT_FROM = 2
GRADES = 4
GRID = np.round(np.arange(0.05, 0.96, 0.01), 2)
_PAIR = ["dataset", "query_id", "doc_id"]
_BINS = 15  # of P, for the expected change


@dataclass(frozen=True)
class Rule:
    """Which open judges are fused, and how the pairs for the strong judge are chosen."""

    judges: tuple[str, ...]
    asking: str


@dataclass
class Chances:
    """P(relevant) by fits that left out the folds named in the key: without, and with the strong judge's answer."""

    before: dict[tuple[frozenset[int], tuple[str, ...]], Floats] = field(default_factory=dict)
    after: dict[tuple[frozenset[int], tuple[str, ...]], Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Decided:
    """One way's result on all pairs of a split, each by a fit on other folds: P, decisions, and what was asked."""

    p: Floats
    called: Bools
    asked: Bools
    chosen: tuple[str, ...]


def read_pairs(data: Path) -> pl.DataFrame:
    """Read the pairs: dataset, query_id, doc_id, rank, relevant, and a score in 0..1 for each judge."""
    judges = pl.read_csv(
        gzip.open(data / "judges.tsv.gz").read(),
        separator="\t",
        schema_overrides={"query_id": pl.String, "doc_id": pl.String},
    )
    with gzip.open(data / "candidates.jsonl.gz", "rt") as lines:
        rows = [
            (row["query_id"], one["docid"], one["rank"]) for row in map(json.loads, lines) for one in row["candidates"]
        ]
    found = pl.DataFrame(rows, {"query_id": pl.String, "doc_id": pl.String, "rank": pl.Int32}, orient="row")
    raw = pl.col("rankllama_v1_7b_lora_passage")
    scores = {
        **{name: pl.col(name) for name in OPEN},
        "rankllama_v1_7b_lora_passage": 1 / (1 + (-raw).exp()),
        STRONG: (pl.col(STRONG) + 0.5) / GRADES,  # the order alone counts, as a map is fitted
    }
    return (
        judges.join(found, on=["query_id", "doc_id"])
        .select(
            pl.lit("trec_dl19").alias("dataset"),
            "query_id",
            "doc_id",
            "rank",
            (pl.col("grade") >= RELEVANT_FROM).alias("relevant"),
            *(value.cast(pl.Float64).alias(score_column(name)) for name, value in scores.items()),
        )
        .sort(_PAIR)
    )


def split(queries: npt.NDArray[Any], seed: int) -> Ints:
    """Give each pair the fold of its query; queries are shuffled and dealt out."""
    names, place = np.unique(queries, return_inverse=True)
    fold = np.empty(len(names), dtype=np.int64)
    fold[np.random.default_rng(seed).permutation(len(names))] = np.arange(len(names)) % FOLDS
    return np.asarray(fold[place], dtype=np.int64)


def fit_chances(pairs: pl.DataFrame, fold: Ints, choices: Sequence[tuple[str, ...]]) -> Chances:
    """Fit on all folds but one, and on all but two groups, and score every pair; only what was left out is read."""
    found = Chances()
    wide, strong = pairs.drop("relevant"), score_column(STRONG)
    labels = pairs.select(*_PAIR, "relevant")
    left_out = [frozenset({one}) for one in range(FOLDS)]
    left_out += [group(one) | group(two) for one, two in combinations(range(0, FOLDS, TOGETHER), 2)]
    for out in left_out:
        known = labels.filter(~np.isin(fold, sorted(out)))
        for judges in choices:
            both = (*judges, STRONG)
            config = CombineConfig(tiers=both, sets=(judges, both), partial=(STRONG,))
            combiner = fit_combiner(config, wide=wide, labels=known)
            found.before[out, judges] = combiner.predict(wide.drop(strong)).to_numpy()
            found.after[out, judges] = combiner.predict(wide).to_numpy()
    return found


def group(fold: int) -> frozenset[int]:
    """Return the folds of a fold's group."""
    first = fold - fold % TOGETHER
    return frozenset(range(first, first + TOGETHER))


def decide_split(pairs: pl.DataFrame, seed: int) -> dict[str, Decided]:
    """Decide all pairs of one split: `strong`, `fused`, `open`, and a cascade for each share."""
    fold, relevant = split(pairs["query_id"].to_numpy(), seed), pairs["relevant"].to_numpy()
    choices = tuple(dict.fromkeys([*CHOICES, FUSED, ()]))
    chances = fit_chances(pairs, fold, choices)
    rules = [Rule(*one) for one in product(CHOICES, ASKING)]
    ways: dict[str, tuple[list[Rule], float]] = {
        "strong": ([Rule((), "highest")], 1.0),
        "fused": ([Rule(FUSED, "highest")], 0.0),
        **{
            f"{share:g}": (rules if 0 < share < 1 else [Rule(j, "highest") for j in CHOICES], share) for share in SHARES
        },
    }
    return {name: run_way(chances, fold, relevant, *way) for name, way in ways.items()}


def run_way(chances: Chances, fold: Ints, relevant: Bools, rules: Sequence[Rule], share: float) -> Decided:
    """Decide each fold by the rule and threshold that its training folds choose."""
    p, called = np.full(len(fold), np.nan), np.zeros(len(fold), dtype=bool)
    asked, chosen = np.zeros(len(fold), dtype=bool), []
    for out in range(FOLDS):
        found = []
        for rule in rules:
            inner = Inner.of(chances, fold, relevant, rule, out)
            training = ~np.isnan(inner.before)
            mixed = np.where(inner.ask(inner.before, fold, share), inner.after, inner.before)
            loss = float(np.mean((mixed[training] - relevant[training]) ** 2))
            found.append((loss, best_threshold(mixed[training], relevant[training]), rule, inner))
        _, threshold, rule, inner = min(found, key=lambda one: one[0])
        key, rows = (frozenset({out}), rule.judges), fold == out
        mask = inner.ask(np.where(rows, chances.before[key], np.nan), fold, share)
        asked |= mask
        p[rows] = np.where(mask, chances.after[key], chances.before[key])[rows]
        called[rows] = p[rows] >= threshold
        chosen.append(f"{' + '.join(rule.judges) or 'none'} / {rule.asking}")
    return Decided(p, called, asked, tuple(chosen))


@dataclass(frozen=True)
class Inner:
    """What the training folds of one fold know of a rule: P of their pairs, each by a fit on the others.

    before, after: shape (pairs,), NaN in the fold that is left out. threshold: the best for `before`. change: knots of
    the mean squared change of P by the strong judge's answer, against P before it.
    """

    rule: Rule
    before: Floats
    after: Floats
    threshold: float
    change: tuple[Floats, Floats]

    @classmethod
    def of(cls, chances: Chances, fold: Ints, relevant: Bools, rule: Rule, out: int) -> "Inner":
        """Collect it for the fold `out`; no label of that fold is in any fit or choice."""
        before, after = np.full(len(fold), np.nan), np.full(len(fold), np.nan)
        for inner in set(range(FOLDS)) - group(out):
            key, rows = (group(out) | group(inner), rule.judges), fold == inner
            before[rows], after[rows] = chances.before[key][rows], chances.after[key][rows]
        used = ~np.isin(fold, sorted(group(out)))
        order = np.array_split(np.flatnonzero(used)[np.argsort(before[used], kind="stable")], _BINS)
        middle = np.array([before[rows].mean() for rows in order])
        change = np.array([((after[rows] - before[rows]) ** 2).mean() for rows in order])
        return cls(rule, before, after, best_threshold(before[used], relevant[used]), (middle, change))

    def ask(self, before: Floats, fold: Ints, share: float) -> Bools:
        """Choose the pairs to ask about, exactly the share of each fold whose P is given (the others are NaN)."""
        priority = {
            "near the threshold": -np.abs(before - self.threshold),
            "near one half": -np.abs(before - 0.5),
            "highest": before,
            "expected change": np.interp(before, *self.change),
        }[self.rule.asking]
        asked = np.zeros(len(before), dtype=bool)
        for one, quota in enumerate(quotas(fold, share)):
            rows = np.flatnonzero((fold == one) & ~np.isnan(before))
            asked[rows[np.argsort(-priority[rows], kind="stable")[:quota]]] = True
        return asked


def quotas(fold: Ints, share: float) -> list[int]:
    """Return how many pairs of each fold are asked about; together they are the share of all, rounded once."""
    ends = np.rint(share * np.concatenate([[0], np.cumsum(np.bincount(fold, minlength=FOLDS))]))
    return [int(size) for size in np.diff(ends)]


def best_threshold(p: Floats, relevant: Bools) -> float:
    """Return the threshold with the best kappa, each taken as the mean over its four neighbours and itself."""
    values = np.array([kappa(confusion(p >= one, relevant)[None, :])[0] for one in GRID])
    smooth = np.convolve(np.pad(values, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    return float(GRID[int(np.argmax(smooth))])


def confusion(called: Bools, relevant: Bools) -> Floats:
    """Count called and relevant, called only, relevant only, neither: shape (4,)."""
    return np.array(
        [
            (called & relevant).sum(),
            (called & ~relevant).sum(),
            (~called & relevant).sum(),
            (~called & ~relevant).sum(),
        ],
        dtype=np.float64,
    )


def kappa(cells: Floats) -> Floats:
    """Return Cohen's kappa of each row of counts, shape (rows, 4) -> (rows,)."""
    a, b, c, d = cells.T / cells.sum(axis=1)
    chance = (a + b) * (a + c) + (c + d) * (b + d)
    return np.asarray((a + d - chance) / np.maximum(1 - chance, 1e-12))


@dataclass
class Measured:
    """Figures of one way: the mean over splits, and the same for each draw of queries."""

    value: dict[str, float]
    drawn: dict[str, Floats]

    @classmethod
    def of(cls, runs: Sequence[Decided], pairs: pl.DataFrame, counts: Floats) -> "Measured":
        relevant, query = pairs["relevant"].to_numpy(), pairs["query_id"].to_numpy()
        place = np.unique(query, return_inverse=True)[1]
        names = ("kappa", "auc", "brier", "ece")
        value: dict[str, list[float]] = {name: [] for name in names}
        drawn: dict[str, list[Floats]] = {name: [] for name in names[:3]}
        for run in runs:
            cells = np.array([confusion(run.called[place == q], relevant[place == q]) for q in range(place.max() + 1)])
            error = np.bincount(place, (run.p - relevant) ** 2)
            size = np.bincount(place)
            scored = Scored(run.p, relevant, query, np.ones(len(query)))
            value["kappa"].append(float(kappa(cells.sum(axis=0)[None, :])[0]))
            value["auc"].append(auc(scored))
            value["brier"].append(float(error.sum() / size.sum()))
            value["ece"].append(ece(scored))
            drawn["kappa"].append(kappa(counts @ cells))
            drawn["brier"].append((counts @ error) / (counts @ size))
            drawn["auc"].append(np.array([auc(Scored(run.p, relevant, query, row[place])) for row in counts]))
        return cls(
            {name: float(np.mean(values)) for name, values in value.items()},
            {name: np.mean(values, axis=0) for name, values in drawn.items()},
        )

    def shown(self, baseline: "Measured | None" = None) -> dict[str, Any]:
        """Return figures with intervals, and the difference to a baseline on the same draws."""
        found: dict[str, Any] = {name: round(value, 4) for name, value in self.value.items()}
        found |= {f"{name}_interval": interval(values) for name, values in self.drawn.items()}
        if baseline is not None:
            found["minus_strong_alone"] = {
                name: {
                    "value": round(self.value[name] - baseline.value[name], 4),
                    "interval": interval(values - baseline.drawn[name]),
                }
                for name, values in self.drawn.items()
            }
        return found


def interval(values: Floats) -> list[float]:
    return [round(float(one), 4) for one in np.quantile(values, [0.025, 0.975])]


def measure(pairs: pl.DataFrame, splits: int, draws: int, workers: int) -> dict[str, Any]:
    """Decide all splits and return the figures."""
    if workers > 1:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:  # polars' threads do not survive a fork
            runs = []
            for run in pool.map(decide_split, [pairs] * splits, range(splits)):
                runs.append(run)
                print(f"split {len(runs)} of {splits}", file=sys.stderr, flush=True)
    else:
        runs = [decide_split(pairs, seed) for seed in range(splits)]
    counts = draw_counts(pairs["query_id"].to_numpy(), 0, draws)
    found = {name: Measured.of([run[name] for run in runs], pairs, counts) for name in runs[0]}
    base = float(pairs["relevant"].mean())  # type: ignore[arg-type]
    raw = Scored(
        pairs[score_column(STRONG)].to_numpy(),
        pairs["relevant"].to_numpy(),
        pairs["query_id"].to_numpy(),
        np.ones(pairs.height),
    )
    strong = found["strong"]
    curve = [
        {
            "share": share,
            "asked_share": asked_share([run[f"{share:g}"] for run in runs]),
            **found[f"{share:g}"].shown(strong),
            "chosen": tally([run[f"{share:g}"] for run in runs]),
        }
        for share in SHARES
    ]
    return {
        "pairs": pairs.height,
        "queries": pairs["query_id"].n_unique(),
        "prevalence": round(base, 4),
        "brier_base_rate": round(base * (1 - base), 4),
        "strong_alone": {"judge": STRONG, **strong.shown(), "auc_of_grade": round(auc(raw), 4)},
        "cascade": curve[SHARES.index(TARGET)],
        "open_alone": curve[0],
        "fused": {"judges": list(FUSED), **found["fused"].shown(strong)},
        "curve": curve,
    }


def asked_share(runs: Sequence[Decided]) -> float:
    shares = {float(run.asked.mean()) for run in runs}
    assert len(shares) == 1, f"the same share in each split expected, got {sorted(shares)}"
    return round(shares.pop(), 4)


def tally(runs: Sequence[Decided]) -> dict[str, int]:
    """Count how many folds chose each rule."""
    names = [name for run in runs for name in run.chosen]
    return {name: names.count(name) for name in sorted(set(names), key=lambda one: (-names.count(one), one))}


def conditions(result: Mapping[str, Any]) -> dict[str, bool]:
    """Check the numbers that were asked for."""
    cascade, strong = result["cascade"], result["strong_alone"]
    return {
        "kappa at most 0.01 below the strong judge alone": cascade["kappa"] >= strong["kappa"] - 0.01,
        "auc above the strong judge's": cascade["auc"] > max(strong["auc"], strong["auc_of_grade"]),
        "ece at most 0.05": cascade["ece"] <= 0.05,
        "brier below the base rate's": cascade["brier"] < result["brier_base_rate"],
    }


def table(result: Mapping[str, Any]) -> str:
    """Return the figures as text."""
    rows = [("GPT-4o alone", result["strong_alone"]), (" + ".join(FUSED), result["fused"])]
    rows += [(f"cascade, {100 * one['share']:g}% asked", one) for one in result["curve"]]
    lines = [
        f"{'':28}{'kappa':>7} {'interval':>15} {'- GPT-4o':>9} {'interval':>17} {'AUC':>6} {'ECE':>6} {'Brier':>6}"
    ]
    for name, one in rows:
        low, high = one["kappa_interval"]
        gap = one.get("minus_strong_alone", {}).get("kappa")
        beside = f"{gap['value']:+9.3f} ({gap['interval'][0]:+.3f}, {gap['interval'][1]:+.3f})" if gap else " " * 27
        lines.append(
            f"{name:28}{one['kappa']:7.3f} ({low:.3f}, {high:.3f}) {beside}"
            f" {one['auc']:6.3f} {one['ece']:6.3f} {one['brier']:6.3f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/trec_dl19"), help="folder of the collection")
    parser.add_argument("--quick", action="store_true", help="two splits and few draws; writes no result")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    asked = parser.parse_args()
    splits, draws = (2, 100) if asked.quick else (SPLITS, DRAWS)
    found = measure(read_pairs(asked.data), splits, draws, asked.workers)
    result = {
        "command": "python -m benchmarks.cascade" + (" --quick" if asked.quick else ""),
        "seeds": list(range(splits)),
        "folds": FOLDS,
        "draws": draws,
        "relevant_from_grade": RELEVANT_FROM,
        "judges_to_choose_from": [list(one) for one in CHOICES],
        "asking_to_choose_from": list(ASKING),
        **found,
    }
    result["conditions"] = conditions(result)
    print(table(result))
    for name, reached in result["conditions"].items():
        print(f"{'reached' if reached else 'MISSED':8} {name}")
    if not asked.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(result["conditions"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
