"""The settings of the reranker that scores the pool."""

from typing import Any

import pytest

from flows.config.rescore import RescoreConfig
from flows.config.resources import resources_of
from infra.stages.part_keys import semantic
from tests.flows.settings import config, refuse

ENGINE = {"kind": "cross_encoder", "model": "path:/models/reranker"}


def _config(**changes: Any) -> RescoreConfig:
    return RescoreConfig.model_validate({"engine": ENGINE, **changes})


def test_without_the_section_nothing_is_rescored_and_no_key_covers_it() -> None:
    assert config().rescore is None
    assert "rescore" not in semantic(config())
    assert "rescore" in semantic(config(rescore={"engine": ENGINE}))


def test_the_reranker_is_asked_as_a_judge_with_the_same_engine_and_lengths_is() -> None:
    made = _config(passage_chars=700, engines=3).tier
    (tier,) = config(tiers=[{"name": "other", "engine": ENGINE, "judge": {"passage_chars": 700}}]).tiers
    assert (made.judge, made.engine, made.engines) == (tier.judge, tier.engine, 3)
    instructed = _config(engine={"kind": "vllm_reranker", "model": "path:/m"}, definition="What proves it.").tier
    assert (instructed.judge.instructed, instructed.judge.definition) == (True, "What proves it.")


def test_a_preset_gives_the_engine_and_how_it_is_asked_and_what_is_said_beside_it_counts_more() -> None:
    made = RescoreConfig.model_validate({"preset": "weak-cpu", "engine": {"max_seq_length": 256}})
    assert (made.engine.model, made.engine.max_seq_length) == ("hub:cross-encoder/ettin-reranker-68m-v1", 256)
    assert made.preset == ""  # the settings are all there


@pytest.mark.parametrize(
    ("rescore", "said"),
    [
        ({}, "engine"),
        ({"engine": {"kind": "vllm", "model": "path:/m"}}, "cross_encoder"),
        ({"preset": "strong-endpoint"}, "a reranker expected"),
        ({"engine": ENGINE, "depth": 5}, "25 (mine.range_max) to 100 (mine.depth) expected, got 5"),
        ({"engine": ENGINE, "depth": 101}, "25 (mine.range_max) to 100 (mine.depth) expected, got 101"),
        ({"engine": ENGINE, "definition": "nonesuch"}, "definition"),
        ({"engine": ENGINE, "relevant_from": 0.5}, "relevant_from"),
    ],
)
def test_what_cannot_be_a_reranker_of_the_pool_is_refused(rescore: dict[str, Any], said: str) -> None:
    assert said in refuse({"rescore": rescore})


def test_it_gets_the_gpus_that_its_engine_needs() -> None:
    engine = {"kind": "vllm_reranker", "model": "path:/m", "device": "cuda", "tensor_parallel_size": 2}
    told = refuse({"rescore": {"engine": engine}, "resources": {"rescore": {"num_gpus": 1}}})
    assert "rescore gets num_gpus=1, but the engine of `rescore` has tensor_parallel_size=2" in told
    made = config(rescore={"engine": engine, "engines": 3})
    granted = resources_of(made.tiers, made.resources, rescore=made.rescore)["rescore"]
    assert (granted.num_gpus, granted.engines) == (2.0, 3)
