"""The stage table and the functions it names."""

import inspect
from dataclasses import fields
from typing import Any

import pytest

from flows.method.tables import Places
from flows.stages import INGEST, STAGES
from infra.stages.compute_part import load_function


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_stage_table_fits_the_functions_it_names(stage: Any) -> None:
    parameters = inspect.signature(load_function(stage.function)).parameters
    expected = {"config", *stage.inputs}
    expected |= {"engine"} if stage.engine else set()
    expected |= {"ledger"} if stage.ledger else set()
    expected |= {"vectors"} if stage.vectors else set()
    expected |= {each.name for each in fields(Places)} if stage is INGEST else set()  # only after an earlier ingest
    expected |= {"out"} if stage.directories else set()
    assert set(parameters) == expected
