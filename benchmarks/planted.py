"""Plant false negatives in two labelled collections, train a model by each treatment, and compare them.

    python -m benchmarks.planted --freeze [--folder FOLDER] [--data ../shared/data]    # choose the recipe on `default`
    python -m benchmarks.planted [--stage STAGE] [--folder FOLDER] [--data ../shared/data]

The design, which was written before any relabelled run of this trial, the third (docs/experiments.md has all):

- Collections: Cranfield and MTRAG. A query with two or more relevant passages keeps one; the others are hidden among
  its mined negatives, those that the untrained model ranks first (`planted_data`). A row has 7 negatives on Cranfield
  and 4 on MTRAG, which has fewer relevant passages. 25 more mined passages stand by to replace what is removed.
- Five folds by query. Queries that share relevant passages are dealt together as far as folds of equal size allow
  (`planted_folds`). Each passage belongs to one fold too: rows are made of passages of their query's fold, and a test
  query is searched among those of its own. So no treatment meets a passage of the test in training.
- A cell trains a static-embedding model (`planted_base`) on four folds and scores the fifth by people's labels. Five
  seeds. Every treatment has the same number of steps and of rows in a step, and of negatives in a row as long as the
  mined passages reach; the result counts the rows that have fewer.
- The trial is about `relabel_oracle` and `relabel_judges`. Each is said to beat `default` on a collection if its
  interval is above 0, over conversations and over queries that share passages, corrected for these two; the intervals
  of the others are corrected for all (`planted_summary`).
- The judges (`planted_judges`) and the reranker that stands for a cross-encoder (`planted_teacher`) read no label of
  the collection that they judge but the positive that a query kept.
- `kl_labels` is the control of `distillation` and `soft_labels`: the same objective with one-hot labels.

Order: `--freeze` chooses the learning rate, the temperature and the steps by `default` alone, on a development fold
that is neither trained on nor the test fold, and writes `planted_recipe.json`. That file must be committed before
anything else runs. The stages: `default` trains the baseline and states which effect could be detected; `judge` and
`teacher` judge the pairs; `cells` trains all treatments; `minilm` trains MiniLM on one collection; `more` the size
curve and the grid of negatives; `recipes` compares on the development folds by each recipe that was tried; `longer`
trains on beyond the frozen recipe; `summary` writes benchmarks/results/planted.json and docs/planted.svg. Cells are
kept in the folder: what is there is not computed again, and several processes may run a stage side by side.

The treatments `planted_treatments.ADDED` and the stage `recipes` came after the second trial: they tell where a gain
comes from. The stage `longer` came after results of `recipes`: it explores, and decides nothing.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import planted_checks, planted_judges, planted_summary, planted_teacher
from benchmarks.planted_base import TOKENS
from benchmarks.planted_cells import UNTRAINED, Bench, Cell, read_cells, run_cells, with_facts, write
from benchmarks.planted_data import COLLECTIONS, describe, picked
from benchmarks.planted_folds import FOLDS
from benchmarks.planted_setup import encoder_folder, prepare
from benchmarks.planted_treatments import TREATMENTS, Evidence, oracle
from tasks.schemas import TEACHER

HERE = Path(__file__).parent
RECIPE, RESULT, PLOT = HERE / "planted_recipe.json", HERE / "results" / "planted.json", HERE.parent / "docs/planted.svg"
STAGES = ("default", "judge", "teacher", "cells", "minilm", "more", "recipes", "longer", "summary")
SEEDS = (42, 43, 44, 45, 46)
FIXED: Mapping[str, Any] = {"batch_size": 16, "mask": "positives", "threads": 1, "max_seq_length": TOKENS}
GRID = {"learning_rate": (1e-3, 3e-3), "temperature": (0.05, 0.1), "steps": (30, 90)}
MINILM: Mapping[str, Any] = {  # that of `recipe: small`, with fewer and smaller steps, as it trains on a shared core
    **FIXED,
    "steps": 20,
    "batch_size": 8,
    "num_negatives": 3,
    "learning_rate": 5e-5,
    "temperature": 0.05,
    "max_seq_length": 48,
}
MINILM_ON, MINILM_SEEDS = "cranfield", SEEDS[:1]
LONGER = 90  # steps
BY_RECIPE = "by_recipe.json"  # in the folder of a collection
COMPARED = ("default", "relabel_judges", "relabel_oracle")  # in the curve, in the grid, and with MiniLM
SHARES, NEGATIVES, MORE_SEEDS = (0.25, 0.5), (1, 2), SEEDS[:1]


def cells_of(stage: str) -> list[Cell]:
    """List the cells of a stage, in the order they are run: seed by seed, so that a stopped run has whole seeds."""
    every = list(product(SEEDS, COLLECTIONS, range(FOLDS)))
    if stage == "default":
        start = [Cell(name, UNTRAINED, fold, 0) for name in COLLECTIONS for fold in range(FOLDS)]
        return start + [Cell(name, "default", fold, seed) for seed, name, fold in every]
    if stage == "cells":
        return [Cell(name, treatment, fold, seed) for seed, name, fold in every for treatment in TREATMENTS]
    if stage == "minilm":
        kinds = product(MINILM_SEEDS, range(FOLDS), COMPARED)
        start = [Cell(MINILM_ON, UNTRAINED, fold, 0, model="minilm") for fold in range(FOLDS)]
        return [Cell(MINILM_ON, name, fold, seed, model="minilm") for seed, fold, name in kinds] + start
    if stage == "longer":
        return [Cell(name, treatment, fold, seed, steps=LONGER) for seed, name, fold in every for treatment in COMPARED]
    if stage == "more":
        kinds = product(MORE_SEEDS, COLLECTIONS, range(FOLDS), COMPARED)
        made: list[Cell] = []
        for seed, name, fold, treatment in kinds:
            made += [Cell(name, treatment, fold, seed, share=share) for share in SHARES]
            made += [Cell(name, treatment, fold, seed, negatives=count) for count in NEGATIVES]
        return made
    return []


def read_bench(arguments: argparse.Namespace, name: str, recipe: Mapping[str, Any]) -> Bench:
    """Read a collection with what is known of its pairs so far."""
    collection, planted, base = prepare(arguments.folder, arguments.data, name)
    judged, scored = (module.path_of(arguments.folder, name) for module in (planted_judges, planted_teacher))
    evidence = Evidence(
        pl.read_parquet(judged) if judged.exists() else oracle(planted).clear(),
        pl.read_parquet(scored) if scored.exists() else TEACHER.empty(),
    )
    return Bench(collection, planted, evidence, base, {**FIXED, "num_negatives": picked(name), **recipe})


def freeze(arguments: argparse.Namespace) -> None:
    """Choose the recipe of each collection by the mean of `default` on the development folds; write all that was tried.

    In fold f the test fold f is left out altogether, and the next fold is the development fold. The five means are
    pooled, so each fold had a part in the choice of the one recipe by which it is tested later.
    """
    found: dict[str, Any] = {"measure": "nDCG@10", "fixed": dict(FIXED), "grid": GRID, "collections": {}}
    for name in COLLECTIONS:
        bench = read_bench(arguments, name, {})
        tried = []
        for values in product(*GRID.values()):
            recipe = dict(zip(GRID, values, strict=True))
            scores = [_dev_score(arguments, bench, recipe, fold) for fold in range(FOLDS)]
            tried.append({**recipe, "ndcg10": round(float(np.mean(scores)), 5)})
            print(name, tried[-1], flush=True)
        best = max(tried, key=lambda one: one["ndcg10"])
        found["collections"][name] = {"chosen": {one: best[one] for one in GRID}, "tried": tried}
    RECIPE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _dev_score(
    arguments: argparse.Namespace, bench: Bench, recipe: Mapping[str, Any], fold: int, treatment: str = "default"
) -> float:
    """Train without the test fold and the development fold; return the mean score on the latter."""
    text = "-".join(f"{value:g}" for value in recipe.values())
    text += "" if treatment == "default" else f"-{treatment}"
    path = arguments.folder / "dev" / f"{bench.collection.name}-{text}-f{fold}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        dev = bench.collection.with_splits({fold: "test", (fold + 1) % FOLDS: "dev"})
        one = replace(bench, collection=dev, recipe={**bench.recipe, **recipe})
        write(path, one.run(Cell(bench.collection.name, treatment, fold, SEEDS[0]), ["dev"]))
    return float(np.mean(list(json.loads(path.read_text(encoding="utf-8"))["scores"].values())))


def by_recipe(arguments: argparse.Namespace, names: Sequence[str] = COLLECTIONS) -> None:
    """Compare on the development folds by each recipe that was tried, one seed: does a miss depend on the recipe?"""
    for name in names:
        bench, rows = read_bench(arguments, name, {}), []
        for values in product(*GRID.values()):
            recipe = dict(zip(GRID, values, strict=True))
            means = {
                one: float(np.mean([_dev_score(arguments, bench, recipe, fold, one) for fold in range(FOLDS)]))
                for one in COMPARED
            }
            rows.append({**recipe, **{one: round(mean, 5) for one, mean in means.items()}})
            print(name, rows[-1], flush=True)
        write(arguments.folder / name / BY_RECIPE, {"rows": rows})


def recipe_commit(recipe: Path | None = None) -> dict[str, str]:
    """Name the commit that froze a recipe (unset: that of this trial), also by what stays where histories change.

    Raises:
        SystemExit: the recipe is not committed as it is.
    """
    recipe = recipe or RECIPE
    asked = (("status", "--porcelain", "--"), ("log", "-1", "--format=%H%n%aI%n%s", "--"))
    changed, found = (_git(*words, str(recipe)) for words in asked)
    if changed or not found or not recipe.exists():
        raise SystemExit(f"{recipe.name}: a committed recipe expected before any other run; --freeze it, and commit it")
    commit, date, subject = found.split("\n")
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()
    return {"recipe_commit": commit, "recipe_date": date, "recipe_subject": subject, "recipe_sha256": digest}


def _git(*words: str) -> str:
    command = ["git", "-C", str(HERE.parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def run_stage(arguments: argparse.Namespace, stage: str) -> None:
    """Run one stage; what is there already is kept."""
    if stage in ("judge", "teacher"):
        module = {"judge": "benchmarks.planted_judges", "teacher": "benchmarks.planted_teacher"}[stage]
        asked = [sys.executable, "-m", module, "--folder", str(arguments.folder), "--data", str(arguments.data)]
        asked += ["--asked", str(arguments.asked)] if stage == "judge" else []
        subprocess.run(asked, check=True)
        return
    if stage in ("summary", "recipes"):
        {"summary": summarise, "recipes": by_recipe}[stage](arguments)
        return
    chosen = json.loads(RECIPE.read_text(encoding="utf-8"))["collections"]
    cells = cells_of(stage)
    names = sorted({cell.collection for cell in cells})
    benches = {name: read_bench(arguments, name, chosen[name]["chosen"]) for name in names}
    if stage != "default":
        _refuse_unjudged(benches)
    if stage == "minilm":
        benches = {name: replace(one, base=encoder_folder(), recipe=MINILM) for name, one in benches.items()}
    run_cells(benches, cells, arguments.folder / "cells")
    if stage == "default":
        summarise(arguments)


def _refuse_unjudged(benches: Mapping[str, Bench]) -> None:
    known = {name: one.evidence for name, one in benches.items()}
    missing = [name for name, one in known.items() if not (one.judges.height and one.teacher.height)]
    if missing:
        raise SystemExit(f"judged pairs of {', '.join(missing)} expected; run the stages judge and teacher first")


def summarise(arguments: argparse.Namespace) -> None:
    """Write the results of the cells that are finished, and the plot; those of the fourth trial stay as they are."""
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    result = collect(arguments) | {name: before[name] for name in ("tuned",) if name in before}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if any(row.get("low") is not None for one in result["collections"] for row in one["treatments"]):
        planted_summary.write_plot(result["collections"], PLOT)
    print(json.dumps(result["reached"]))


def collect(arguments: argparse.Namespace) -> dict[str, Any]:
    """Collect the results of the cells that are finished."""
    folder = arguments.folder / "cells"
    order = {name: cells_of(name) for name in ("default", "cells", "minilm", "more", "longer")}
    main = read_cells(folder, {cell: 0 for cell in [*order["default"], *order["cells"]]})
    chosen = json.loads(RECIPE.read_text(encoding="utf-8"))
    collections = []
    for name in COLLECTIONS:
        collection, planted, _ = prepare(arguments.folder, arguments.data, name)
        scores = main.filter(pl.col("collection") == name)
        treatments = planted_summary.compare(scores, collection.groups, list(TREATMENTS))
        judges, recipes = (arguments.folder / name / file for file in ("judges.json", BY_RECIPE))
        clusters = planted_checks.cluster_queries(collection)
        own = [cell for cell in [*order["default"], *order["cells"]] if cell.collection == name]
        teacher = planted_teacher.path_of(arguments.folder, name)
        collections.append(
            {
                "name": name,
                **describe(collection, planted),
                "recipe": chosen["collections"][name]["chosen"],
                "detectable": planted_summary.detectable(scores, collection.groups, len(planted_summary.PRIMARY)),
                "judges": json.loads(judges.read_text(encoding="utf-8")) if judges.exists() else None,
                "teacher": planted_checks.measure_teacher(planted, pl.read_parquet(teacher))
                if teacher.exists()
                else None,
                "untrained": _mean(scores, UNTRAINED),
                "clusters_by_shared_passages": clusters["group"].n_unique(),
                "treatments": with_facts(planted_checks.with_shared(treatments, scores, clusters), folder, own),
                "contrasts": planted_checks.contrasts(scores, collection.groups, clusters),
                "order": planted_summary.order_beside_paper(treatments),
                "by_recipe": json.loads(recipes.read_text(encoding="utf-8"))["rows"] if recipes.exists() else [],
                "longer": _longer(folder, order["longer"], scores, collection.groups, name),
                "curve_and_grid": _further(folder, order["more"], order["cells"], collection.groups, name),
            }
        )
    small = read_cells(folder, order["minilm"])
    groups = prepare(arguments.folder, arguments.data, MINILM_ON)[0].groups
    every = [cell for cells in order.values() for cell in cells]
    return {
        "command": "python -m benchmarks.planted",
        "measure": "nDCG@10",
        **recipe_commit(),
        "fixed": dict(FIXED),
        "folds": FOLDS,
        "seeds": list(SEEDS),
        "primary": list(planted_summary.PRIMARY),
        "correction": "Bonferroni: for the two primary treatments over both, for the others over all; clusters x seeds",
        "cells": {"finished": sum((folder / cell.file).exists() for cell in set(every)), "of": len(set(every))},
        "reached": planted_summary.verdicts(collections),
        "collections": collections,
        "minilm": {
            "collection": MINILM_ON,
            "recipe": dict(MINILM),
            "seeds": list(MINILM_SEEDS),
            "untrained": _mean(small, UNTRAINED),
            "treatments": planted_summary.compare(small, groups, COMPARED),
        },
    }


def _further(
    folder: Path, more: Sequence[Cell], main: Sequence[Cell], groups: pl.DataFrame, name: str
) -> list[dict[str, Any]]:
    """Return the size curve and the grid, on the seeds that both have, the whole size first."""
    whole = [c for c in main if c.seed in MORE_SEEDS and c.treatment in COMPARED]
    scores = read_cells(folder, [c for c in [*whole, *more] if c.collection == name])
    found = []
    parts = scores.partition_by("share", "negatives", as_dict=True)
    for (share, negatives), part in sorted(parts.items(), reverse=True):
        row = {"share": share, "negatives": negatives or picked(name)}
        found.append({**row, "treatments": planted_summary.compare(part, groups, COMPARED)})
    return found


def _longer(folder: Path, cells: Sequence[Cell], main: pl.DataFrame, groups: pl.DataFrame, name: str) -> dict[str, Any]:
    """Compare with more steps: with `default` of as many steps, and with `default` of the frozen recipe."""
    scores = read_cells(folder, [cell for cell in cells if cell.collection == name])
    frozen, others = (
        part.filter((pl.col("treatment") == "default") == is_it) for part, is_it in ((main, True), (scores, False))
    )
    return {
        "steps": LONGER,
        "treatments": planted_summary.compare(scores, groups, COMPARED),
        "beside_the_frozen_default": planted_summary.compare(pl.concat([frozen, others]), groups, COMPARED),
    }


def _mean(scores: pl.DataFrame, treatment: str) -> float | None:
    values = scores.filter(pl.col("treatment") == treatment)["value"].to_numpy()
    return round(float(values.mean()), 5) if len(values) else None


def main() -> int:
    """Freeze the recipe, or run the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--freeze", action="store_true", help="choose the recipe on `default`, and nothing else")
    parser.add_argument("--stage", choices=STAGES, action="append", help="run this stage only; unset: all")
    parser.add_argument("--folder", type=Path, default=Path("../planted"), help="where cells and judgements are kept")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the collections")
    parser.add_argument("--asked", type=int, default=0, help="pairs per collection that the language model gets")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.freeze:
        freeze(arguments)
        return 0
    recipe_commit()
    for stage in arguments.stage or STAGES:
        began = time.perf_counter()
        run_stage(arguments, stage)
        print(f"stage {stage}: {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
