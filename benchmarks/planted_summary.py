"""Summarise the cells of `benchmarks.planted`: means, differences with intervals, what could be detected, and a plot.

A difference is paired by query and seed. Queries of one conversation form a cluster. The interval is that of the
product (`tasks.training.compare.crossed_interval`: clusters crossed with seeds), at 1 - 0.05 / m (Bonferroni). Two
treatments were named before the trial as those that it is about (`PRIMARY`): for them m is 2. For each of the others m
is the number of all treatments.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from markupsafe import Markup

from tasks.formatting import signed
from tasks.report import plots
from tasks.training.compare import crossed_interval

Floats = npt.NDArray[np.float64]

BASELINE = "default"
PRIMARY = ("relabel_oracle", "relabel_judges")
LEVEL, POWER = 0.05, 0.8
# Mean nDCG@10 over BEIR-16 of E5-base in table 3 of the paper (stage 2), where it has the treatment.
PAPER = {
    "default": 0.508,
    "topk_percpos": 0.511,
    "distillation": 0.514,
    "remove": 0.506,
    "remove_hn": 0.511,
    "relabel_judges": 0.515,
}
_STYLE = """
svg { font-family: "Liberation Sans", Arial, sans-serif; font-size: 11px; background: #fff; }
text { fill: #59616b; } .name { fill: #1c2127; font-weight: 600; } .value { fill: #1c2127; }
.head { font-size: 13px; font-weight: 700; fill: #1c2127; }
.grid { stroke: #ecebe5; } .zero { stroke: #1c2127; } .whisker { stroke-width: 2; }
.relevant { stroke: #0068a8; fill: #0068a8; } .unsure { stroke: #c2620c; fill: #c2620c; }
.neutral { stroke: #8b929b; fill: #8b929b; }
"""


def matrix(scores: pl.DataFrame, groups: pl.DataFrame) -> tuple[Floats, list[int]]:
    """Return one number per cluster and seed, and the seeds; the mean of all numbers is the mean over queries.

    scores: query_id, seed, value; a query without all seeds is left out. groups: query_id, group.
    """
    seeds = sorted(scores["seed"].unique())
    whole = scores.filter(pl.len().over("query_id") == len(seeds)).join(groups, on="query_id")
    queries, clusters = whole["query_id"].n_unique(), whole["group"].n_unique()
    sums = whole.group_by("group", "seed").agg(pl.col("value").sum()).sort("group", "seed")
    return sums["value"].to_numpy().reshape(clusters, len(seeds)) * clusters / queries, seeds


def difference(scores: pl.DataFrame, groups: pl.DataFrame, treatment: str, count: int) -> dict[str, Any]:
    """Compare a treatment with the baseline; the interval is corrected for so many comparisons."""
    sides = [
        scores.filter(pl.col("treatment") == name).select("query_id", "seed", value)
        for name, value in ((treatment, pl.col("value").alias("here")), (BASELINE, pl.col("value").alias("there")))
    ]
    paired = sides[0].join(sides[1], on=["query_id", "seed"]).with_columns(value=pl.col("here") - pl.col("there"))
    values, seeds = matrix(paired.select("query_id", "seed", "value"), groups)
    low, high, p_value = crossed_interval(values, 1 - LEVEL / count) or (None, None, None)
    return {
        "difference": round(float(values.mean()), 5),
        "low": None if low is None else round(low, 5),
        "high": None if high is None else round(high, 5),
        "p_value": None if p_value is None else round(p_value, 6),
        "excludes_zero": bool(low is not None and high is not None and (low > 0 or high < 0)),
        "queries": paired["query_id"].n_unique(),
        "seeds": len(seeds),
        "corrected_for": count,
    }


def comparisons(treatment: str, others: int) -> int:
    """Return for how many comparisons the interval of a treatment is corrected."""
    return len(PRIMARY) if treatment in PRIMARY else others


def compare(scores: pl.DataFrame, groups: pl.DataFrame, treatments: Sequence[str]) -> list[dict[str, Any]]:
    """Return the mean of each treatment, and its difference to the baseline; the highest mean first.

    Where not all cells are finished, only the queries and seeds that every treatment has are compared.
    """
    there = [name for name in treatments if name in set(scores["treatment"])]
    scores = scores.filter(pl.col("treatment").is_in(there))
    everywhere = pl.col("treatment").n_unique().over("query_id", "seed") == len(there)
    scores = scores.filter(everywhere) if scores.select(everywhere.any()).item() else scores
    others = [name for name in there if name != BASELINE]
    rows = []
    for name in there:
        mean = float(scores.filter(pl.col("treatment") == name)["value"].to_numpy().mean())
        row: dict[str, Any] = {"name": name, "ndcg10": round(mean, 5)}
        if name != BASELINE and BASELINE in there:
            row |= difference(scores, groups, name, comparisons(name, len(others)))
        rows.append(row)
    return sorted(rows, key=lambda row: -row["ndcg10"])


def detectable(scores: pl.DataFrame, groups: pl.DataFrame, comparisons: int) -> dict[str, Any]:
    """Return which mean difference would be found with a power of 80%, from runs of the baseline alone.

    `seeds_only`: if a treatment changed all queries alike, two trainings differ by their seeds alone. `with_queries`:
    if its effect also differs from query to query, as much as that of the training itself does (baseline minus the
    untrained model). The truth lies between them.
    """
    from scipy.stats import norm

    base, seeds = matrix(scores.filter(pl.col("treatment") == BASELINE).select("query_id", "seed", "value"), groups)
    centred = base - base.mean(axis=1, keepdims=True)
    of_seed = float(np.var(base.mean(axis=0), ddof=1))
    within = float((centred**2).sum() / (base.shape[0] * (base.shape[1] - 1)))
    noise = 2 * (of_seed / len(seeds) + within / base.size)
    untrained = scores.filter(pl.col("treatment") == "untrained").select("query_id", before="value").unique("query_id")
    changed = (
        scores.filter(pl.col("treatment") == BASELINE)
        .join(untrained, on="query_id")
        .select("query_id", "seed", value=pl.col("value") - pl.col("before"))
    )
    effect, _ = matrix(changed, groups)
    spread = float(np.var(effect.mean(axis=1), ddof=1)) / effect.shape[0]
    factor = float(norm.ppf(1 - LEVEL / comparisons / 2) + norm.ppf(POWER))
    return {
        "power": POWER,
        "level": f"{LEVEL} / {comparisons}",
        "seeds_only": round(factor * noise**0.5, 4),
        "with_queries": round(factor * (noise + spread) ** 0.5, 4),
        "sd_between_seeds_of_the_mean": round(of_seed**0.5, 5),
        "default_minus_untrained": round(float(effect.mean()), 4),
    }


def plot(collections: Sequence[Mapping[str, Any]]) -> str:
    """Draw the differences of each collection with their intervals side by side, as one SVG with its own style."""
    parts, height, left = Markup(""), 0.0, 0
    place = Markup('<g transform="translate({} 0)"><text x="8" y="16" class="head">{}</text>{}</g>')
    for one in collections:
        rows = [_row(row) for row in one["treatments"] if row.get("low") is not None]
        if not rows:
            continue
        base = next(row["ndcg10"] for row in one["treatments"] if row["name"] == BASELINE)
        title = f"{one['name']}: difference to default ({base:.3f})"
        picture = plots.intervals(rows, label=title, x_title="difference in nDCG@10, corrected 95% intervals")
        tall = 46.0 * len(rows) + 44
        size = Markup('<svg y="24" width="{}" height="{}"').format(plots.WIDTH, f"{tall:g}")
        parts += place.format(left, title, picture.replace("<svg", size))
        height, left = max(height, tall + 28), left + plots.WIDTH + 30
    start = Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1:g}" width="{0}">')
    frame = start + Markup("<style>{2}</style>{3}</svg>")
    return str(frame.format(max(left - 30, plots.WIDTH), height, Markup(_STYLE), parts)) + "\n"


def _row(row: Mapping[str, Any]) -> plots.Interval:
    return plots.Interval(
        label=row["name"],
        detail=f"{signed(row['difference'])}  [{signed(row['low'])}, {signed(row['high'])}]",
        value=row["difference"],
        low=row["low"],
        high=row["high"],
        is_clear=row["excludes_zero"],
    )


def order_beside_paper(treatments: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the treatments that the paper has too, in our order and in the paper's (E5-base, BEIR-16, stage 2)."""
    ours = [row["name"] for row in treatments if row["name"] in PAPER]
    return {"ours": ours, "paper": sorted(ours, key=lambda name: -PAPER[name])}


def verdicts(collections: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Tell which of the wanted results were reached."""

    def better(name: str) -> list[bool]:
        rows = [row for one in collections for row in one["treatments"] if row["name"] == name]
        found = [(row, row.get("by_shared_passages", row)) for row in rows]  # by both kinds of clusters
        return [bool(row["difference"] > 0 and row["excludes_zero"] and also["excludes_zero"]) for row, also in found]

    oracle, judges = better("relabel_oracle"), better("relabel_judges")
    return {
        "relabel_oracle beats default on both": len(oracle) > 1 and all(oracle),
        "relabel_judges beats default on at least one": any(judges),
    }


def write_plot(collections: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the plot."""
    path.write_text(plot(collections), encoding="utf-8")
