"""Prices of tokens and hours, and budgets in money."""

from typing import Any

import pytest

from flows.config.prices import load_prices
from flows.config.section import ConfigError
from infra.execution.usage_meter import Price
from tests.flows.settings import config

OPENAI = {"kind": "openai", "model": "gpt-4o-2024-11-20"}


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
