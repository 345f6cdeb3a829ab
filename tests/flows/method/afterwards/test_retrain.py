"""Retraining, pruning and validation of a finished curation, in process, with a real tiny model that really trains."""

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.method.afterwards.retrain import PruneConfig, RetrainConfig, labels_of, prune_method, retrain_method
from flows.method.afterwards.validate import ValidateConfig, validate_method
from infra.storage.artifacts import read_table
from tasks.schemas import HUMAN
from tests.flows.trained import Place, keep_labels

pytestmark = pytest.mark.slow  # a model is trained, tiny as it is


def test_every_treatment_and_seed_is_a_part_of_its_own_and_the_curations_own_training_is_reused(curated: Place) -> None:
    run, executor = curated.runner()
    outcome = retrain_method(run, curated.setup, RetrainConfig())
    seeds = (42, 43, 44)
    assert {r.name for r in run.runs} == {
        "compare",
        *(f"{stage}-{t}_s{seed}" for stage in ("train", "evaluate") for t in ("default", "relabel") for seed in seeds),
    }
    assert "train-default_s42-00000" not in executor.computed
    assert "train-relabel_s43-00000" in executor.computed
    scores = read_table(curated.store, outcome.scores)
    assert set(scores["seed"]) == set(seeds)
    assert set(scores["model"]) == {"default", "relabel"}
    summary = json.loads(curated.file(outcome.page, "comparison.json"))
    assert summary["seeds"] == [42, 43, 44]
    assert summary["comparisons"]["relabel"][0]["dataset"] == "all"
    assert "42, 43, 44" in curated.file(outcome.page, "comparison.md")
    assert "modules.json" in outcome.models["relabel", 42].files
    again, executor = curated.runner()
    retrain_method(again, curated.setup, RetrainConfig())
    assert executor.computed == []


def test_steps_and_treatments_can_be_named(curated: Place) -> None:
    run, _ = curated.runner()
    outcome = retrain_method(run, curated.setup, RetrainConfig(treatments=("remove_hn",), seeds=1, steps=1))
    assert {r.name: r.failed for r in run.runs if r.failed} == {}
    assert set(outcome.models) == {("remove_hn", 42)}
    assert json.loads(curated.file(outcome.models["remove_hn", 42], "training.json"))["steps"] == 1
    assert json.loads(curated.file(outcome.page, "comparison.json"))["comparisons"] == {}


def test_each_dataset_is_left_out_once_whatever_its_name(curated: Place) -> None:
    run, _ = curated.runner()
    outcome = prune_method(run, curated.setup, PruneConfig(seeds=2))
    assert {r.name: r.failed for r in run.runs if r.failed or r.blocked} == {}
    labels = labels_of(sorted(f"{name}" for name in set(read_table(curated.store, outcome.pruning)["left_out"])))
    assert len(set(labels.values())) == 3
    assert {f"train-without-{label}_s43" for label in labels.values()} <= {r.name for r in run.runs}
    table = read_table(curated.store, outcome.pruning)
    assert set(table["verdict"]) <= {"hurts", "helps", "not shown"}
    assert set(table["seeds"]) == {2}
    assert set(table["held_out"]) == {"all", *table["left_out"]}
    without = next(r for r in run.runs if r.name == f"leave_out-{labels[table['left_out'][0]]}")
    mixes = pl.concat(
        pl.read_parquet(io.BytesIO(curated.store.get_object(p.object)))
        for m in without.manifests
        for p in m.tables["mix"]
    )
    assert set(mixes["dataset"]) == set(table["left_out"]) - {table["left_out"][0]}
    assert "reported on others" in curated.file(outcome.page, "pruning.md")
    again, executor = curated.runner()
    prune_method(again, curated.setup, PruneConfig(seeds=2))
    assert executor.computed == []


def test_a_dataset_that_is_not_in_the_mix_cannot_be_left_out(curated: Place) -> None:
    run, executor = curated.runner()
    with pytest.raises(ConfigError, match="no 'nq' in the mix, which holds"):
        prune_method(run, curated.setup, PruneConfig(datasets=("nq",)))
    assert executor.computed == []


def test_what_cannot_be_done_is_refused_before_anything_is_computed(tmp_path: Path, tiny_model: Path) -> None:
    unfinished = Place(tmp_path / "unfinished", tiny_model)
    run, executor = unfinished.runner()
    with pytest.raises(ConfigError, match=r"animals is unfinished .*run it to its end first"):
        retrain_method(run, unfinished.setup, RetrainConfig())
    with pytest.raises(ConfigError, match="holds no labels of people; fill in the sheet"):
        validate_method(run, unfinished.setup, ValidateConfig())
    strange = {"query_hash": "q", "text_hash": "t", "annotator": "a", "label": "relevant", "at": "2026"}
    keep_labels(unfinished.store, pl.DataFrame([{**strange, "curation": "", "comment": ""}], schema=HUMAN.columns))
    with pytest.raises(ConfigError, match=r"has not finished .*; run it to its end first"):
        validate_method(run, unfinished.setup, ValidateConfig())
    alone = Place(tmp_path / "alone", tiny_model, ("fever",)).curate()
    with pytest.raises(ConfigError, match="at least two datasets in the training mix, it holds only"):
        prune_method(run := alone.runner()[0], alone.setup, PruneConfig())
    assert run.runs == []
    nothing_held_out = Place(tmp_path / "all", tiny_model, ("fever",), ingest={}).curate()
    with pytest.raises(ConfigError, match="holds no queries out"):
        retrain_method(nothing_held_out.runner()[0], nothing_held_out.setup, RetrainConfig())
    few = {"train": None, "treatments": ["default", "relabel"]}
    untrained = Place(tmp_path / "untrained", tiny_model, ("fever",), **few).curate()
    with pytest.raises(ConfigError, match="some of default, relabel expected, remove came"):
        prune_method(untrained.runner()[0], untrained.setup, PruneConfig(treatment="remove"))
    with pytest.raises(ConfigError, match="trains no model"):
        retrain_method(untrained.runner()[0], untrained.setup, RetrainConfig())
    assert executor.computed == []


def test_a_failed_training_blocks_the_comparison_and_nothing_else(curated: Place) -> None:
    run, executor = curated.runner()
    compute = executor.run_stage

    def fail_one(name: str, specs: Any, finished: Any) -> Any:
        from infra.stages.runner import Failure

        return {0: Failure("no such model")} if name == "train-relabel_s43" else compute(name, specs, finished)

    executor.run_stage = fail_one  # type: ignore[method-assign]
    retrain_method(run, curated.setup, RetrainConfig(seeds=2, steps=3))
    done = {r.name: r for r in run.runs}
    assert done["train-relabel_s43"].failed == {0: "no such model"}
    assert done["evaluate-relabel_s43"].blocked == 1
    assert done["compare"].blocked == 1
    assert done["evaluate-relabel_s42"].computed + done["evaluate-relabel_s42"].reused == 1


def test_datasets_named_like_paths_or_in_other_scripts_have_labels_of_their_own() -> None:
    labels = labels_of(["a/b", "a b", "../../etc", "東京", "x" * 200, "x" * 201])
    assert len(set(labels.values())) == 6
    for label in labels.values():
        assert set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
        assert len(label) < 60
    assert labels_of(["fever", "a/b"])["fever"] == "fever"
