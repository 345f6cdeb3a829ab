"""Compare models that are trained on different data, over queries and training seeds.

A difference is measured for each held-out query and each seed. Both are samples, and both make the mean uncertain. The
interval covers other queries of the same kind and other seeds of the same training. With one seed it covers queries
only, and the page says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.formatting import markdown_table, signed
from tasks.statistics import CONFIDENCE, EQUAL, holm
from tasks.training.evaluate import ALL_DATASETS, MEASURES, Comparison

Floats = npt.NDArray[np.float64]

PAGE_FILE = "comparison.md"
SUMMARY_FILE = "comparison.json"

_QUERY = ["dataset", "measure", "query_id"]
_COVERS = {
    False: "queries and training seeds: other queries of the same kind, and other seeds of the same training",
    True: "queries only: one seed was trained, so how much another seed would change is not known",
}


class CompareConfig(BaseModel):
    """Which models are compared with which baseline.

    training: facts about the training for the page, such as steps and seeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = "Retraining"
    baseline: str = "default"
    models: tuple[str, ...] = ("relabel",)
    training: dict[str, str | int | float] = {}


def compare_models(config: CompareConfig, *, scores: pl.DataFrame, out: Path) -> dict[str, pl.DataFrame]:
    """Compare each model with the baseline; write `comparison.json` and `comparison.md` below `out`."""
    seeds = sorted(scores["seed"].unique())
    found = {name: compare_over_seeds(scores, config.baseline, name) for name in config.models}
    corrected = _correct(found)
    effects = {name: _effects(scores, config.baseline, name) for name in config.models}
    summary = {
        "title": config.title,
        "baseline": config.baseline,
        "training": config.training,
        "seeds": seeds,
        "interval_covers": _COVERS[len(seeds) == 1],
        "means": mean_scores(scores),
        "comparisons": {
            name: [
                {**asdict(c), "p_corrected": corrected[name, c], "effect": effects[name].get((c.dataset, c.measure))}
                for c in comparisons
            ]
            for name, comparisons in found.items()
        },
    }
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / PAGE_FILE).write_text(_page(config, summary), encoding="utf-8")
    return {}


def compare_over_seeds(scores: pl.DataFrame, baseline: str, model: str) -> list[Comparison]:
    """Compare two models over queries and seeds: all queries together, then each dataset if there are several.

    Only queries and seeds that both models have are compared. A query without all of these seeds is left out. Interval
    and p-value are those of a two-way random-effects analysis of the differences (queries crossed with seeds).
    """
    paired = _paired(scores, baseline, model)
    together = pl.concat_str("dataset", "query_id", separator="/")  # two datasets may use the same ids
    frames = [paired.with_columns(query_id=together, dataset=pl.lit(ALL_DATASETS))]
    if paired["dataset"].n_unique() > 1:
        frames.append(paired)
    return [
        _compare(group)
        for frame in frames
        for group in frame.sort("dataset", _order_of("measure"), "measure", "query_id", "seed").partition_by(
            "dataset", "measure", maintain_order=True
        )
    ]


def mean_scores(scores: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the mean score of each model and measure over all held-out queries, in total and by seed."""
    groups = scores.group_by("model", "measure").agg(pl.col("value").mean().alias("mean"))
    by_seed = scores.group_by("model", "measure", "seed").agg(pl.col("value").mean())
    rows = []
    for model, measure, mean in (
        groups.sort("model", _order_of("measure"), "measure").select("model", "measure", "mean").iter_rows()
    ):
        seeds = by_seed.filter(pl.col("model") == model, pl.col("measure") == measure).sort("seed")
        values = {str(seed): round(value, 6) for seed, value in seeds.select("seed", "value").iter_rows()}
        rows.append({"model": model, "measure": measure, "mean": round(mean, 6), "by_seed": values})
    return rows


def crossed_interval(differences: Floats, confidence: float = CONFIDENCE) -> tuple[float, float, float] | None:
    """Return low, high and the two-sided p-value of the mean of `differences`, shape (queries, seeds).

    None for one query, and if all differences are equal but not zero: such a sample does not show how queries vary.

    The variance of the mean is (MS of queries + MS of seeds - MS of the rest) / size. A negative component counts as
    zero. The degrees of freedom are Satterthwaite's. With few seeds that differ much the interval is wide.
    """
    from scipy import stats

    queries, seeds = differences.shape
    if queries < 2:  # noqa: PLR2004 - a single query has no spread
        return None
    mean = float(differences.mean())
    squares = [seeds * np.var(differences.mean(axis=1), ddof=1)]
    freedom = [queries - 1]
    signs = [1.0]
    if seeds > 1:
        by_seed = queries * np.var(differences.mean(axis=0), ddof=1)
        rest = differences - differences.mean(axis=1, keepdims=True) - differences.mean(axis=0, keepdims=True) + mean
        residual = (rest**2).sum() / ((queries - 1) * (seeds - 1))
        if by_seed > residual:
            squares += [by_seed, residual]
            freedom += [seeds - 1, (queries - 1) * (seeds - 1)]
            signs += [1.0, -1.0]
    variance = max(float(np.dot(signs, squares)), squares[0]) / differences.size
    if variance <= EQUAL**2:
        return None if abs(mean) > EQUAL else (0.0, 0.0, 1.0)
    terms = np.asarray(squares) / differences.size
    degrees = variance**2 / float((terms**2 / np.asarray(freedom)).sum())
    reach = float(stats.t.ppf((1 + confidence) / 2, degrees)) * variance**0.5
    p_value = 2 * float(stats.t.sf(abs(mean) / variance**0.5, degrees))
    return mean - reach, mean + reach, p_value


def _paired(scores: pl.DataFrame, baseline: str, model: str) -> pl.DataFrame:
    """Join queries and seeds that both models have, without gaps: `_QUERY`, seed, baseline, treatment, difference."""
    sides = [
        scores.filter(pl.col("model") == name).select(*_QUERY, "seed", pl.col("value").alias(side))
        for name, side in ((baseline, "baseline"), (model, "treatment"))
    ]
    paired = sides[0].join(sides[1], on=[*_QUERY, "seed"])
    complete = pl.len().over(_QUERY) == pl.col("seed").n_unique()
    return paired.with_columns(difference=pl.col("treatment") - pl.col("baseline")).filter(complete)


def _compare(group: pl.DataFrame) -> Comparison:
    """Compare on one dataset and measure. Rows are sorted by query, then seed."""
    seeds = group["seed"].n_unique()
    differences = group["difference"].to_numpy().reshape(-1, seeds)
    low, high, p_value = crossed_interval(differences) or (None, None, None)
    of_query = differences.mean(axis=1)
    return Comparison(
        dataset=group["dataset"][0],
        measure=group["measure"][0],
        queries=len(of_query),
        baseline=float(group["baseline"].to_numpy().mean()),
        treatment=float(group["treatment"].to_numpy().mean()),
        difference=float(of_query.mean()),
        low=low,
        high=high,
        p_value=p_value,
        better=int((of_query > 0).sum()),
        equal=int((of_query == 0).sum()),
        worse=int((of_query < 0).sum()),
        confidence=CONFIDENCE,
    )


def _order_of(column: str) -> pl.Expr:
    """Return the sort key of measures: those of `MEASURES` first, in their order."""
    places = {name: place for place, name in enumerate(MEASURES)}
    return pl.col(column).replace_strict(places, default=len(places), return_dtype=pl.Int64).alias("_order")


def say_difference(comparison: Comparison) -> str:
    """Format a difference with its interval and p-value.

    >>> say_difference(Comparison("all", "nDCG@10", 40, 0.5, 0.53, 0.03, 0.01, 0.05, 0.004, 20, 15, 5))
    '+0.030 (+0.010 to +0.050), p = 0.004'
    """
    if comparison.low is None or comparison.high is None or comparison.p_value is None:
        return f"{signed(comparison.difference)}, no interval can be given"
    p_value = "p < 0.001" if comparison.p_value < 0.001 else f"p = {comparison.p_value:.3f}"  # noqa: PLR2004 - a digit's worth
    span = f"{signed(comparison.low)} to {signed(comparison.high)}"
    return f"{signed(comparison.difference)} ({span}), {p_value}"


def _correct(found: Mapping[str, Sequence[Comparison]]) -> dict[tuple[str, Comparison], float | None]:
    """Return p-values after Holm's correction over the models and datasets of each measure."""
    corrected: dict[tuple[str, Comparison], float | None] = {(name, c): None for name, of in found.items() for c in of}
    for measure in {c.measure for _, c in corrected}:
        known = [key for key in corrected if key[1].measure == measure and key[1].p_value is not None]
        corrected |= zip(known, holm([key[1].p_value or 0.0 for key in known]), strict=True)
    return corrected


def _effects(scores: pl.DataFrame, baseline: str, model: str) -> dict[tuple[str, str], float]:
    """Return by dataset and measure the mean difference in standard deviations of the queries' differences."""
    of_query = _paired(scores, baseline, model).group_by(_QUERY).agg(pl.col("difference").mean())
    every = of_query.with_columns(dataset=pl.lit(ALL_DATASETS))
    made = pl.concat([every, of_query]).group_by("dataset", "measure")
    rows = made.agg(mean=pl.col("difference").mean(), spread=pl.col("difference").std()).iter_rows()
    return {(dataset, measure): mean / spread for dataset, measure, mean, spread in rows if (spread or 0.0) > EQUAL}


def _page(config: CompareConfig, summary: Mapping[str, Any]) -> str:
    means = [[row["model"], row["measure"], f"{row['mean']:.3f}", _seeds(row["by_seed"])] for row in summary["means"]]
    differences = [_difference_row(name, row) for name, of in summary["comparisons"].items() for row in of]
    heads = ["trained on", "held-out", "measure", "queries", "difference (95%)", "corrected p", "effect", "better on"]
    training = ", ".join(f"{name} {value}" for name, value in config.training.items())
    return "\n\n".join(
        [
            f"# {config.title}",
            f"Trained from the same start: {training}." if training else "Trained from the same start.",
            "## Mean scores on the held-out queries",
            markdown_table(["trained on", "measure", "mean", "by seed"], means),
            f"## Differences from {config.baseline}",
            markdown_table([*heads, "worse on", "shown"], differences),
            f"Intervals cover {summary['interval_covers']}. The corrected p-value is Holm's over the models and the "
            "datasets of a measure; a difference counts as shown if it is below 0.05. The effect is the difference "
            "in standard deviations of the queries' differences.",
            "",
        ]
    )


def _difference_row(name: str, row: Mapping[str, Any]) -> list[str]:
    corrected, effect = row["p_corrected"], row["effect"]
    is_shown = corrected is not None and corrected < 1 - CONFIDENCE
    extra = {"p_corrected", "effect"}
    return [
        name,
        row["dataset"],
        row["measure"],
        str(row["queries"]),
        say_difference(Comparison(**{key: value for key, value in row.items() if key not in extra})),
        "–" if corrected is None else f"{corrected:.3f}",
        "–" if effect is None else f"{effect:.2f}".replace("-", "−"),
        str(row["better"]),
        str(row["worse"]),
        ("better" if row["difference"] > 0 else "worse") if is_shown else "no",
    ]


def _seeds(values: Mapping[str, float]) -> str:
    return ", ".join(f"{seed}: {value:.3f}" for seed, value in values.items())
