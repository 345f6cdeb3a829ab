"""What each stage is granted: of the machine, of time, and how often."""

import pytest

from flows.config.resources import resources_of
from flows.stages import STAGES
from tests.flows.settings import config, refuse

OPENAI = {"kind": "openai", "model": "gpt-4o-2024-11-20"}


def test_engines_get_what_they_need_unless_the_configuration_says_otherwise() -> None:
    tiers = [
        {"name": "big", "engine": {"device": "cuda", "tensor_parallel_size": 2}, "engines": 3},
        {"name": "far", "engine": OPENAI},
        {"name": "far_batch", "engine": {**OPENAI, "kind": "openai_batch"}},
    ]
    found = resources_of(config(tiers=tiers).tiers, {})
    assert (found["judge-big"].num_gpus, found["judge-big"].engines) == (2.0, 3)
    assert found["judge-far"].num_cpus == 0.1
    assert found["judge-far_batch"].deadline == 7 * 24 * 3600.0
    changes = {"judge": {"deadline": 60}, "judge-big": {"num_gpus": 8, "deadline": 90}}
    told = config(tiers=tiers, resources=changes)
    changed = resources_of(told.tiers, told.resources)
    assert (changed["judge-big"].num_gpus, changed["judge-big"].deadline) == (8.0, 90.0)
    assert (changed["judge-far"].deadline, changed["judge-far"].num_cpus) == (60.0, 0.1)


def test_the_gold_set_is_asked_of_one_engine_however_many_the_tier_has() -> None:
    found = resources_of(config(tiers=[{"name": "big", "engine": {"device": "cuda"}, "engines": 3}]).tiers, {})
    assert (found["judge-big"].engines, found["judge-gold-big"].engines) == (3, 1)
    assert found["judge-gold-big"].num_gpus == 1.0


def test_an_engine_on_the_cpu_keeps_what_the_stage_table_grants() -> None:
    found = resources_of(config().tiers, {})
    assert (found["judge-llm"].num_cpus, found["judge-llm"].num_gpus) == (2.0, 0.0)
    assert found["mine"] == STAGES[5].resources


def test_a_stage_with_a_label_of_its_own_is_configured_from_the_stages_values() -> None:
    changes = {"train-relabel": {"num_gpus": 1}, "train": {"num_cpus": 4}}
    told = config(resources=changes)
    found = resources_of(told.tiers, told.resources)
    assert (found["train"].num_cpus, found["train"].num_gpus) == (4.0, 0.0)
    assert (found["train-relabel"].num_cpus, found["train-relabel"].num_gpus) == (4.0, 1.0)


@pytest.mark.parametrize("wrong", [{"num_cpus": 0}, {"num_gpus": -1}, {"memory": 0}, {"deadline": 0}])
def test_a_grant_of_nothing_is_refused(wrong: dict[str, float]) -> None:
    assert f"resources.judge.{next(iter(wrong))}" in refuse({"resources": {"judge": wrong}})
    assert config(resources={"judge": {"num_gpus": 0}}).resources["judge"].num_gpus == 0


def test_an_audit_sample_is_judged_with_what_its_tier_gets_unless_it_is_named_itself() -> None:
    tiers = [{"name": "big", "engine": {"device": "cuda"}, "escalate": {"target": {"recall": 0.9}}}]
    told = config(tiers=tiers, resources={"judge-big": {"deadline": 90}})
    found = resources_of(told.tiers, told.resources)
    assert found["judge-big-audit"] == found["judge-big"]
    assert found["judge-heldout-big-audit"] == found["judge-heldout-big"]
    assert found["judge-heldout-big"].num_gpus == 1.0
    assert (found["judge-big"].deadline, found["judge-big"].num_gpus) == (90.0, 1.0)
    told = config(tiers=tiers, resources={"judge-big-audit": {"deadline": 30}})
    assert resources_of(told.tiers, told.resources)["judge-big-audit"].deadline == 30.0


def test_an_endpoint_that_encodes_needs_hardly_any_cpu_and_a_model_beside_it_keeps_its_own() -> None:
    far = {"kind": "openai_embeddings", "model": "m"}
    settings = {"encoders": {"gte": {}}, "mine": {"retrievers": ["dense", "gte"]}, "train": None}
    told = config(encoder=far, **settings, resources={"encode_passages": {"deadline": 90}})
    found = resources_of(told.tiers, told.resources, told.all_encoders)
    assert (found["encode_passages"].num_cpus, found["encode_passages"].deadline) == (0.1, 90.0)
    assert (found["encode_queries"].num_cpus, found["encode_queries-gte"].num_cpus) == (0.1, 2.0)
    assert found["encode_passages-gte"].deadline == 90.0
    local = config()
    assert resources_of(local.tiers, {}, local.all_encoders) == resources_of(local.tiers, {})
