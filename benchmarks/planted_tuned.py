"""Compare treatments on planted false negatives, each by the recipe that is best for it: the fourth trial.

    python -m benchmarks.planted_tuned --stage judge --stage search [--folder ../planted_tuned] [--data ../shared/data]
    python -m benchmarks.planted_tuned --freeze      # choose the recipes by the search, and write them
    python -m benchmarks.planted_tuned [--stage STAGE]

The third trial (`benchmarks.planted`) chose one recipe by `default` alone, which prefers a short training, as false
negatives do harm when they are trained on for long. This one asks: does relabelling help where each training set is
tuned alike? It differs in this (docs/experiments.md has the whole design):

- Each treatment has the same search over the same grid (`GRID`), and so has `default`.
- The search trains without two folds, for the ten pairs of folds, and scores both. The recipe for the test fold f is
  the one with the best mean over the other folds, each scored by the model that was trained without it and without f.
  So no query has a part in the choice of the recipe that it is tested by. Where there is no time for all, the first
  five pairs choose: each fold is in two of them.
- The folds, the positive that a query keeps, and the seeds of training are others than in the third trial.
- Beside it stands the contrast of the third trial: relabelling by the recipes of `default` (`BORROWED`).

`planted_tuned_recipe.json` must be committed before a cell is tested. The stage `default` tests the baseline, and tells
which effect could be detected; `cells` tests the others; `summary` writes `tuned` in benchmarks/results/planted.json,
and docs/planted_tuned.svg. Seeds of which a cell is missing are left out.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import planted, planted_checks, planted_judges, planted_summary
from benchmarks.planted_cells import UNTRAINED, Bench, Cell, read_cells, run_cells, with_facts
from benchmarks.planted_data import COLLECTIONS, describe, picked
from benchmarks.planted_folds import FOLDS
from benchmarks.planted_setup import prepare
from benchmarks.planted_treatments import Evidence
from tasks.schemas import TEACHER

RECIPE, PLOT = planted.HERE / "planted_tuned_recipe.json", planted.HERE.parent / "docs" / "planted_tuned.svg"
STAGES = ("judge", "search", "default", "cells", "summary")
DEAL = 21  # the seed of the folds and of what is planted; the third trial has 20
SEEDS, SEARCH_SEED = (52, 53, 54, 55, 56), 60  # each pair of folds has a seed of its own, from 60 on
TREATMENTS = ("default", "relabel_judges", "relabel_oracle", "relabel_random", "remove_hn")
BORROWED = ("relabel_judges", "relabel_oracle")  # are also tested by the recipes of `default`
FIXED: Mapping[str, Any] = {**planted.FIXED, "learning_rate": 3e-3}
GRID: Mapping[str, Sequence[float]] = {"steps": (30, 90, 180), "temperature": (0.05, 0.1)}
# Of folds. Each fold is in two of the first five.
PAIRS = ((0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (0, 2), (1, 3), (2, 4), (0, 3), (1, 4))
Recipes = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]  # by collection, treatment and test fold


def search_cells(pairs: Sequence[tuple[int, int]] = PAIRS) -> list[Cell]:
    """List the cells of the search, pair of folds by pair of folds."""
    recipes = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    return [
        Cell(name, treatment, fold, SEARCH_SEED + number, other=other, **recipe)
        for number, (fold, other) in enumerate(pairs)
        for name in COLLECTIONS
        for recipe in recipes
        for treatment in TREATMENTS
    ]


def tested_cells(recipes: Recipes, treatments: Iterable[str], by: str | None = None) -> list[Cell]:
    """List the cells that are tested, seed by seed. by: the treatment whose recipes all have; unset: each its own."""
    return [
        Cell(name, treatment, fold, seed, **recipes[name][by or treatment][fold])
        for seed, name, fold, treatment in product(SEEDS, COLLECTIONS, range(FOLDS), list(treatments))
    ]


def choose(scores: pl.DataFrame, groups: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Choose the recipe of each treatment for each test fold; the shorter training of two that are equally good.

    scores: the search on one collection. groups: query_id and fold.
    """
    homes = scores.join(groups.select("query_id", home="fold"), on="query_id")
    chosen: dict[str, list[dict[str, Any]]] = {name: [] for name in TREATMENTS}
    for fold in range(FOLDS):
        without = (pl.col("fold") == fold) | (pl.col("other") == fold)
        by_home = _means(homes.filter(without, pl.col("home") != fold), "treatment", *GRID, "home")
        means = _means(by_home, "treatment", *GRID).with_columns(pl.col("value").round(6))
        best = means.sort("value", *GRID, descending=[True, False, False]).unique("treatment", keep="first")
        for row in best.iter_rows(named=True):
            chosen[row["treatment"]].append({name: row[name] for name in GRID})
    return chosen


def by_recipe(scores: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the mean of each treatment by each recipe of the search, over all pairs of folds."""
    wide = _means(scores, "treatment", *GRID).with_columns(pl.col("value").round(5))
    return wide.pivot("treatment", index=list(GRID), values="value").sort(*GRID).to_dicts()


def _means(scores: pl.DataFrame, *by: str) -> pl.DataFrame:
    return scores.group_by(*by).agg(pl.col("value").mean()).sort(*by)


def freeze(arguments: argparse.Namespace) -> None:
    """Write the recipes that the search chooses, by all pairs or else by the first five, and the means of all tried."""
    folder = arguments.folder / "cells"
    for pairs in (PAIRS, PAIRS[:FOLDS]):
        cells = search_cells(pairs)
        missing = sum(not (folder / cell.file).exists() for cell in cells)
        if not missing:
            break
    else:
        raise SystemExit(f"a finished search expected, {missing} of {len(cells)} cells are missing; --stage search")
    scores, found = read_cells(folder, cells), {}
    for name in COLLECTIONS:
        groups = prepare(arguments.folder, arguments.data, name, DEAL)[0].groups
        own = scores.filter(collection=name)
        found[name] = {"chosen": choose(own, groups), "tried": by_recipe(own)}
    seeds = sorted(scores["seed"].unique())
    made = {
        "measure": "nDCG@10",
        "fixed": FIXED,
        "grid": GRID,
        "deal": DEAL,
        "pairs": pairs,
        "seeds": seeds,
        "collections": found,
    }
    RECIPE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def read_recipes() -> Recipes:
    """Read the chosen recipes."""
    found = json.loads(RECIPE.read_text(encoding="utf-8"))["collections"]
    return {name: one["chosen"] for name, one in found.items()}


def read_bench(arguments: argparse.Namespace, name: str) -> Bench:
    """Read a collection with the judges' decisions."""
    collection, made, base = prepare(arguments.folder, arguments.data, name, DEAL)
    evidence = Evidence(pl.read_parquet(planted_judges.path_of(arguments.folder, name)), TEACHER.empty())
    return Bench(collection, made, evidence, base, {**FIXED, "num_negatives": picked(name)})


def run_stage(arguments: argparse.Namespace, stage: str) -> None:
    """Run one stage; what is there already is kept."""
    if stage == "judge":
        asked = ["--folder", str(arguments.folder), "--data", str(arguments.data), "--deal", str(DEAL)]
        subprocess.run([sys.executable, "-m", "benchmarks.planted_judges", *asked], check=True)
        return
    if stage == "search":
        cells = search_cells()
    else:
        planted.recipe_commit(RECIPE)
        recipes = read_recipes()
        cells = tested_cells(recipes, TREATMENTS[:1])
    if stage == "default":
        cells += [Cell(name, UNTRAINED, fold, 0) for name in COLLECTIONS for fold in range(FOLDS)]
    if stage == "cells":
        first = tested_cells(recipes, planted_summary.PRIMARY)
        cells = [*first, *tested_cells(recipes, TREATMENTS[1:]), *tested_cells(recipes, BORROWED, "default")]
    if stage != "summary":
        run_cells({name: read_bench(arguments, name) for name in COLLECTIONS}, cells, arguments.folder / "cells")
    if stage in ("default", "summary"):
        summarise(arguments, recipes)


def summarise(arguments: argparse.Namespace, recipes: Recipes) -> None:
    """Write the results of the seeds that are finished beside those of the third trial, and the plot."""
    result = json.loads(planted.RESULT.read_text(encoding="utf-8"))
    result["tuned"] = tuned = collect(arguments, recipes)
    planted.RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if any(row.get("low") is not None for one in tuned["collections"] for row in one["treatments"]):
        planted_summary.write_plot(tuned["collections"], PLOT)
    print(json.dumps(tuned["reached"]), {one["name"]: one["detectable"] for one in tuned["collections"]})


def whole_seeds(folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of the seeds of which no cell is missing."""
    missing = {cell.seed for cell in cells if not (folder / cell.file).exists()}
    return [cell for cell in cells if cell.seed not in missing]


def collect(arguments: argparse.Namespace, recipes: Recipes) -> dict[str, Any]:
    """Collect the results of the seeds that are finished."""
    folder = arguments.folder / "cells"
    base = whole_seeds(folder, tested_cells(recipes, TREATMENTS[:1]))
    primary = whole_seeds(folder, tested_cells(recipes, ("default", *planted_summary.PRIMARY))) or base
    every = whole_seeds(folder, tested_cells(recipes, TREATMENTS))
    lent = whole_seeds(folder, tested_cells(recipes, TREATMENTS[:1]) + tested_cells(recipes, BORROWED, "default"))
    frozen = json.loads(RECIPE.read_text(encoding="utf-8"))
    collections = []
    for name in COLLECTIONS:
        collection, made, _ = prepare(arguments.folder, arguments.data, name, DEAL)
        groups, clusters = collection.groups, planted_checks.cluster_queries(collection)
        start = [Cell(name, UNTRAINED, fold, 0) for fold in range(FOLDS)]
        untrained, of_base, main, scores, by_default = (
            read_cells(folder, [cell for cell in cells if cell.collection == name])
            for cells in (start, base, primary, every, lent)
        )
        rows = compare(main, groups, clusters)
        rows += [row for row in compare(scores, groups, clusters) if row["name"] not in {one["name"] for one in rows}]
        judges = arguments.folder / name / "judges.json"
        collections.append(
            {
                "name": name,
                **describe(collection, made),
                "judges": json.loads(judges.read_text(encoding="utf-8")),
                "chosen": frozen["collections"][name]["chosen"],
                "by_recipe": frozen["collections"][name]["tried"],
                "detectable": planted_summary.detectable(
                    pl.concat([of_base, untrained]), groups, len(planted_summary.PRIMARY)
                ),
                "untrained": round(float(untrained["value"].to_numpy().mean()), 5),
                "clusters_by_shared_passages": clusters["group"].n_unique(),
                "treatments": with_facts(rows, folder, [one for one in [*primary, *every] if one.collection == name]),
                "contrasts": planted_checks.contrasts(pl.concat([main, scores]).unique(), groups, clusters),
                "by_the_recipes_of_default": compare(by_default, groups, clusters),
            }
        )
    return {
        "command": "python -m benchmarks.planted_tuned",
        **planted.recipe_commit(RECIPE),
        **{name: frozen[name] for name in ("fixed", "grid", "deal", "pairs")},
        "search_seeds": frozen["seeds"],
        "seeds": sorted({cell.seed for cell in primary}),
        "seeds_of_the_controls": sorted({cell.seed for cell in every}),
        "reached": planted_summary.verdicts(collections),
        "collections": collections,
    }


def compare(scores: pl.DataFrame, groups: pl.DataFrame, clusters: pl.DataFrame) -> list[dict[str, Any]]:
    """Compare the treatments with `default`, as the third trial does, and on each fold."""
    if scores.is_empty():
        return []
    found = planted_checks.with_shared(planted_summary.compare(scores, groups, TREATMENTS), scores, clusters)
    means = _means(scores, "treatment", "fold").pivot("treatment", index="fold", values="value").sort("fold")
    return [
        row
        if row["name"] == planted_summary.BASELINE
        else {**row, "by_fold": (means[row["name"]] - means[planted_summary.BASELINE]).round(4).to_list()}
        for row in found
    ]


def main() -> int:
    """Freeze the recipes, or run the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--freeze", action="store_true", help="choose the recipes by the search, and nothing else")
    parser.add_argument("--stage", choices=STAGES, action="append", help="run this stage only; unset: all")
    parser.add_argument("--folder", type=Path, default=Path("../planted_tuned"), help="where cells are kept")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the collections")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.freeze:
        freeze(arguments)
        return 0
    for stage in arguments.stage or STAGES:
        began = time.perf_counter()
        run_stage(arguments, stage)
        print(f"stage {stage}: {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
