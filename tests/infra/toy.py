"""Toy stages for the runner's tests: numbers in, numbers out, with failures on demand."""

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from infra.stages.runner import Runner
from infra.stages.stage import Resources, Stage
from tasks.schemas import Schema

LOG = logging.getLogger("tasks.toy")  # as a stage of ours
NUMBERS = Schema({"n": pl.Int64}, key=("n",))


class ToyConfig(BaseModel):
    """Semantic: factor. Operational: everything that makes a part misbehave."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    factor: int = 1
    batch_size: int = Field(8, json_schema_extra={"operational": True})
    log: str = Field("", json_schema_extra={"operational": True})
    trouble: str = Field("", json_schema_extra={"operational": True})


def produce(config: ToyConfig) -> dict[str, list[pl.DataFrame]]:
    return {"numbers": [pl.DataFrame({"n": [i * 10 + j for j in range(3)]}) for i in range(4)]}


def double(config: ToyConfig, *, numbers: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Multiply; logs each execution, and misbehaves for the part that starts with 20, once or always."""
    LOG.info("doubling from %d", numbers["n"][0])
    if config.log:
        with Path(config.log).open("a") as log:
            log.write(f"{numbers['n'][0]} {config.batch_size}\n")
    if numbers["n"][0] == 20 and config.trouble:
        _misbehave(config)
    return {"doubled": numbers.select(pl.col("n") * 2 * config.factor)}


def double_with_engine(config: ToyConfig, *, numbers: pl.DataFrame, engine: Any) -> dict[str, pl.DataFrame]:
    """As `double`, with an encoder at hand."""
    assert len(engine.encode(["a", "b"], "query")) == 2
    return double(config, numbers=numbers)


def _misbehave(config: ToyConfig) -> None:
    kind, _, flag = config.trouble.partition(":")
    if flag:
        if Path(flag).exists():
            return
        Path(flag).touch()
    if kind == "raise":
        raise ValueError("20 is not to my liking")
    if kind == "oserror":
        raise OSError("the disk hiccuped")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "say-and-kill":
        for number in range(50):
            LOG.info("line %d before the end", number)
        _wait_for(Path(flag + "-seen"))  # a busy machine sends them late
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "tell":
        secret = os.environ["AWS_SECRET_ACCESS_KEY"]
        logging.getLogger("a_library").warning("I was given %s", secret)
        raise OSError(f"{secret} is not accepted")
    if kind == "hang":
        time.sleep(60)


def _wait_for(path: Path, seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.1)


def add_up(config: ToyConfig, *, doubled: pl.DataFrame, out: Path) -> dict[str, pl.DataFrame]:
    (out / "folder").mkdir()
    (out / "folder" / "total.txt").write_text(str(doubled["n"].sum()))
    return {"total": doubled.select(pl.col("n").sum())}


def cross(config: ToyConfig, *, left: pl.DataFrame, right: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {"pairs": pl.DataFrame({"n": [left["n"].sum() * 1000 + right["n"].sum()]})}


def deal(config: ToyConfig, *, numbers: pl.DataFrame) -> dict[str, Any]:
    """Send the numbers to the parts of their last digit; misbehaves as `double` does."""
    if numbers["n"][0] == 20 and config.trouble:
        _misbehave(config)
    return {"dealt": ((n % 10, pl.DataFrame({"n": [n]})) for n in sorted(numbers["n"], reverse=True))}


def take(config: ToyConfig, *, dealt: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {"taken": dealt}


def wrong(config: ToyConfig, *, numbers: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {"doubled": numbers.rename({"n": "m"})}


PRODUCE = Stage("produce", "tests.infra.toy:produce", 1, "single", outputs={"numbers": NUMBERS}, splits=("numbers",))
DOUBLE = Stage(
    "double", "tests.infra.toy:double", 1, "map", each=("numbers",), outputs={"doubled": NUMBERS},
    resources=Resources(num_cpus=0.5, deadline=20.0),
)  # fmt: skip
WITH_ENGINE = Stage(
    "with_engine", "tests.infra.toy:double_with_engine", 1, "map", each=("numbers",), outputs={"doubled": NUMBERS},
    engine="encoder", resources=Resources(num_cpus=1.0, deadline=60.0),
)  # fmt: skip
ADD_UP = Stage(
    "add_up",
    "tests.infra.toy:add_up",
    1,
    "gather",
    every=("doubled",),
    outputs={"total": NUMBERS},
    directories=("sum",),
)
CROSS = Stage(
    "cross", "tests.infra.toy:cross", 1, "grid", each=("left",), across=("right",), outputs={"pairs": NUMBERS}
)

DEAL = Stage(
    "deal", "tests.infra.toy:deal", 1, "map", each=("numbers",), outputs={"dealt": NUMBERS}, scatters=("dealt",)
)
TAKE = Stage("take", "tests.infra.toy:take", 1, "map", each=("dealt",), outputs={"taken": NUMBERS})

_PLAIN = ToyConfig()


def pipeline(run: Runner, config: ToyConfig = _PLAIN) -> dict[str, Any]:
    """Run three of them, one after the other."""
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    doubled = run(DOUBLE, config, numbers=numbers)["doubled"]
    return run(ADD_UP, ToyConfig(), doubled=doubled)
