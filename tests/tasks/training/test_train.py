"""Training as a stage: what is refused, and what is written beside the model."""

import json
from pathlib import Path

import pytest

from tasks import schemas
from tasks.training.train import train
from tasks.training.training_rows import TrainConfig
from tests.tasks.training.tables import (
    build_tiny_model,
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
    assert (summary["rows"], summary["steps"], summary["skipped_without_negatives"]) == (8, 2, 0)


def test_no_file_holds_a_path_or_a_checkpoint(base_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train_toy(base_model, out, steps=2)
    for file in (p for p in out.rglob("*.json")):
        assert str(tmp_path) not in file.read_text()
        assert str(base_model) not in file.read_text()
    assert not [p.name for p in out.iterdir() if p.name.startswith("checkpoint")]
