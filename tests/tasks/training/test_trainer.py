"""The training loop: deterministic, quiet, and the model it leaves."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tasks.training.tables import build_tiny_model, train_toy


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("base"))


def test_training_lowers_the_loss_and_leaves_a_loadable_model(base_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    summary = train_toy(base_model, tmp_path / "out")
    losses = summary["loss"]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert (summary["steps"], summary["rows"], summary["instances"], len(losses)) == (30, 16, 8, 30)
    trained = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    query, passages = (
        trained.encode(["what about cats"]),
        trained.encode(["cats are nice", "not cats", "dogs are nice"]),
    )
    assert int(trained.similarity(query, passages).argmax()) == 0
    assert trained.max_seq_length == 64


def test_the_same_seed_gives_the_same_files_and_another_seed_other_weights(base_model: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        train_toy(base_model, tmp_path / name, seed=seed, steps=3)
    files = {
        name: {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("one", "again", "two")
    }
    assert files["one"] == files["again"]
    assert files["one"]["model.safetensors"] != files["two"]["model.safetensors"]


def test_frozen_layers_and_embeddings_keep_their_weights(base_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    train_toy(base_model, tmp_path / "out", steps=2, frozen_layers=1)
    before, after = (load_file(folder / "model.safetensors") for folder in (base_model, tmp_path / "out"))
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed
    assert all("layer.1." in name for name in changed)


def test_more_frozen_layers_than_there_are_are_refused(base_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen_layers=3 expects a model of more layers"):
        train_toy(base_model, tmp_path / "out", frozen_layers=3)


def test_prompts_are_kept_with_the_model(base_model: Path, tmp_path: Path) -> None:
    train_toy(base_model, tmp_path / "out", steps=1, query_prompt="what ", passage_prompt="about ")
    kept = json.loads((tmp_path / "out" / "config_sentence_transformers.json").read_text())
    assert kept["prompts"] == {"query": "what ", "document": "about "}


def test_threads_and_algorithms_of_torch_are_as_before_after_a_training() -> None:
    import torch

    from tasks.training.trainer import _deterministic

    torch.use_deterministic_algorithms(False)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"), _deterministic(threads + 1):
        assert torch.get_num_threads() == threads + 1
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        raise RuntimeError("stop")
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_embeddings_and_the_lowest_layers_are_frozen_and_no_others(base_model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from tasks.training.trainer import _freeze

    def trained(layers: int) -> set[str]:
        model = SentenceTransformer(str(base_model), device="cpu")
        _freeze(model, layers)
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        return {part for name in names for part in ("embeddings", "layer.0.", "layer.1.") if part in name}

    assert trained(0) == {"embeddings", "layer.0.", "layer.1."}
    assert trained(1) == {"layer.1."}
    with pytest.raises(ValueError, match="frozen_layers=3"):
        trained(3)


def test_a_short_limit_holds_for_the_training_and_not_for_the_model(base_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    settings = {"steps": 2, "query_prompt": "what what what what what what "}
    cut = train_toy(base_model, tmp_path / "cut", max_seq_length=8, **settings)
    assert cut["loss"] != train_toy(base_model, tmp_path / "whole", **settings)["loss"]
    assert SentenceTransformer(str(tmp_path / "cut"), device="cpu").max_seq_length == 64


def test_a_lower_temperature_sharpens_the_loss(base_model: Path, tmp_path: Path) -> None:
    """At a temperature of 1,000 all similarities are alike: the loss is the logarithm of the candidates of a row."""
    summary = train_toy(base_model, tmp_path / "warm", steps=1, temperature=1000.0, num_negatives=2, batch_size=4)
    assert summary["loss"][0] == pytest.approx(np.log(4 * (1 + 2)), abs=0.01)
