"""The trial in which each treatment has its own recipe: the search, the choice without the test fold, the results."""

import argparse
import json
import zlib
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import planted, planted_tuned
from benchmarks.planted_cells import FACTS, UNTRAINED, Cell, write
from benchmarks.planted_data import COLLECTIONS
from benchmarks.planted_folds import FOLDS
from benchmarks.planted_folds import SEED as DEAL_BEFORE
from tests.benchmarks.planted_toy import toy

RECIPES = len(planted_tuned.GRID["steps"]) * len(planted_tuned.GRID["temperature"])
GROUPS = pl.DataFrame({"query_id": [f"q{n}" for n in range(10)], "fold": [n % FOLDS for n in range(10)]})


def searched(rng: np.random.Generator, best: dict[str, tuple[float, float]]) -> pl.DataFrame:
    """Scores of a search in which each treatment is best by one recipe."""
    rows = [
        (cell.treatment, cell.fold, cell.other, cell.steps, cell.temperature, f"q{query}", float(value))
        for cell in planted_tuned.search_cells()
        if cell.collection == COLLECTIONS[0]
        for query in (cell.fold, cell.other, cell.fold + FOLDS, cell.other + FOLDS)
        for value in [0.5 + rng.normal(0, 0.01) + 0.1 * (best[cell.treatment] == (cell.steps, cell.temperature))]
    ]
    return pl.DataFrame(
        rows, orient="row", schema=["treatment", "fold", "other", *planted_tuned.GRID, "query_id", "value"]
    )


def recipe(steps: float, temperature: float) -> dict[str, float]:
    return {"steps": steps, "temperature": temperature}


def test_the_search_is_the_same_for_each_treatment_and_meets_no_seed_or_deal_of_the_third_trial() -> None:
    cells = planted_tuned.search_cells()
    assert len({cell.file for cell in cells}) == len(cells) == 10 * 2 * RECIPES * len(planted_tuned.TREATMENTS)
    assert {(cell.fold, cell.other) for cell in cells} == set(combinations(range(FOLDS), 2))
    first = [fold for pair in planted_tuned.PAIRS[:FOLDS] for fold in pair]
    assert sorted(first) == sorted([*range(FOLDS)] * 2)
    of = {name: [(c.collection, c.fold, c.other, c.seed, c.steps, c.temperature) for c in cells if c.treatment == name]
          for name in planted_tuned.TREATMENTS}  # fmt: skip
    assert all(found == of["default"] for found in of.values())
    assert not {cell.seed for cell in cells} & {*planted.SEEDS, *planted_tuned.SEEDS}
    assert not set(planted.SEEDS) & set(planted_tuned.SEEDS) and planted_tuned.DEAL != DEAL_BEFORE


def test_each_treatment_gets_its_best_recipe_and_the_test_fold_has_no_part_in_the_choice() -> None:
    names = planted_tuned.TREATMENTS
    best = {name: (30, 0.05) if number % 2 else (90, 0.1) for number, name in enumerate(names)}
    scores = searched(np.random.default_rng(0), best)
    chosen = planted_tuned.choose(scores, GROUPS)
    assert chosen == {name: [recipe(*best[name])] * FOLDS for name in names}
    misled = (pl.col("query_id").is_in(["q2", "q7"])) & (pl.col("steps") == 180)
    changed = planted_tuned.choose(scores.with_columns(value=pl.col("value") + 9 * misled), GROUPS)
    assert all(changed[name][2] == chosen[name][2] for name in names)
    assert all(changed[name][fold]["steps"] == 180 for name in names for fold in (0, 1, 3, 4))


def test_of_two_recipes_that_are_equally_good_the_shorter_is_chosen() -> None:
    flat = searched(np.random.default_rng(0), dict.fromkeys(planted_tuned.TREATMENTS, (90, 0.1)))
    chosen = planted_tuned.choose(flat.with_columns(value=pl.lit(0.5)), GROUPS)
    assert chosen["default"] == [recipe(30, 0.05)] * FOLDS


def test_a_tested_cell_is_trained_by_its_own_recipe_or_by_that_of_another() -> None:
    own = {"default": [recipe(30, 0.1)] * FOLDS, "relabel_oracle": [recipe(90, 0.05)] * FOLDS}
    recipes = dict.fromkeys(COLLECTIONS, own)
    cells = planted_tuned.tested_cells(recipes, ["relabel_oracle"])
    assert len(set(cells)) == 2 * FOLDS * 5 and {(c.steps, c.temperature) for c in cells} == {(90, 0.05)}
    lent = planted_tuned.tested_cells(recipes, ["relabel_oracle"], "default")
    assert {(c.steps, c.temperature, c.treatment) for c in lent} == {(30, 0.1, "relabel_oracle")}
    assert [c.seed for c in cells] == sorted(c.seed for c in cells)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> argparse.Namespace:
    collection, made = toy(tmp_path)
    monkeypatch.setattr(planted_tuned, "prepare", lambda *_: (collection, made, tmp_path))
    monkeypatch.setattr(planted, "recipe_commit", lambda path: {"recipe_commit": path.name})
    monkeypatch.setattr(planted, "RESULT", tmp_path / "planted.json")
    for name, path in (("RECIPE", "recipe.json"), ("PLOT", "tuned.svg")):
        monkeypatch.setattr(planted_tuned, name, tmp_path / path)
    (tmp_path / "planted.json").write_text('{"reached": "before"}')
    for name in COLLECTIONS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "judges.json").write_text("{}")
    (tmp_path / "cells").mkdir()
    return argparse.Namespace(folder=tmp_path, data=tmp_path)


def finish(asked: argparse.Namespace, cells: list[Cell], gain: float = 0.0) -> None:
    collection, *_ = planted_tuned.prepare(*[None] * 4)
    for cell in cells:
        rng = np.random.default_rng(zlib.crc32(cell.file.encode()))
        tested = collection.groups.filter(pl.col("fold").is_in([cell.fold, cell.other]))["query_id"]
        scores = {one: 0.3 + gain + rng.normal(0, 0.01) for one in tested}
        write(asked.folder / "cells" / cell.file, {"scores": scores, **dict.fromkeys(FACTS, 1.0)})


def test_recipes_are_frozen_by_a_whole_search_only_and_the_result_stands_beside_the_third_trial(
    asked: argparse.Namespace,
) -> None:
    search = planted_tuned.search_cells()
    half = len(search) // 2
    finish(asked, search[1:half])
    with pytest.raises(SystemExit, match=f"1 of {half} cells are missing"):
        planted_tuned.freeze(asked)
    for cells, pairs in ((search[:1], 5), (search[half:], 10)):
        finish(asked, cells)
        planted_tuned.freeze(asked)
        assert len(json.loads(planted_tuned.RECIPE.read_text())["pairs"]) == pairs
    recipes = planted_tuned.read_recipes()
    assert {len(folds) for one in recipes.values() for folds in one.values()} == {FOLDS}

    finish(asked, [Cell(name, UNTRAINED, fold, 0) for name in COLLECTIONS for fold in range(FOLDS)], -0.1)
    finish(asked, planted_tuned.tested_cells(recipes, ["default"]))
    planted_tuned.summarise(asked, recipes)
    first = json.loads(planted.RESULT.read_text())
    assert first["reached"] == "before" and first["tuned"]["recipe_commit"] == "recipe.json"
    assert first["tuned"]["collections"][0]["detectable"]["seeds_only"] > 0 and not planted_tuned.PLOT.exists()

    others = [*planted_tuned.tested_cells(recipes, planted_tuned.TREATMENTS[1:])]
    others += planted_tuned.tested_cells(recipes, planted_tuned.BORROWED, "default")
    finish(asked, [cell for cell in others if cell.treatment != "relabel_oracle"])
    finish(asked, [cell for cell in others if cell.treatment == "relabel_oracle"], 0.3)
    planted_tuned.summarise(asked, recipes)
    tuned = json.loads(planted.RESULT.read_text())["tuned"]
    assert list(tuned["reached"].values()) == [True, False]
    best = tuned["collections"][1]["treatments"][0]
    assert best["name"] == "relabel_oracle" and best["low"] > 0 and best["by_shared_passages"]["low"] > 0
    assert len(best["by_fold"]) == FOLDS and min(best["by_fold"]) > 0.2 and best["rows"] == 1.0
    assert {row["name"] for row in tuned["collections"][0]["by_the_recipes_of_default"]} == {
        "default", *planted_tuned.BORROWED,
    }  # fmt: skip
    assert planted_tuned.PLOT.read_text().startswith("<svg")


def test_a_seed_of_which_a_cell_is_missing_is_left_out(asked: argparse.Namespace) -> None:
    cells = [Cell("toy", "default", fold, seed) for seed in (1, 2) for fold in (0, 1)]
    finish(asked, cells[:-1])
    assert planted_tuned.whole_seeds(asked.folder / "cells", cells) == cells[:2]
