"""Find source datasets that make the model worse, by training without each one in turn (paper section 5.1).

The paper chose from single runs, on the test sets that it reports, with differences of 0.001. Here each difference has
an interval over queries and training seeds, and a p-value that is corrected for the number of datasets. The result of
the choice must be measured on other queries.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.formatting import markdown_table
from tasks.schemas import PRUNING
from tasks.training.compare import compare_over_seeds, say_difference
from tasks.training.evaluate import ALL_DATASETS, Comparison

PAGE_FILE = "pruning.md"
SUMMARY_FILE = "pruning.json"

HURTS, HELPS, NOT_SHOWN = "hurts", "helps", "not shown"


class LeaveOutConfig(BaseModel):
    """Which dataset is left out of the training mix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str


class PruneConfig(BaseModel):
    """The names of the models in the scores, and when a difference counts.

    models: dataset that is left out → name of its model in the scores. complete: name of the model of all datasets.
    level: a difference counts as shown if its corrected p-value is below this.
    training: facts about the training for the page, such as steps and seeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    complete: str
    models: dict[str, str] = Field(min_length=1)
    level: float = Field(0.05, gt=0, lt=1)
    title: str = "Pruning"
    training: dict[str, str | int | float] = {}


def leave_out(config: LeaveOutConfig, *, instances: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Remove the rows of one dataset from the training mix."""
    return {"mix": instances.filter(pl.col("dataset") != config.dataset)}


def prune(config: PruneConfig, *, instances: pl.DataFrame, scores: pl.DataFrame, out: Path) -> dict[str, pl.DataFrame]:
    """Compare the model with those trained without each dataset; write `pruning.json` and `pruning.md`.

    P-values are corrected by the method of Holm over the datasets, separately for each held-out set and measure.

    Returns:
        `pruning`: one row per dataset left out, held-out set ("all" and each one) and measure.
    """
    seeds = scores["seed"].n_unique()
    sizes = dict(instances.group_by("dataset").len().iter_rows())
    found = {
        dataset: compare_over_seeds(scores, config.complete, model) for dataset, model in sorted(config.models.items())
    }
    rows = [
        {"left_out": dataset, "instances": sizes.get(dataset, 0), "seeds": seeds, **_row(comparison)}
        for dataset, comparisons in found.items()
        for comparison in comparisons
    ]
    pruning = _judged(pl.DataFrame(rows, schema={**PRUNING.columns, "p_adjusted": pl.Float64}), config.level)
    _write(config, pruning, found, out)
    return {"pruning": pruning}


def holm(p_values: list[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979). No p-value becomes smaller.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = worst
    return corrected


def _row(comparison: Comparison) -> dict[str, Any]:
    return {
        "held_out": comparison.dataset,
        "measure": comparison.measure,
        "queries": comparison.queries,
        "complete": comparison.baseline,
        "without": comparison.treatment,
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "p_value": comparison.p_value,
    }


def _judged(rows: pl.DataFrame, level: float) -> pl.DataFrame:
    """Add the corrected p-values and the verdicts."""
    families = []
    for family in rows.partition_by("held_out", "measure", maintain_order=True):
        known = family.filter(pl.col("p_value").is_not_null())
        corrected = known.with_columns(p_adjusted=pl.Series(holm(known["p_value"].to_list()), dtype=pl.Float64))
        families += [corrected, family.filter(pl.col("p_value").is_null())]
    shown = pl.col("p_adjusted").fill_null(1.0) < level
    verdict = (
        pl.when(shown & (pl.col("difference") > 0))
        .then(pl.lit(HURTS))
        .when(shown & (pl.col("difference") < 0))
        .then(pl.lit(HELPS))
        .otherwise(pl.lit(NOT_SHOWN))
    )
    together = pl.concat(families) if families else PRUNING.empty()
    return together.with_columns(verdict=verdict).select(*PRUNING.columns).sort(PRUNING.key)


def _write(config: PruneConfig, pruning: pl.DataFrame, found: dict[str, list[Comparison]], out: Path) -> None:
    remark = (
        f"{len(config.models)} datasets were tried, so p-values are corrected after Holm; intervals are not. "
        "What is chosen by these queries must be reported on others: on these, the choice looks better than it is."
    )
    summary = {
        "title": config.title,
        "training": config.training,
        "datasets": sorted(config.models),
        "seeds": pruning["seeds"].max(),
        "remark": remark,
        "verdicts": {
            f"{measure}": dict(rows.select("left_out", "verdict").iter_rows())
            for (measure,), rows in pruning.filter(pl.col("held_out") == ALL_DATASETS).group_by("measure")
        },
        "comparisons": {name: [asdict(c) for c in comparisons] for name, comparisons in found.items()},
    }
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
    verdicts = {(r["left_out"], r["held_out"], r["measure"]): r["verdict"] for r in pruning.iter_rows(named=True)}
    table = [
        [name, c.dataset, c.measure, str(c.queries), say_difference(c), verdicts[name, c.dataset, c.measure]]
        for name, comparisons in found.items()
        for c in comparisons
    ]
    header = ["left out", "held-out", "measure", "queries", "without it (95%)", "the dataset"]
    training = ", ".join(f"{name} {value}" for name, value in config.training.items())
    page = [f"# {config.title}", f"Training: {training}.", markdown_table(header, table), remark, ""]
    (out / PAGE_FILE).write_text("\n\n".join(page), encoding="utf-8")
