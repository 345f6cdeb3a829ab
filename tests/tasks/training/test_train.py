"""Training as a stage: what is refused, and what is written beside the model."""

import json
import math
from pathlib import Path

import pytest

from tasks import schemas
from tasks.training.train import train
from tasks.training.train_config import TrainConfig
from tests.tasks.training.tables import (
    build_tiny_model,
    eight_instances,
    instances_table,
    passages_table,
    queries_table,
    train_toy,
)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("base"))


def test_no_instances_at_all_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    config = TrainConfig(model=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="at least one instance expected, 0 came"):
        train(
            config,
            instances=schemas.INSTANCES.empty(),
            queries=queries_table(),
            passages=passages_table(),
            out=tmp_path,
        )


def test_a_model_is_trained_where_no_instance_has_a_negative(base_model: Path, tmp_path: Path) -> None:
    bare = instances_table([(f"q{i}", [f"p{i}"], []) for i in range(8)])
    config = TrainConfig(model=str(base_model), steps=2, batch_size=4, num_negatives=3, threads=1)
    train(config, instances=bare, queries=queries_table(), passages=passages_table(), out=tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (summary["rows"], summary["steps"], summary["rows_without_negatives"]) == (8, 2, 8)


def test_a_query_s_own_positive_is_never_its_negative(base_model: Path, tmp_path: Path) -> None:
    """At a temperature of 1,000 all similarities are alike: the loss of a row is the logarithm of its candidates.

    `s0` is a positive of the first query, and a hard negative of the second. In one batch the first query has itself
    three candidates, the second four.
    """
    instances = instances_table([("q0", ["p0", "s0"], ["n0"]), ("q1", ["p1"], ["s0"])])
    settings = {"steps": 1, "batch_size": 2, "num_negatives": 1, "positives": "first", "temperature": 1000.0}
    config = TrainConfig.model_validate({"model": str(base_model), "threads": 1, **settings})
    train(config, instances=instances, queries=queries_table(), passages=passages_table(), out=tmp_path)
    (loss,) = json.loads((tmp_path / "training.json").read_text())["loss"]
    assert loss == pytest.approx((math.log(3) + math.log(4)) / 2, abs=0.01)


def test_soft_labels_that_are_nowhere_are_refused_with_what_to_do() -> None:
    config = TrainConfig(objective="margin_mse", soft_labels="teacher")
    with pytest.raises(ValueError, match="none of 8 has them; the source has no scores of a teacher"):
        train(
            config,
            instances=eight_instances(),
            queries=queries_table(),
            passages=passages_table(),
            out=Path("unused"),
        )


def test_no_file_holds_a_path_or_a_checkpoint(base_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train_toy(base_model, out, steps=2)
    for file in (p for p in out.rglob("*.json")):
        assert str(tmp_path) not in file.read_text()
        assert str(base_model) not in file.read_text()
    assert not [p.name for p in out.iterdir() if p.name.startswith("checkpoint")]
