"""Stages for the tests of several nodes: they take their time, and remember rows in a ledger that writes slowly."""

import os
import time
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from infra.ledger.ledger import Ledger
from infra.stages.stage import Resources, Stage
from tests.infra.toy import NUMBERS

ROWS = 40


class SlowConfig(BaseModel):
    """What decides the content, and what only makes it slow."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    parts: int = 8
    seconds: float = Field(0.0, json_schema_extra={"operational": True})
    log: str = Field("", json_schema_extra={"operational": True})


def produce(config: SlowConfig) -> dict[str, list[pl.DataFrame]]:
    return {"numbers": [pl.DataFrame({"n": [i]}) for i in range(config.parts)]}


def plod(config: SlowConfig, *, numbers: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Log the start with the node's id, take a while, double."""
    import ray

    _log(config, f"{numbers['n'][0]} {ray.get_runtime_context().get_node_id()}")
    time.sleep(config.seconds)
    return {"doubled": numbers.select(pl.col("n") * 2)}


def remember(config: SlowConfig, *, numbers: pl.DataFrame, engine: Any, ledger: Ledger) -> dict[str, pl.DataFrame]:
    """Hand rows to a ledger whose store takes half a second for each, log the process, and work on."""
    assert len(engine.encode(["a"], "query")) == 1
    create = ledger.store.create

    def slowly(key: str, data: bytes) -> bool:
        time.sleep(0.5)
        return create(key, data)

    ledger.store.create = slowly  # type: ignore[method-assign]
    for row in range(ROWS):
        ledger.remember("toy", [(f"row{row}", [f"{row:02x}" * 32], "yes")])
    _log(config, str(os.getpid()))
    time.sleep(config.seconds)
    return {"doubled": numbers}


def _log(config: SlowConfig, line: str) -> None:
    if config.log:
        with Path(config.log).open("a") as log:
            log.write(line + "\n")


PRODUCE = Stage(
    "produce", "tests.infra.toy_nodes:produce", 1, "single", outputs={"numbers": NUMBERS}, splits=("numbers",)
)
PLOD = Stage(
    "plod", "tests.infra.toy_nodes:plod", 1, "map", each=("numbers",), outputs={"doubled": NUMBERS},
    resources=Resources(num_cpus=1.0, deadline=60.0),
)  # fmt: skip
REMEMBER = Stage(
    "remember", "tests.infra.toy_nodes:remember", 1, "map", each=("numbers",), outputs={"doubled": NUMBERS},
    engine="encoder", ledger=True, resources=Resources(num_cpus=1.0, deadline=60.0),
)  # fmt: skip
