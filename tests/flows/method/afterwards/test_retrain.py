"""Retraining and validation of a finished curation, in process, with a real tiny model that really trains."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.method.afterwards.retrain import RetrainConfig, Training, retrain_method
from flows.method.afterwards.validate import ValidateConfig, validate_method
from flows.method.curate import finished_curation
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


def test_a_training_that_reads_no_verdict_is_given_none_though_they_are_listed_for_a_reranker(curated: Place) -> None:
    """Before, its keys were others than those of the curation's own training, which was computed again."""
    run, _ = curated.runner()
    done, setup = finished_curation(run, curated.setup), curated.setup
    assert Training.of(setup, done, 1, None).known is not None
    train = setup.config.train
    assert train is not None
    plain = setup.config.model_copy(update={"train": train.model_copy(update={"mask": "positives"})})
    assert Training.of(replace(setup, config=plain), done, 1, None).known is None


def test_steps_and_treatments_can_be_named(curated: Place) -> None:
    run, _ = curated.runner()
    outcome = retrain_method(run, curated.setup, RetrainConfig(treatments=("remove_hn",), seeds=1, steps=1))
    assert {r.name: r.failed for r in run.runs if r.failed} == {}
    assert set(outcome.models) == {("remove_hn", 42)}
    assert json.loads(curated.file(outcome.models["remove_hn", 42], "training.json"))["steps"] == 1
    assert json.loads(curated.file(outcome.page, "comparison.json"))["comparisons"] == {}


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
    nothing_held_out = Place(tmp_path / "all", tiny_model, ("fever",), ingest={}).curate()
    with pytest.raises(ConfigError, match="holds no queries out"):
        retrain_method(nothing_held_out.runner()[0], nothing_held_out.setup, RetrainConfig())
    few = {"train": None, "treatments": ["default", "relabel"]}
    untrained = Place(tmp_path / "untrained", tiny_model, ("fever",), **few).curate()
    with pytest.raises(ConfigError, match="some of default, relabel expected, remove came"):
        retrain_method(untrained.runner()[0], untrained.setup, RetrainConfig(treatments=("remove",)))
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
