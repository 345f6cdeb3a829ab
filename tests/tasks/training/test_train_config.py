"""The settings of training."""

from typing import Any

import pytest
from pydantic import ValidationError

from infra.stages.part_keys import semantic
from tasks.training.train_config import EarlyStopConfig, TrainConfig
from tests.tasks.settings import settings_of


@pytest.mark.parametrize("field", [{"steps": 0}, {"temperature": 0}, {"warmup_ratio": 1.0}, {"epochs": 3}])
def test_settings_out_of_range_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(model="unused", **field)


def test_soft_labels_need_a_negative_to_compare_with() -> None:
    with pytest.raises(
        ValidationError, match="objective kl compares the passages of a row; num_negatives of 1 or more"
    ):
        TrainConfig(objective="kl", num_negatives=0)


def test_every_worker_has_the_same_share_of_a_batch() -> None:
    assert TrainConfig(batch_size=16, workers=4).workers == 4
    with pytest.raises(ValidationError, match="a multiple of workers=3 expected, got 16"):
        TrainConfig(batch_size=16, workers=3)


def test_only_one_objective_has_several_positives_in_a_row() -> None:
    assert TrainConfig(objective="all_positives", positives_per_row=3).positive_columns == 3
    assert TrainConfig(positives_per_row=3).positive_columns == 1


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(TrainConfig) == {
        "": "finite",
        "model": ("", "operational"),
        "objective": "infonce",
        "steps": (60, ">=1"),
        "batch_size": (16, ">=2"),
        "num_negatives": (3, ">=0"),
        "positives": "all",
        "mask": "unsure",
        "score_margin": (None, ">=0"),
        "guide_margin": 0.0,
        "positives_per_row": (4, ">=1"),
        "soft_labels": "judges",
        "soft_temperature": (1.0, ">0"),
        "mini_batch_size": (32, ">=1"),
        "learning_rate": (2e-05, ">0"),
        "warmup_ratio": (0.1, ">=0", "<1"),
        "temperature": (0.05, ">0"),
        "max_seq_length": (128, ">=8"),
        "frozen_layers": (0, ">=0"),
        "lora": None,
        "pooling": "own",
        "gradient_checkpointing": False,
        "query_prompt": "",
        "passage_prompt": "",
        "seed": (42, ">=0"),
        "threads": (2, ">=1"),
        "workers": (1, ">=1"),
        "early_stop": None,
        "checkpoint_steps": (200, ">=1", "operational"),
        "device": "cpu",
        "bf16": False,
    }


def test_new_settings_are_in_the_key_only_where_they_are_set() -> None:
    new = {
        "objective", "mask", "score_margin", "guide_margin", "positives_per_row", "soft_labels", "soft_temperature",
        "mini_batch_size", "workers", "early_stop",
    }  # fmt: skip
    assert not new & semantic(TrainConfig()).keys()
    assert new & semantic(TrainConfig(mask="none", score_margin=0.1)).keys() == {"mask", "score_margin"}
    assert semantic(TrainConfig(workers=2, early_stop=EarlyStopConfig()))["early_stop"] == {
        "every": 50, "patience": 3, "queries": 200, "passages": 2000,
    }  # fmt: skip
    assert semantic(TrainConfig(checkpoint_steps=7)) == semantic(TrainConfig())
