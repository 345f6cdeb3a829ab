"""The planted benchmark as a whole: its cells, its frozen recipe, and its results file."""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import planted
from benchmarks.planted_cells import FACTS, UNTRAINED, Cell, write
from benchmarks.planted_data import COLLECTIONS
from benchmarks.planted_folds import FOLDS
from benchmarks.planted_treatments import TREATMENTS
from tests.benchmarks.planted_toy import toy

ME = ("-c", "user.name=me", "-c", "user.email=me@example.com")


def test_each_stage_has_its_cells_once() -> None:
    cells = {stage: planted.cells_of(stage) for stage in planted.STAGES}
    assert len(cells["default"]) == 2 * FOLDS * (1 + 5)
    assert len(cells["cells"]) == len(set(cells["cells"])) == 2 * FOLDS * 5 * len(TREATMENTS)
    assert set(cells["default"]) - set(cells["cells"]) == {c for c in cells["default"] if c.treatment == UNTRAINED}
    assert not set(cells["more"]) & set(cells["cells"])
    assert {cell.model for cell in cells["minilm"]} == {"minilm"}
    assert cells["summary"] == cells["judge"] == []
    files = [cell.file for stage in cells.values() for cell in set(stage)]
    assert len(set(files)) == len({cell for stage in cells.values() for cell in stage})


def test_a_recipe_that_is_not_committed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "RECIPE", planted.HERE / "no_such_recipe.json")
    with pytest.raises(SystemExit, match="a committed recipe expected"):
        planted.recipe_commit()


def test_the_frozen_recipe_is_named_by_commit_subject_date_and_digest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = tmp_path / "benchmarks" / "recipe.json"
    recipe.parent.mkdir()
    recipe.write_text("{}\n")
    monkeypatch.setattr(planted, "HERE", recipe.parent)
    monkeypatch.setattr(planted, "RECIPE", recipe)
    planted._git("init", "--quiet")
    planted._git(*ME, "commit", "--quiet", "--allow-empty", "-m", "Begin")
    with pytest.raises(SystemExit, match="a committed recipe expected"):
        planted.recipe_commit()
    planted._git("add", str(recipe))
    planted._git(*ME, "commit", "--quiet", "-m", "Freeze it")
    found = planted.recipe_commit()
    assert found["recipe_commit"] == planted._git("rev-parse", "HEAD") and found["recipe_subject"] == "Freeze it"
    assert found["recipe_sha256"] == hashlib.sha256(b"{}\n").hexdigest() and found["recipe_date"][:2] == "20"
    recipe.write_text('{"steps": 1}\n')
    with pytest.raises(SystemExit, match="a committed recipe expected"):
        planted.recipe_commit()


def test_the_results_hold_what_is_finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    collection, made = toy(tmp_path)
    monkeypatch.setattr(planted, "prepare", lambda *_: (collection, made, tmp_path))
    monkeypatch.setattr(planted, "recipe_commit", lambda: {"recipe_commit": "a" * 40})
    for name, path in (("RECIPE", "recipe.json"), ("RESULT", "planted.json"), ("PLOT", "planted.svg")):
        monkeypatch.setattr(planted, name, tmp_path / path)
    chosen = {name: {"chosen": {"steps": 5}} for name in COLLECTIONS}
    (tmp_path / "recipe.json").write_text(json.dumps({"collections": chosen}))
    folder, rng = tmp_path / "cells", np.random.default_rng(0)
    folder.mkdir()
    asked = argparse.Namespace(folder=tmp_path, data=tmp_path)
    gain = {UNTRAINED: 0.0, "default": 0.1, "relabel_oracle": 0.3}

    def finish(cells: list[Cell]) -> None:
        for cell in cells:
            tested = collection.with_splits({cell.fold: "test"}).queries.filter(split="test")["query_id"]
            scores = {one: 0.3 + gain[cell.treatment] + rng.normal(0, 0.01) for one in tested}
            write(folder / cell.file, {"scores": scores, **dict.fromkeys(FACTS, 1.0)})

    finish(planted.cells_of("default"))
    (tmp_path / "planted.json").write_text('{"tuned": "kept", "reached": "not kept"}')
    planted.summarise(asked)
    first = json.loads((tmp_path / "planted.json").read_text())
    assert first["collections"][0]["detectable"]["seeds_only"] > 0 and not (tmp_path / "planted.svg").exists()
    assert first["tuned"] == "kept" and first["reached"] != "not kept"
    finish([cell for cell in planted.cells_of("cells") if cell.treatment == "relabel_oracle"])
    finish([cell for cell in planted.cells_of("minilm") if cell.treatment in gain])
    finish([cell for cell in planted.cells_of("more") if cell.treatment in gain])
    finish([cell for cell in planted.cells_of("longer") if cell.treatment in gain])
    planted.summarise(asked)
    result = json.loads((tmp_path / "planted.json").read_text())
    assert result["reached"] == {
        "relabel_oracle beats default on both": True,
        "relabel_judges beats default on at least one": False,
    }
    best = result["collections"][1]["treatments"][0]
    assert best["name"] == "relabel_oracle" and best["low"] > 0 and best["difference"] == pytest.approx(0.2, abs=0.02)
    assert {(row["share"], row["negatives"]) for row in result["collections"][0]["curve_and_grid"]} == {
        (1.0, 7), (1.0, 1), (1.0, 2), (0.5, 7), (0.25, 7),
    }  # fmt: skip
    longer = result["collections"][0]["longer"]
    for compared in (longer["treatments"], longer["beside_the_frozen_default"]):
        assert [row["name"] for row in compared] == ["relabel_oracle", "default"] and compared[0]["low"] > 0
    assert result["minilm"]["treatments"][0]["name"] == "relabel_oracle"
    assert (tmp_path / "planted.svg").read_text().startswith("<svg")
