from typing import Any

import pytest

from flows.config.load import parse_config
from flows.config.prices import load_prices
from flows.config.resources import resources_of
from flows.config.section import ConfigError
from infra.execution.usage_meter import Price

LOCAL = {"engine": {"kind": "vllm"}}
OPENAI = {"kind": "openai", "model": "gpt-4o-2024-11-20"}


def config(**changes: Any) -> Any:
    return parse_config({"name": "n", "source": {"path": "rows.jsonl"}, **changes}, "my.yaml")


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


def test_prices_are_those_of_the_file_and_half_of_them_in_batches() -> None:
    tiers = [{"name": "a", "engine": OPENAI}, {"name": "b", "engine": {**OPENAI, "kind": "openai_batch"}}]
    prices = load_prices(config()).of_stages(config(tiers=tiers))
    assert prices == {"judge-a": Price(2.5, 1.25, 10.0), "judge-b": Price(1.25, 0.625, 5.0)}


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({**OPENAI, "model": "nobody-knows"}, "no price for nobody-knows"),
        ({"device": "cuda"}, "the price of tier llm is 0"),
    ],
)
def test_a_budget_in_money_needs_prices(engine: dict[str, Any], message: str) -> None:
    tiers = [{"engine": engine}]
    assert load_prices(config(tiers=tiers)).of_stages(config(tiers=tiers)) is not None
    broke = config(tiers=tiers, budget={"money": 5.0})
    with pytest.raises(ConfigError, match=message):
        load_prices(broke).of_stages(broke)


def test_a_price_file_that_is_none_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("models: {m: {input: cheap}}")
    with pytest.raises(ConfigError, match="is not a price file"):
        load_prices(config(prices=str(path)))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prices(config(prices=str(tmp_path / "nowhere.yaml")))
