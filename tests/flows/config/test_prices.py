"""Prices of tokens and hours, and budgets in money."""

from pathlib import Path
from typing import Any

import pytest

from flows.config.curation import BudgetConfig
from flows.config.engines import VLLMConfig
from flows.config.prices import Prices, TokenPrice, encoding_endpoints, load_prices, with_prices
from flows.config.section import ConfigError
from infra.engines.specs import OpenAIBatchSpec, OpenAISpec
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


def test_an_engine_of_our_own_costs_the_hours_of_its_device() -> None:
    prices = Prices(hours={"cuda": 2.5})
    assert prices.of(VLLMConfig(device="cuda")) == Price(hour=2.5)
    assert prices.of(VLLMConfig(device="cpu")) == Price(hour=0.0)


def test_a_model_without_a_price_of_cached_tokens_has_none_in_batches_either() -> None:
    prices = Prices(models={"m": TokenPrice(input=4.0, output=8.0)}, batch=0.25)
    assert prices.of(OpenAISpec(model="m")) == Price(4.0, None, 8.0)
    assert prices.of(OpenAIBatchSpec(model="m")) == Price(1.0, None, 2.0)
    assert prices.of(OpenAISpec(model="other")) is None


def test_the_gold_sets_questions_are_priced_where_there_is_a_gold_set() -> None:
    tiers = [{"name": "a", "engine": OPENAI}]
    priced = load_prices(config()).of_stages(config(tiers=tiers, gold={"path": "gold.jsonl"}))
    assert priced == {"judge-a": Price(2.5, 1.25, 10.0), "judge-gold-a": Price(2.5, 1.25, 10.0)}


def test_a_budget_in_money_that_every_tier_counts_against_is_taken() -> None:
    within = config(tiers=[{"engine": OPENAI}], budget={"money": 5.0})
    assert load_prices(within).of_stages(within) == {"judge-llm": Price(2.5, 1.25, 10.0)}


def test_prices_can_stand_in_the_configuration_itself() -> None:
    own = {"currency": "EUR", "models": {"m": {"input": 1, "output": 2}}}
    assert load_prices(config(prices=own)) == Prices(currency="EUR", models={"m": TokenPrice(input=1, output=2)})
    budget = config(tiers=[{"engine": {**OPENAI, "model": "x"}}], prices=own, budget={"money": 1})
    with pytest.raises(ConfigError, match=r"no price for x in the configuration"):
        load_prices(budget).of_stages(budget)


def test_a_price_file_is_taken_into_the_configuration_and_everything_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("currency: EUR\nmodels: {m: {input: 1, output: 2}}\n")
    taken = with_prices(config(prices=str(path)))
    path.unlink()
    assert load_prices(taken).models == {"m": TokenPrice(input=1, output=2)}
    assert with_prices(config()).prices is None
    assert with_prices(taken) == taken


@pytest.mark.parametrize("wrong", [{"input": -1, "output": 1}, {"input": 1, "output": -1}, {"input": 1}])
def test_a_price_below_nothing_or_of_half_an_answer_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="is not a price file"):
        load_prices(config(prices={"models": {"m": wrong}}))


def test_an_audit_sample_costs_what_its_tier_costs() -> None:
    tiers = [{"name": "a", "engine": OPENAI, "escalate": {"target": {"recall": 0.9}}}]
    prices = load_prices(config()).of_stages(config(tiers=tiers))
    assert prices["judge-a-audit"] == prices["judge-a"] == Price(2.5, 1.25, 10.0)


def test_an_endpoint_that_encodes_has_a_price_of_its_own_in_each_of_its_stages() -> None:
    far = {"kind": "openai_embeddings", "model": "text-embedding-3-small"}
    settings = {"encoder": far, "tiers": [], "train": None, "gold": {"path": "gold.jsonl"}}
    own = config(**settings)
    names = ["encode_passages", "encode_queries", "encode_passages-gold", "encode_queries-gold"]
    assert load_prices(own).of_stages(own) == dict.fromkeys(names, Price(0.02, None, 0.0))
    beside = config(encoders={"far": far}, mine={"retrievers": ["far"]}, tiers=[])
    assert list(encoding_endpoints(beside)) == ["encode_passages-far", "encode_queries-far"]
    broke = config(**{**settings, "encoder": {**far, "model": "nobody-knows"}}, budget={"money": 5.0})
    with pytest.raises(ConfigError, match="no price for nobody-knows"):
        load_prices(broke).of_stages(broke)


def test_the_stage_of_a_reranker_has_the_price_of_its_hours() -> None:
    rescore = {"engine": {"kind": "cross_encoder", "model": "path:m", "device": "cuda"}}
    asked = config(tiers=[{"name": "a", "engine": OPENAI}], rescore=rescore)
    prices = Prices(hours={"cuda": 2.5}, models=load_prices(asked).models).of_stages(asked)
    assert prices == {"judge-a": Price(2.5, 1.25, 10.0), "rescore": Price(hour=2.5)}
    free = asked.model_copy(update={"budget": BudgetConfig(money=5.0)})
    with pytest.raises(ConfigError, match="the price of `rescore` is 0"):
        Prices(hours={"cuda": 0.0}, models=load_prices(asked).models).of_stages(free)


def test_questions_about_held_out_queries_cost_what_their_tier_costs() -> None:
    tiers = [{"name": "a", "engine": OPENAI, "escalate": {"target": {"recall": 0.9}}}]
    pooled = config(tiers=tiers, evaluate={"pool": {"depth": 5}})
    prices = load_prices(pooled).of_stages(pooled)
    assert set(prices) == {"judge-a", "judge-a-audit", "judge-heldout-a", "judge-heldout-a-audit"}
    assert set(prices.values()) == {Price(2.5, 1.25, 10.0)}
