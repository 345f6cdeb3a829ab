"""Find source datasets that make the model worse, by training without each one in turn (paper section 5.1).

The paper chose from single runs, on the test sets that it reports, with differences of 0.001. Here each difference has
an interval over queries and training seeds, and a p-value that is corrected for the number of datasets. The result of
the choice must be measured on other queries.

A dataset is judged by the held-out queries of the *other* datasets. Its own have labels of the same make: if these are
wrong, its own queries say nothing, or praise what is wrong. Its own queries only protect it: a dataset that is shown to
help them is not said to hurt, since without it the others have more of the same number of steps.

Noise need not hurt: a model that learns little from it is no worse for it. What tells it from a good dataset is that
its own queries lose nothing without it either. That is a verdict of its own, with a margin, as no difference is ever
shown to be zero.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.formatting import markdown_table
from tasks.schemas import PRUNING
from tasks.statistics import holm
from tasks.training.compare import compare_over_seeds, say_difference
from tasks.training.evaluate import ALL_DATASETS, Comparison

PAGE_FILE = "pruning.md"
SUMMARY_FILE = "pruning.json"

TEST = "test"
OTHERS = "other datasets"  # the held-out queries of all datasets but the one that is left out
HURTS, HELPS, NOT_SHOWN = "hurts", "helps", "not shown"
HELPS_ITSELF = "hurts others, helps itself"
TEACHES_NOTHING = "teaches nothing"


class LeaveOutConfig(BaseModel):
    """Which dataset is left out of the training mix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str


class PruneConfig(BaseModel):
    """The names of the models in the scores, and when a difference counts.

    models: dataset that is left out → name of its model in the scores. complete: name of the model of all datasets.
    level: a difference counts as shown if its corrected p-value is below this.
    margin: a loss counts as none if the 95% interval excludes one of this size, in the units of the measure.
    chosen_by: the held-out queries of the scores: `dev`, or `test` where no query is held out for development.
    reports_test: whether `reported` are of the test queries; else they are of no other queries, and are not shown.
    training: facts about the training for the page, such as steps and seeds.
    already_out: datasets that `complete` was trained without, in the greedy way: their queries decide nothing.
    pruned, dropped: name of the model of the pruned mix, and the datasets that it leaves out, once it is trained.
    greedy: whether the pruned mix was chosen by the greedy way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    complete: str
    models: dict[str, str] = Field(min_length=1)
    level: float = Field(0.05, gt=0, lt=1)
    margin: float = Field(0.05, gt=0, lt=1, json_schema_extra={"keyed_when_set": True})
    chosen_by: Literal["dev", "test"] = "test"
    reports_test: bool = Field(True, json_schema_extra={"keyed_when_set": True})
    title: str = "Pruning"
    training: dict[str, str | int | float] = {}
    already_out: tuple[str, ...] = Field((), json_schema_extra={"keyed_when_set": True})
    pruned: str = Field("", json_schema_extra={"keyed_when_set": True})
    dropped: tuple[str, ...] = Field((), json_schema_extra={"keyed_when_set": True})
    greedy: bool = Field(False, json_schema_extra={"keyed_when_set": True})


@dataclass(frozen=True)
class Found:
    """The comparisons: by dataset on the queries that decide and on those shown, and of the pruned mix."""

    pruning: pl.DataFrame
    decisive: Mapping[str, Sequence[Comparison]]
    shown: Mapping[str, Sequence[Comparison]]
    mix: Sequence[Comparison]


def leave_out(config: LeaveOutConfig, *, instances: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Remove the rows of one dataset from the training mix."""
    return {"mix": instances.filter(pl.col("dataset") != config.dataset)}


def prune(
    config: PruneConfig, *, instances: pl.DataFrame, scores: pl.DataFrame, reported: pl.DataFrame, out: Path
) -> dict[str, pl.DataFrame]:
    """Compare the model with those trained without each dataset; write `pruning.json` and `pruning.md`.

    `scores` decide. `reported` are those of the test queries, which are only shown, if there are any. P-values are
    corrected by the method of Holm over the datasets, separately for each held-out set and measure.

    Returns:
        `pruning`: one row per dataset left out, held-out set (all, those of the other datasets, and each) and measure.
    """
    scores = scores.filter(~pl.col("dataset").is_in(config.already_out))
    seeds = scores["seed"].n_unique()
    sizes = dict(instances.group_by("dataset").len().iter_rows())
    found = {dataset: _against(config, scores, dataset) for dataset in sorted(config.models)}
    rows = [
        {"left_out": dataset, "instances": sizes.get(dataset, 0), "seeds": seeds, **_row(comparison)}
        for dataset, comparisons in found.items()
        for comparison in comparisons
    ]
    pruning = _judged(pl.DataFrame(rows, schema={**PRUNING.columns, "p_adjusted": pl.Float64}), config.level)
    hidden = config.chosen_by == TEST or not config.reports_test
    shown = {} if hidden else {m: _against(config, reported, m) for m in config.models}
    mix = compare_mix(config, reported)
    _write(config, Found(pruning, found, shown, mix), out)
    return {"pruning": pruning}


def judge_datasets(pruning: pl.DataFrame, level: float, margin: float) -> dict[str, dict[str, str]]:
    """Return what is said of each dataset, by measure.

    It hurts if the model is shown to be better without it on the queries of the other datasets. Where there are none,
    all queries decide. If its own queries are worse without it, with a p-value below `level` before any correction, it
    is said to hurt the others and to help itself. It helps if any held-out set is shown to be worse without it. It
    teaches nothing if both its own queries and those of the others are shown to lose less than `margin` without it, by
    the lower ends of the intervals (a test of non-inferiority at 2.5%, without a correction).
    """
    verdicts: dict[str, dict[str, str]] = {}
    for (measure, dataset), rows in pruning.sort("measure", "left_out").group_by(
        "measure", "left_out", maintain_order=True
    ):
        by = {row["held_out"]: row for row in rows.iter_rows(named=True)}
        if by.get(OTHERS, by[ALL_DATASETS])["verdict"] == HURTS:
            verdict = HELPS_ITSELF if _helps_itself(by.get(dataset), level) else HURTS
        elif any(row["verdict"] == HELPS for row in by.values()):
            verdict = HELPS
        else:
            loses_nothing = all(_loses_less(by.get(held_out), margin) for held_out in (OTHERS, dataset))
            verdict = TEACHES_NOTHING if loses_nothing else NOT_SHOWN
        verdicts.setdefault(str(measure), {})[str(dataset)] = verdict
    return verdicts


def gain_without(pruning: pl.DataFrame, measure: str, dataset: str, level: float) -> float | None:
    """Return how much better the queries of the other datasets are without a dataset; None if it helps its own.

    The greedy way drops the dataset with the largest gain. It asks for no p-value: the test queries tell what it is
    worth.
    """
    rows = pruning.filter(pl.col("left_out") == dataset, pl.col("measure") == measure)
    by = {row["held_out"]: row for row in rows.iter_rows(named=True)}
    if not by or _helps_itself(by.get(dataset), level):
        return None
    return float(by.get(OTHERS, by[ALL_DATASETS])["difference"])


def _helps_itself(own: Mapping[str, Any] | None, level: float) -> bool:
    """Tell whether the queries of a dataset are shown to be worse without it."""
    return own is not None and own["difference"] < 0 and own["p_value"] is not None and own["p_value"] < level


def _loses_less(row: Mapping[str, Any] | None, margin: float) -> bool:
    """Tell whether held-out queries are shown to lose less than a margin."""
    return row is not None and row["low"] is not None and row["low"] > -margin


def compare_mix(config: PruneConfig, reported: pl.DataFrame) -> list[Comparison]:
    """Compare the pruned mix with the complete one: on all queries, on those of the datasets kept, and on each."""
    if not config.pruned:
        return []
    kept = reported.filter(~pl.col("dataset").is_in(config.dropped))
    return _with_part(reported, kept, "datasets kept", config.complete, config.pruned)


def _against(config: PruneConfig, scores: pl.DataFrame, dataset: str) -> list[Comparison]:
    others = scores.filter(pl.col("dataset") != dataset)
    return _with_part(scores, others, OTHERS, config.complete, config.models[dataset])


def _with_part(scores: pl.DataFrame, part: pl.DataFrame, name: str, baseline: str, model: str) -> list[Comparison]:
    """Compare on all queries, on those of `part` under its name, and on each dataset."""
    every = compare_over_seeds(scores, baseline, model)
    of_part = [replace(c, dataset=name) for c in compare_over_seeds(part, baseline, model) if c.dataset == ALL_DATASETS]
    together = [c for c in every if c.dataset == ALL_DATASETS]
    return [*together, *of_part, *(c for c in every if c.dataset != ALL_DATASETS)]


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


def _write(config: PruneConfig, found: Found, out: Path) -> None:
    verdicts = judge_datasets(found.pruning, config.level, config.margin)
    summary = {
        "title": config.title,
        "training": config.training,
        "datasets": sorted(config.models),
        "seeds": found.pruning["seeds"].max(),
        "remark": _remark(config),
        "verdicts": verdicts,
        "chosen_by": config.chosen_by,
        "comparisons": {name: [asdict(c) for c in comparisons] for name, comparisons in found.decisive.items()},
        "test": {name: [asdict(c) for c in comparisons] for name, comparisons in sorted(found.shown.items())},
        "pruned_mix": {
            "greedy": config.greedy,
            "dropped": list(config.dropped),
            "comparisons": [asdict(c) for c in found.mix],
        },
    }
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
    (out / PAGE_FILE).write_text("\n\n".join([*_page(config, found, verdicts), ""]), encoding="utf-8")


def _page(config: PruneConfig, found: Found, verdicts: Mapping[str, Mapping[str, str]]) -> list[str]:
    header = ["left out", "held-out", "measure", "queries", "without it (95%)", "shown"]
    of_row = {(r["left_out"], r["held_out"], r["measure"]): r["verdict"] for r in found.pruning.iter_rows(named=True)}
    rows = [
        [name, c.dataset, c.measure, str(c.queries), say_difference(c), of_row[name, c.dataset, c.measure]]
        for name, comparisons in found.decisive.items()
        for c in comparisons
    ]
    said = [[name, measure, verdict] for measure, of in verdicts.items() for name, verdict in of.items()]
    page = [
        f"# {config.title}",
        f"Training: {', '.join(f'{name} {value}' for name, value in config.training.items())}.",
        markdown_table(["dataset", "measure", "the dataset"], said),
        "A dataset is judged by the queries of the other datasets. Where its own queries are worse without it, it is "
        f"not dropped. It {TEACHES_NOTHING} if neither they nor the others' lose {config.margin:g} without it.",
        "## The model without each dataset",
        markdown_table(header, rows),
        _remark(config),
    ]
    if found.shown:
        rows = [
            [name, c.dataset, c.measure, str(c.queries), say_difference(c)]
            for name, comparisons in sorted(found.shown.items())
            for c in comparisons
        ]
        page += ["## The same on the test queries", markdown_table(header[:-1], rows)]
    return [*page, *_mix_page(config, found.mix)]


def _mix_page(config: PruneConfig, mix: Sequence[Comparison]) -> list[str]:
    if not config.pruned:
        return ["## The pruned mix", "No dataset is dropped, so no pruned mix is trained."]
    of = "test" if config.reports_test else "development"
    how = "The greedy way dropped" if config.greedy else "The pruned mix leaves out"
    rows = [
        [c.dataset, c.measure, str(c.queries), f"{c.baseline:.3f}", f"{c.treatment:.3f}", say_difference(c)]
        for c in mix
    ]
    header = ["held-out", "measure", "queries", "complete", "pruned", "difference (95%)"]
    said = (
        f"{how} {', '.join(config.dropped)}. The model of this mix, beside that of all datasets, on the {of} queries."
    )
    if config.chosen_by == TEST or not config.reports_test:
        said += " These queries also chose what is dropped, so the mix looks better than it is."
    return ["## The pruned mix", said, markdown_table(header, rows)]


def _remark(config: PruneConfig) -> str:
    remark = f"{len(config.models)} datasets were tried, so p-values are corrected after Holm; intervals are not. "
    if config.chosen_by == TEST:
        return remark + (
            "The verdicts are of the test queries, as none is held out for development. What is chosen by these "
            "queries must be reported on others: on these, the choice looks better than it is. Set ingest.dev or "
            "ingest.dev_split."
        )
    if config.reports_test:
        return f"{remark}The verdicts are of the development queries. The test queries chose nothing."
    return (
        f"{remark}The verdicts are of the development queries. No test queries were scored, as evaluate.split is dev."
    )
