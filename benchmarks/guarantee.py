"""Check the guarantee of a cascade: how often its targets are missed, and how much it asks, over many seeded draws.

    python -m benchmarks.guarantee           # minutes on two cores
    python -m benchmarks.guarantee --quick   # 40 repetitions, results are printed only

In each repetition a pool is drawn (scores of one shape, verdicts of the oracle), an audit sample is drawn from it, and
the thresholds are chosen by the functions that a curation uses. A repetition failed if the true recall or the true
precision of the final set is below its target. On TREC DL 2019 the pool is fixed (3,983 pairs; oracle: GPT-4o, grade 2
or 3 of the UMBRELA prompt), so that only the audit sample differs. Without the file this shape is left out.

Shapes with P(relevant) from Beta(a, b) are calibrated: the oracle says relevant with exactly the chance P. Beta(0.01,
1) is SUPG's. `informative` has one relevant pair in ten. `hidden` is `informative` with 7% of the relevant pairs moved
to scores drawn from those of irrelevant ones, so that recall 0.95 cannot be had by the scores. `floor` is the share of
pairs that somebody who knew all verdicts would still have to ask about to keep the targets with two thresholds.

Writes benchmarks/results/guarantee.json. `covered`: in how many repetitions both bounds that were reported as reached
held. The intervals of `failed_share` and `covered_share` are exact binomial (Clopper and Pearson), 95%.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from tasks.verdicts.guarantee.bounds import Floats
from tasks.verdicts.guarantee.thresholds import Bools, Counts, Target, choose, draw, reached

RESULT = Path(__file__).parent / "results" / "guarantee.json"
DL19 = Path(os.environ.get("RENEG_DATA", "../shared/data")) / "trec_dl19" / "judges.tsv.gz"
TARGET = Target(recall=0.95, precision=0.9, confidence=0.95)
LARGE, SMALL = 50_000, 20_000
REPETITIONS, ON_REAL, QUICK = 1000, 500, 40
HIDDEN = 0.07
JUDGES = ("rank1_3b", "rank1_14b", "monot5_base")

Pool = tuple[Floats, Bools]
Maker = Callable[[np.random.Generator], Pool]


def calibrated(a: float, b: float, size: int, rng: np.random.Generator) -> Pool:
    """Draw P from Beta(a, b), and verdicts that are relevant with chance P."""
    scores = rng.beta(a, b, size)
    return scores, rng.random(size) < scores


def useless(rng: np.random.Generator) -> Pool:
    """Draw scores that have nothing to do with the verdicts."""
    return rng.random(SMALL), rng.random(SMALL) < 0.1


def inverted(rng: np.random.Generator) -> Pool:
    """Draw an informative proxy that says the opposite."""
    scores, relevant = calibrated(0.05, 0.45, SMALL, rng)
    return 1.0 - scores, relevant


def hidden(rng: np.random.Generator) -> Pool:
    """Draw an informative proxy that takes some relevant pairs for the usual irrelevant ones."""
    scores, relevant = calibrated(0.05, 0.45, LARGE, rng)
    places = rng.permutation(np.flatnonzero(relevant))[: int(HIDDEN * relevant.sum())]
    scores[places] = rng.choice(scores[~relevant], places.size)
    return scores, relevant


SHAPES: Mapping[str, Maker] = {
    "informative": partial(calibrated, 0.05, 0.45, LARGE),
    "less informative": partial(calibrated, 0.1, 0.9, LARGE),
    "hidden": hidden,
    "useless": useless,
    "inverted": inverted,
    "1% prevalence": partial(calibrated, 0.01, 1.0, LARGE),
    "40% prevalence": partial(calibrated, 0.2, 0.3, SMALL),
}


@cache
def judged(judge: str) -> Pool:
    """Read what a published judge and GPT-4o said of the pairs of TREC DL 2019."""
    table = pl.read_csv(DL19, separator="\t")
    return table[judge].cast(pl.Float64).to_numpy(), (table["gpt4o_umbrela"] >= 2).to_numpy()


def trial(make: Maker, seed: int) -> dict[str, float]:
    """Draw a pool and its audit, choose the thresholds, ask what lies between them, and look at the truth."""
    rng = np.random.default_rng(seed)
    scores, relevant = make(rng)
    audit = draw(TARGET, scores, rng.random(scores.size))
    chosen = choose(TARGET, scores, audit, relevant & audit.drawn, np.zeros(scores.size, bool))
    accepted, rejected = chosen.sides(scores)
    asked = audit.drawn | ~(accepted | rejected)
    final = (asked & relevant) | (accepted & ~asked)
    recall = (final & relevant).sum() / relevant.sum()
    precision = (final & relevant).sum() / final.sum() if final.any() else 1.0
    counts = Counts(
        found=int((asked & relevant).sum()),
        accepted=int((accepted & ~asked).sum()),
        rejected=int((rejected & ~asked).sum()),
        found_rejected=int((audit.drawn & rejected & relevant).sum()),
        found_wrong=int((audit.drawn & accepted & ~relevant).sum()),
    )
    recall_bound, precision_bound = reached(TARGET, counts)
    return {
        "failed": float(recall < (TARGET.recall or 0) or precision < (TARGET.precision or 0)),
        "covered": float(recall >= recall_bound and precision >= precision_bound),
        "asked": float(asked.mean()),
        "audited": float(audit.drawn.mean()),
        "recall": float(recall),
        "precision": float(precision),
        "recall_bound": recall_bound,
        "precision_bound": precision_bound,
    }


def floor(scores: Floats, relevant: Bools) -> float:
    """Return the smallest share between two thresholds that keep the targets, found with all verdicts known."""
    order = np.argsort(scores, kind="stable")
    said = relevant[order]
    total, recall, precision = int(said.sum()), TARGET.recall or 1.0, TARGET.precision or 1.0
    missed = np.concatenate([[0], np.cumsum(said)])
    wrong = np.concatenate([[0], np.cumsum(~said[::-1])])
    rejects = int((missed <= (1 - recall) * total).sum()) - 1
    kept = total - int(missed[rejects])
    accepts = int((wrong <= (1 - precision) / precision * kept).sum()) - 1
    return max(0, scores.size - rejects - accepts) / scores.size


def describe(name: str, trials: list[dict[str, float]], pool: Pool) -> dict[str, object]:
    """Sum up the repetitions of one shape."""
    count, failed = len(trials), round(sum(t["failed"] for t in trials))
    covered = round(sum(t["covered"] for t in trials))
    mean = {key: round(float(np.mean([t[key] for t in trials])), 4) for key in trials[0]}
    return {
        "name": name,
        "pairs": pool[0].size,
        "prevalence": round(float(pool[1].mean()), 4),
        "auc": round(float(roc_auc_score(pool[1], pool[0])), 4),
        "repetitions": count,
        "failed": failed,
        "allowed": int((1 - TARGET.confidence) * count + 1e-9),
        "failed_share": _interval(failed, count),
        "covered": covered,
        "covered_share": _interval(covered, count),
        "asked_share": mean["asked"],
        "audited_share": mean["audited"],
        "asked_share_largest": round(max(t["asked"] for t in trials), 4),
        "floor": round(floor(*pool), 4),
        "mean": {key: mean[key] for key in ("recall", "precision", "recall_bound", "precision_bound")},
    }


def _interval(count: int, of: int) -> list[float]:
    found = binomtest(count, of).proportion_ci(0.95, method="exact")
    return [round(value, 4) for value in (count / of, float(found.low), float(found.high))]


def shapes(*, quick: bool, workers: int) -> Iterator[dict[str, object]]:
    """Yield the figures of each shape."""
    makers = {name: (make, REPETITIONS) for name, make in SHAPES.items()}
    if DL19.exists():
        makers |= {f"dl19 {judge}": (partial(_fixed, judge), ON_REAL) for judge in JUDGES}
    with ProcessPoolExecutor(workers) as pool:
        for name, (make, repetitions) in makers.items():
            seeds = range(QUICK if quick else repetitions)
            trials = list(pool.map(partial(trial, make), seeds, chunksize=10))
            yield describe(name, trials, make(np.random.default_rng(0)))


def _fixed(judge: str, _rng: np.random.Generator) -> Pool:
    return judged(judge)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions; nothing is written")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    started, found = perf_counter(), []
    for shape in shapes(quick=given.quick, workers=given.workers):
        found.append(shape)
        print(json.dumps(shape), flush=True)
    result = {
        "command": "python -m benchmarks.guarantee",
        "recall": TARGET.recall,
        "precision": TARGET.precision,
        "confidence": TARGET.confidence,
        "seconds": round(perf_counter() - started, 1),
        "shapes": found,
    }
    if not given.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
