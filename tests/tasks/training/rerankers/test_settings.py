"""The settings of a reranker's training."""

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.training.rerankers.settings import RerankerTrainConfig


def test_the_loop_has_the_same_settings_and_the_engine_reads_as_the_training_did() -> None:
    config = RerankerTrainConfig(model="m", steps=7, batch_size=1, mask="relevant", passage_prompt="\np: ")
    loop = config.loop
    assert (loop.steps, loop.batch_size, loop.num_negatives, loop.mask) == (7, 1, 7, "relevant")
    assert (loop.lora, loop.pooling, loop.is_soft, loop.positive_columns) == (None, "own", False, 1)
    assert config.reading == {"query_prompt": "", "passage_prompt": "\np: ", "max_seq_length": 512}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"num_negatives": 0}, "greater than or equal to 1"),
        ({"batch_size": 3, "workers": 2}, "a multiple of workers=2 expected, got 3"),
        ({"batch_size": 1, "workers": 2}, "a multiple of workers=2 expected, got 1"),
        ({"temperature": 0.1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_trained_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        RerankerTrainConfig(model="m", **wrong)
