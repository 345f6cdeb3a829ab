"""Adapters of a tiny language model: what is trained, kept and merged; a kill or a second worker changes nothing."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import Qwen2Model

from infra.engines.encoder import EncoderEngine
from infra.engines.specs import SentenceTransformersSpec
from infra.stages.checkpoints import Checkpoints
from infra.storage.store import Store
from tasks.training.loop.adapters import FOLDER, add_adapter, is_adapted, load_weights, merge, weights_of
from tasks.training.loop.lora import LoraConfig
from tasks.training.loop.resuming import WEIGHTS, find_checkpoint
from tasks.training.together import Share, fit_together
from tasks.training.train_config import TrainConfig
from tasks.training.trainer import Curve, fit
from tasks.training.training_rows import training_rows
from tests.tasks.training.loop.test_resuming import PART, ROWS, STEPS, Told, digests, train_until
from tests.tasks.training.tables import (
    build_tiny_qwen,
    eight_instances,
    passages_table,
    queries_table,
    train_toy,
)
from tests.tasks.training.test_together import Processes, one_worker

LORA = {"rank": 4, "alpha": 16, "dropout": 0.1}
TEXTS = ["cats are nice", "not dogs", "what about old boats and bells"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("trained") / "out"
    settings = {"lora": LORA, "pooling": "eos", "gradient_checkpointing": True, "steps": 30, "learning_rate": 1e-2}
    return out, train_toy(base, out, **settings)


def loaded(base: Path) -> Any:
    return SentenceTransformer(str(base), device="cpu", local_files_only=True)


def config_of(base: str, **changes: Any) -> TrainConfig:
    wanted = {"model": base, "steps": STEPS, "batch_size": ROWS, "num_negatives": 2, "learning_rate": 3e-3}
    further = {"threads": 1, "checkpoint_steps": 4, "pooling": "eos", "lora": LORA}
    return TrainConfig.model_validate({**wanted, **further, **changes})


def train_with_adapters(base: str, out: Path, store: str = "") -> Curve:
    config = config_of(base)
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    return fit(config, rows, Told(rows.rows, config), out, Checkpoints(store, PART) if store else None)


def test_training_lowers_the_loss_and_leaves_a_plain_model_with_last_token_pooling(
    base: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    out, summary = trained
    assert sum(summary["loss"][-5:]) < 0.8 * sum(summary["loss"][:5])
    assert (summary["lora"]["rank"], summary["pooling"], summary["gradient_checkpointing"]) == (4, "eos", True)
    model = loaded(out)
    assert not is_adapted(model)
    assert isinstance(model[0].model, Qwen2Model)
    assert model[1].pooling_mode == "lasttoken"
    tokens = model.tokenizer(["cats", "what about old boats"], padding=True)["input_ids"]
    assert {row[-1] for row in tokens} == {model.tokenizer.eos_token_id}  # padded on the left
    assert tokens[0][0] == model.tokenizer.pad_token_id
    names = set(load_file(out / "model.safetensors"))
    assert names == {name.removeprefix("model.") for name in load_file(base / "model.safetensors")} - {"lm_head.weight"}


def test_the_engine_that_encodes_reads_the_trained_model(trained: tuple[Path, dict[str, Any]]) -> None:
    spec = SentenceTransformersSpec(model=str(trained[0]), digest="d", max_seq_length=64)
    vectors = EncoderEngine(spec).encode(TEXTS, "passage").to_numpy()
    assert vectors == pytest.approx(loaded(trained[0]).encode(TEXTS, normalize_embeddings=True), abs=1e-5)


def test_the_kept_adapter_on_the_base_model_is_the_merged_model(
    base: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    folder = trained[0] / FOLDER
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] is None
    inner = PeftModel.from_pretrained(Qwen2Model.from_pretrained(base), folder)
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        apart = inner(tokens).last_hidden_state
        merged = loaded(trained[0])[0].model(tokens).last_hidden_state
    assert torch.allclose(apart, merged, atol=1e-4)


def test_only_adapters_are_trained_and_kept_in_checkpoints(base: Path, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    train_with_adapters(str(base), tmp_path / "out", store.url)
    found = find_checkpoint(Checkpoints(store.url, PART), tmp_path / "scratch")
    assert found is not None
    weights = load_file(found / WEIGHTS)
    assert len(weights) == 2 * 7 * 2  # two matrices for each of seven layers in two blocks
    assert all(".lora_" in name for name in weights)


def test_the_same_seed_gives_the_same_adapter_and_weights_of_another_one_are_refused(base: Path) -> None:
    one, again, other = loaded(base), loaded(base), loaded(base)
    before = one.encode(TEXTS)
    add_adapter(one, LoraConfig(rank=4), 1)
    add_adapter(again, LoraConfig(rank=4), 1)
    add_adapter(other, LoraConfig(rank=4, target_modules=("q_proj",)), 1)
    assert all(torch.equal(value, weights_of(again)[name]) for name, value in weights_of(one).items())
    assert one.encode(TEXTS) == pytest.approx(before, abs=1e-6)  # a new adapter changes nothing
    with pytest.raises(ValueError, match="a checkpoint of the same adapters expected, 24 weights differ"):
        load_weights(other, weights_of(one))
    merge(one)
    assert one.encode(TEXTS) == pytest.approx(before, abs=1e-6)


def test_layers_that_the_model_does_not_have_are_refused_with_those_it_has(base: Path) -> None:
    with pytest.raises(ValueError, match=r"lora.target_modules: names of linear layers .*gate_proj.* got query"):
        add_adapter(loaded(base), LoraConfig(target_modules=("query",)), 1)


@pytest.mark.slow
def test_a_training_of_adapters_that_was_killed_twice_has_the_files_of_an_undisturbed_one(
    base: Path, tmp_path: Path
) -> None:
    store_url = str(tmp_path / "store")  # a bucket is tried in test_resuming.py
    Store.open(store_url)
    undisturbed = train_with_adapters(str(base), tmp_path / "undisturbed")
    first = train_until(6, base, tmp_path / "first", store_url, __name__)
    second = train_until(11, base, tmp_path / "second", store_url, __name__)
    last = train_until(None, base, tmp_path / "last", store_url, __name__)
    assert (first[0], second[0], last[0]) == (0, 4, 8)
    assert digests(tmp_path / "last") == digests(tmp_path / "undisturbed")
    assert len(undisturbed.losses) == STEPS


@pytest.mark.slow
def test_two_workers_have_the_losses_of_one(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store = Store.open(str(tmp_path / "store"))
    config = config_of(str(base), steps=4, batch_size=8, workers=2, lora={**LORA, "dropout": 0.0})
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    share = Share(config, rows, Checkpoints(store.url, PART), None)
    curve = fit_together(share, Processes(tmp_path), tmp_path / "out")
    assert curve.losses == pytest.approx(one_worker(share, tmp_path / "one"), abs=1e-4)
    assert (tmp_path / "out" / FOLDER / "adapter_model.safetensors").exists()


if __name__ == "__main__":
    train_with_adapters(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
