"""The settings of adapters, and that they change no key of a training without them."""

import pytest
from pydantic import ValidationError

from infra.stages.part_keys import semantic
from tasks.training.loop.lora import LINEAR, LoraConfig
from tasks.training.train_config import TrainConfig


def test_the_defaults_are_those_of_the_paper_s_trainer() -> None:
    lora = LoraConfig()
    assert (lora.rank, lora.alpha, lora.dropout, lora.target_modules) == (16, 64, 0.1, LINEAR)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"dropout": 1.0}, {"target_modules": []}, {"r": 8}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LoraConfig.model_validate(wrong)


def test_a_training_without_adapters_has_the_key_that_it_had_before_there_were_any() -> None:
    assert not {"lora", "pooling", "gradient_checkpointing"} & semantic(TrainConfig()).keys()
    with_it = semantic(TrainConfig.model_validate({"lora": {}, "pooling": "eos"}))
    assert with_it["lora"]["rank"] == 16
    assert with_it["pooling"] == "eos"


def test_adapters_and_frozen_layers_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="frozen_layers: 0 expected with lora"):
        TrainConfig.model_validate({"lora": {}, "frozen_layers": 1})
