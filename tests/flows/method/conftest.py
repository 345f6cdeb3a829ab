"""The curation with a trained model that `retrain`, `prune` and `validate` work on."""

from pathlib import Path

import pytest

from tests.flows.trained import Place


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tasks.training.tables import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def curated(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"), tiny_model).curate()
