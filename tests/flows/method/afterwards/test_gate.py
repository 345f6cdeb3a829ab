"""What the promotion gate trains and scores, in process, with a real tiny model that really trains."""

import polars as pl
import pytest

from flows.method.afterwards.gate import GateConfig, gate_method
from flows.method.afterwards.retrain import RetrainConfig, retrain_method
from infra.storage.artifacts import read_table
from tests.flows.trained import Place

pytestmark = pytest.mark.slow  # a model is trained, tiny as it is

WANTED = GateConfig(treatment="relabel", against="default", seeds=3)


def test_both_systems_are_trained_with_each_seed_and_a_retraining_is_reused(curated: Place) -> None:
    run, executor = curated.runner()
    gated = gate_method(run, curated.setup, WANTED)
    scores = read_table(curated.store, gated.scores)
    counted = scores.group_by("model").agg(seeds=pl.col("seed").unique().sort())
    assert dict(counted.rows()) == {"default": [42, 43, 44], "relabel": [42, 43, 44]}
    assert sorted(gated.models) == [42, 43, 44]
    again, executor = curated.runner()
    retrain_method(again, curated.setup, RetrainConfig(treatments=("default", "relabel")))
    assert {name.partition("-")[0] for name in executor.computed} <= {"compare"}


def test_released_models_are_scored_on_tonights_queries(curated: Place) -> None:
    run, _ = curated.runner()
    models = gate_method(run, curated.setup, WANTED).models
    released = {seed: dict(model.files) for seed, model in models.items()}
    run, executor = curated.runner()
    gated = gate_method(run, curated.setup, WANTED.model_copy(update={"released": released}))
    assert executor.computed == [f"evaluate-released_s{seed}-00000" for seed in (42, 43, 44)]
    scores = read_table(curated.store, gated.scores)
    keys = ["dataset", "measure", "query_id", "seed", "value"]
    same = [scores.filter(model=name).select(keys).sort(keys) for name in ("released", "relabel")]
    assert same[0].equals(same[1])


def test_the_untrained_model_is_scored_once(curated: Place) -> None:
    run, _ = curated.runner()
    gated = gate_method(run, curated.setup, WANTED.model_copy(update={"against": "base", "seeds": 2}))
    counted = read_table(curated.store, gated.scores).group_by("model").agg(seeds=pl.col("seed").unique().sort())
    assert {model: len(seeds) for model, seeds in counted.rows()} == {"base": 1, "relabel": 2}
