"""What each stage is granted: of the machine, of time, and how often."""

from flows.config.resources import resources_of
from tests.flows.settings import config

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
