"""Cells of the planted benchmark: trained, scored, kept, and not computed twice."""

import fcntl
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.planted_base import remembered_tokens
from benchmarks.planted_cells import FACTS, UNTRAINED, Bench, Cell, read_cells, run_cells, with_facts, write
from tests.benchmarks.planted_toy import build_static, toy
from tests.benchmarks.test_planted_treatments import evidence

RECIPE = {"steps": 5, "batch_size": 4, "num_negatives": 7, "learning_rate": 0.1, "mask": "positives", "threads": 1}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    collection, planted = toy(tmp_path)
    return Bench(collection, planted, evidence(planted), build_static(tmp_path / "base"), RECIPE)


def test_cells_are_kept_and_only_open_ones_are_run(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [Cell("toy", name, 0, seed) for name, seed in ((UNTRAINED, 0), ("default", 1), ("relabel_oracle", 1))]
    run_cells({"toy": bench}, cells, tmp_path / "cells")
    assert capsys.readouterr().out.count("s of CPU") == 3
    run_cells({"toy": bench}, [*cells, Cell("toy", "distillation", 0, 1)], tmp_path / "cells")
    assert capsys.readouterr().out.count("s of CPU") == 1
    scores = read_cells(tmp_path / "cells", [*cells, Cell("toy", "remove", 0, 1)])
    assert set(scores["treatment"]) == {UNTRAINED, "default", "relabel_oracle"}
    assert scores["value"].is_between(0, 1).all()
    tested = bench.collection.with_splits({0: "test"}).queries.filter(split="test")
    assert set(scores["query_id"]) == set(tested["query_id"])


def test_a_cell_that_another_process_runs_is_left_to_it(bench: Bench, tmp_path: Path) -> None:
    cells, folder = [Cell("toy", UNTRAINED, fold, 0) for fold in (0, 1)], tmp_path / "cells"
    folder.mkdir()
    with (folder / cells[0].file).with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run_cells({"toy": bench}, cells, folder)
        assert [(folder / cell.file).exists() for cell in cells] == [False, True]
    run_cells({"toy": bench}, cells, folder)
    assert (folder / cells[0].file).exists()


def test_a_cell_says_what_it_was_trained_on_and_is_the_same_again(bench: Bench) -> None:
    one = replace(bench, collection=bench.collection.with_splits({1: "test"}))
    first, second = (one.run(Cell("toy", "default", 1, 7)) for _ in range(2))
    assert (first["steps"], first["rows"], first["rows_with_fewer_negatives"]) == (5, 8, 0)
    assert first["scores"] == second["scores"]
    assert first["scores"] != one.run(Cell("toy", "default", 1, 8))["scores"] or first["scores"]


def test_a_share_of_the_queries_is_part_of_a_larger_share(bench: Bench) -> None:
    one = replace(bench, collection=bench.collection.with_splits({1: "test"}))
    half, whole = (one._used(Cell("toy", "default", 1, 7, share=share)) for share in (0.5, 1.0))
    assert len(half) == 4 and set(half) < set(whole)


def test_the_file_names_what_differs() -> None:
    assert Cell("a", "default", 1, 42).file == "static-a-default-f1-s42.json"
    assert Cell("a", "default", 1, 42, share=0.5, negatives=3).file == "static-a-default-share0.5-neg3-f1-s42.json"
    assert Cell("a", "default", 1, 42, steps=90).file == "static-a-default-steps90-f1-s42.json"


def test_a_second_fold_that_is_left_out_is_scored_by_the_same_model(bench: Bench, tmp_path: Path) -> None:
    cell = Cell("toy", "default", 1, 7, other=3, steps=3, temperature=0.2)
    assert cell.file == "static-toy-default-steps3-temperature0.2-without3-f1-s7.json"
    run_cells({"toy": bench}, [cell], tmp_path / "cells")
    assert json.loads((tmp_path / "cells" / cell.file).read_text())["rows"] == 6
    scores = read_cells(tmp_path / "cells", [cell])
    homes = scores.join(bench.collection.groups.select("query_id", home="fold"), on="query_id")["home"]
    assert sorted(homes) == [1, 1, 3, 3] and scores["temperature"].to_list() == [0.2] * 4


def test_facts_are_means_over_the_cells_that_are_there(tmp_path: Path) -> None:
    cells = [Cell("toy", "default", fold, 7) for fold in range(3)]
    for cell in cells[:2]:
        write(tmp_path / cell.file, dict.fromkeys(FACTS, cell.fold))
    (row,) = with_facts([{"name": "default", "ndcg10": 0.5}], tmp_path, cells)
    assert row == {"name": "default", "ndcg10": 0.5, **dict.fromkeys(FACTS, 0.5)}


def test_remembered_tokens_give_the_same_vectors(bench: Bench) -> None:
    from sentence_transformers import SentenceTransformer

    model, texts = SentenceTransformer(str(bench.base), device="cpu"), ["cats are nice", "what about boats", "cats"]
    before, known = model.encode(texts), dict[str, object]()
    with remembered_tokens(known):
        assert (model.encode(texts) == before).all()
        assert (model.encode(texts[::-1])[::-1] == before).all()
        with pytest.raises(ValueError, match="no prompt expected"):
            model.encode(texts, prompt="query: ")
    assert set(known) == set(texts)


def test_a_cell_may_have_other_steps_than_the_recipe(bench: Bench) -> None:
    one = replace(bench, collection=bench.collection.with_splits({1: "test"}))
    assert one.run(Cell("toy", "default", 1, 7, steps=3))["steps"] == 3


def test_cells_of_a_treatment_differ_from_those_of_the_baseline(bench: Bench) -> None:
    one = replace(bench, collection=bench.collection.with_splits({1: "test"}), recipe={**RECIPE, "steps": 20})
    made = {name: one.run(Cell("toy", name, 1, 7)) for name in ("default", "remove", "relabel_oracle")}
    assert made["remove"]["rows"] < made["default"]["rows"] == made["relabel_oracle"]["rows"]
    assert len({json.dumps(row["scores"]) for row in made.values()}) > 1
