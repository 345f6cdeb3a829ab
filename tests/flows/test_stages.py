"""The stage table and the functions it names."""

import inspect
from dataclasses import fields
from typing import Any

import pytest

from flows.method.tables import Places
from flows.stages import INGEST, STAGES
from flows.training_stages import TRAIN, training_stage
from infra.stages.compute_part import load_function
from tasks.training.train_config import EarlyStopConfig, TrainConfig

TO_BEST = TrainConfig(early_stop=EarlyStopConfig())  # reads most


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_stage_table_fits_the_functions_it_names(stage: Any) -> None:
    parameters = inspect.signature(load_function(stage.function)).parameters
    expected = {"config", *stage.inputs}
    expected |= {"engine"} if stage.engine else set()
    expected |= {"ledger"} if stage.ledger else set()
    expected |= {"vectors"} if stage.vectors else set()
    expected |= {"checkpoints", "workers"} if stage.trains else set()
    expected |= {*training_stage(TO_BEST).inputs} if stage is TRAIN else set()
    # Ingest reads where texts were only after an earlier ingest, and files that were read apart only of a large source.
    expected |= {"ranges", "read", *(each.name for each in fields(Places))} if stage is INGEST else set()
    expected |= {"out"} if stage.directories else set()
    assert set(parameters) == expected
