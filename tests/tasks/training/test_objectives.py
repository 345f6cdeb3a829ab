"""Each objective builds its loss, from the settings that are meant for it."""

from pathlib import Path
from typing import get_args

import pytest
from sentence_transformers import SentenceTransformer

from tasks.training.objectives import OBJECTIVES, loss_of
from tasks.training.rotation import Rotation
from tasks.training.train_config import Objective, TrainConfig
from tasks.training.training_rows import training_rows
from tests.tasks.training.tables import (
    build_static_model,
    build_tiny_model,
    eight_instances,
    passages_table,
    queries_table,
)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("base"))


def test_every_objective_of_the_settings_has_a_loss() -> None:
    assert set(OBJECTIVES) == set(get_args(Objective))


@pytest.mark.parametrize("objective", get_args(Objective))
def test_a_loss_has_the_settings_that_are_meant_for_it(objective: Objective, base_model: Path) -> None:
    config = TrainConfig(
        model=str(base_model),
        objective=objective,
        temperature=0.1,
        score_margin=0.3,
        guide_margin=0.2,
        mini_batch_size=5,
        soft_temperature=3.0,
        positives_per_row=2,
    )
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    model = SentenceTransformer(str(base_model), device="cpu")
    loss = loss_of(config, model, rows, Rotation(rows.rows, config))
    meant = {
        "score_margin": 0.3, "guide_margin": 0.2, "mini_batch_size": 5, "soft_temperature": 3.0, "positives": 2,
    }  # fmt: skip
    assert loss.scale == pytest.approx(10.0)
    assert {name: getattr(loss, name) for name in meant if hasattr(loss, name)} == {
        name: value for name, value in meant.items() if hasattr(loss, name)
    }
    named = {"cached_infonce": "mini_batch_size", "gist": "guide_margin", "kl": "soft_temperature"}
    assert hasattr(loss, named.get(objective, "scale"))


def test_a_model_of_static_vectors_has_no_cached_loss(tmp_path: Path) -> None:
    base = build_static_model(tmp_path / "base")
    config = TrainConfig(model=str(base), objective="cached_infonce")
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    with pytest.raises(ValueError, match="set objective: infonce"):
        loss_of(config, SentenceTransformer(str(base), device="cpu"), rows, Rotation(rows.rows, config))
