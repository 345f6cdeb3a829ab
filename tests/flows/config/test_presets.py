"""Every preset is a tier that can be read, says what it needs, and gives way to what the tier says itself."""

from typing import Any

import pytest
from pydantic import ValidationError

from flows.config.engines import TierConfig
from flows.config.presets import load_preset, merged, preset_names, with_preset
from infra.models.resolve import parse

PLACES = ("cpu", "gpu", "8-gpus", "endpoint")


def tier(**settings: Any) -> TierConfig:
    return TierConfig.model_validate(settings)


def test_there_is_a_weak_and_a_strong_judge_for_every_place() -> None:
    wanted = {f"{strength}-{place}" for strength in ("weak", "strong") for place in PLACES}
    assert set(preset_names()) == wanted | {"offline-cpu"}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_a_tier_and_names_a_model_that_is_understood(name: str) -> None:
    about, made = load_preset(name).about, tier(preset=name)
    assert made.name == load_preset(name).tier["name"]
    on_gpu = getattr(made.engine, "device", "cpu") == "cuda"
    assert on_gpu == ("gpu" in name)
    if "endpoint" not in name:
        scheme = parse(made.engine.model)[0]
        assert (scheme in ("package", "w8a8")) == about.offline
        assert about.licence == "Apache-2.0"
    for figure in (about.pairs_per_second, about.quality):
        assert any(said in figure for said in ("makers say", "measured", "limits of your account"))


def test_the_preset_without_a_hub_is_a_model_of_the_packages() -> None:
    made = tier(preset="offline-cpu", escalate={"max_pairs": 5})
    assert made.engine.model == "w8a8:package:qwen2.5-coder-1.5b-instruct"
    assert (made.escalate.max_pairs, made.judge.protocol) == (5, "yes_no")


def test_what_the_tier_says_itself_counts() -> None:
    made = tier(
        preset="strong-cpu",
        name="mine",
        engine={"max_model_len": 1024, "template": {"like": "qwen3", "yes_token": "Yes"}},
    )
    assert made.name == "mine"
    assert made.engine.model_dump()["template"]["yes_token"] == "Yes"
    assert made.engine.model_dump()["max_model_len"] == 1024
    assert made.engine.model == "hub:Qwen/Qwen3-Reranker-0.6B"
    assert made.judge.instructed


def test_an_engine_of_another_kind_takes_nothing_of_the_presets_engine() -> None:
    made = tier(preset="strong-gpu", engine={"kind": "openai", "model": "mine"}, judge={"protocol": "graded"})
    assert (made.name, made.engine.kind, made.engine.model) == ("strong", "openai", "mine")
    assert made.judge.instructed is False


def test_a_tier_with_a_preset_is_kept_as_what_it_became() -> None:
    made = tier(preset="strong-gpu")
    assert "preset" not in made.model_dump()
    assert TierConfig.model_validate(made.model_dump()) == made.model_copy(update={"preset": ""})


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match=r"preset: one of offline-cpu, .*weak-gpu expected, got 'best'"):
        tier(preset="best")
    assert with_preset({"name": "llm"}) == {"name": "llm"}


def test_mappings_are_merged_however_deep() -> None:
    assert merged({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}, "d": 3}) == {"a": {"b": 1, "c": [2]}, "d": 3}
