"""The training loop: deterministic, quiet, and the model it leaves."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.utils.data import BatchSampler, SequentialSampler

from tasks.training.rotation import Rotation
from tasks.training.train import train
from tasks.training.train_config import TrainConfig
from tasks.training.trainer import _Collator, _deterministic, fit
from tasks.training.training_rows import Rows, training_rows
from tests.tasks.training.tables import (
    build_static_model,
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


def test_training_lowers_the_loss_and_leaves_a_loadable_model(base_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    summary = train_toy(base_model, tmp_path / "out")
    losses = summary["loss"]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert (summary["steps"], summary["rows"], summary["instances"], len(losses)) == (30, 8, 8, 30)
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
    assert prompts_of(tmp_path / "out") == {"query": "what ", "document": "about "}


def test_the_base_model_s_own_prompts_are_not_erased(
    base_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = shutil.copytree(base_model, tmp_path / "base")
    file = base / "config_sentence_transformers.json"
    own = {"query": "what ", "clustering": "old "}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": own}))
    with caplog.at_level("WARNING", "tasks.training.trainer"):
        train_toy(base, tmp_path / "without", steps=1)
    assert prompts_of(tmp_path / "without") == {**own, "document": ""}
    assert "the base model has the query prompt 'what ', trained with '': set encoder.query_prompt" in caplog.text
    train_toy(base, tmp_path / "with", steps=1, query_prompt="about ", passage_prompt="are ")
    assert prompts_of(tmp_path / "with") == {"query": "about ", "document": "are ", "clustering": "old "}


def prompts_of(model: Path) -> dict[str, str]:
    return dict(json.loads((model / "config_sentence_transformers.json").read_text())["prompts"])


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


def test_with_an_empty_mask_the_loss_curve_is_that_of_the_library(base_model: Path, tmp_path: Path) -> None:
    """The same texts in the same batches, at the same temperature and rate, for 20 steps."""
    config = TrainConfig(
        model=str(base_model), steps=20, batch_size=4, num_negatives=2, learning_rate=3e-3, threads=1, mask="none"
    )
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    rotation = Rotation(rows.rows, config)
    ours = fit(config, rows, rotation, tmp_path / "ours").losses
    theirs = losses_of_the_library(config, rows, rotation, tmp_path / "theirs")
    assert len(ours) == 20
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours[-1] < ours[0]


class Quiet(SentenceTransformerTrainer):  # type: ignore[misc]
    """The library's trainer, as it is, but for its card of the model, which asks a hub."""

    def add_model_card_callback(self, _: dict[str, Any]) -> None:
        """Add nothing."""


def losses_of_the_library(config: TrainConfig, rows: Rows, rotation: Rotation, out: Path) -> list[float]:
    """Train with `MultipleNegativesRankingLoss` on a table of texts, as the library's users do, in the same order."""
    model = SentenceTransformer(config.model, device="cpu")
    texts = _Collator(rows, rotation, model, ("", "")).texts
    table = [{name: text for name, text in texts(place).items() if name != "label"} for place in range(len(rotation))]
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        batch_sampler=lambda dataset, batch_size, **_: BatchSampler(SequentialSampler(dataset), batch_size, True),
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_ratio,
        seed=config.seed,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    loss = MultipleNegativesRankingLoss(model, scale=1 / config.temperature)
    trainer = Quiet(model, arguments, train_dataset=Dataset.from_list(table), loss=loss)
    with _deterministic(config.threads):
        trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "cached_infonce", "mini_batch_size": 3},
        {"objective": "all_positives", "positives_per_row": 2},
        {"objective": "gist", "guide_margin": 0.1},
        {"score_margin": 0.1},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_every_objective_trains(settings: dict[str, Any], base_model: Path, tmp_path: Path) -> None:
    losses = train_toy(base_model, tmp_path / "out", steps=12, **settings)["loss"]
    assert np.isfinite(losses).all()
    assert sum(losses[-4:]) < sum(losses[:4])


def test_a_model_of_static_vectors_is_trained_where_a_row_has_no_negative(tmp_path: Path) -> None:
    base = build_static_model(tmp_path / "base")
    bare = [("q0", ["p0"], []), *((f"q{i}", [f"p{i}"], [f"n{i}"]) for i in range(1, 8))]
    config = TrainConfig(model=str(base), steps=8, batch_size=4, learning_rate=0.1, threads=1)
    (tmp_path / "out").mkdir()
    train(
        config,
        instances=instances_table(bare),
        queries=queries_table(),
        passages=passages_table(),
        out=tmp_path / "out",
    )
    losses = json.loads((tmp_path / "out" / "training.json").read_text())["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
