"""Run the training loop of `train` with the trainer of sentence-transformers: deterministic, quiet and offline."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from transformers import PrinterCallback, TrainerCallback

from tasks.training.training_rows import TrainConfig

_PROGRESS_SECONDS = 10.0  # seconds between two progress messages
_log = logging.getLogger(__name__)
_LAYER = re.compile(r"\.layers?\.(\d+)\.")


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc]  # the library has no types
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add no model card callback, as it samples the data and contacts the model hub."""


class _Progress(TrainerCallback):  # type: ignore[misc]  # the library has no types
    def __init__(self) -> None:
        self._logged = time.monotonic()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ANN401
        """Log the progress at most once per `_PROGRESS_SECONDS`."""
        if time.monotonic() - self._logged >= _PROGRESS_SECONDS and "loss" in (logs or {}):
            self._logged = time.monotonic()
            _log.info("step %d of %d, loss %.4f", state.global_step, state.max_steps, float(logs["loss"]))


def fit(config: TrainConfig, columns: dict[str, list[str]], out: Path) -> list[float]:
    """Train for exactly `config.steps` steps, save the model below `out`, and return the loss of each step.

    Raises:
        ValueError: `frozen_layers` is not below the number of layers, or the trainer stopped early.
    """
    model = SentenceTransformer(config.model, device=config.device, local_files_only=True)
    length = model.max_seq_length
    if isinstance(length, int):  # models of static vectors have no limit
        model.max_seq_length = min(config.max_seq_length, length)
    with _deterministic(config.threads):
        losses = _train(config, model, columns, out)
    if isinstance(length, int):
        model.max_seq_length = length  # the limit of the training is not saved with the model
    model.save_pretrained(str(out), create_model_card=False, safe_serialization=True)
    return losses


def _train(config: TrainConfig, model: SentenceTransformer, columns: dict[str, list[str]], out: Path) -> list[float]:
    model.prompts = {"query": config.query_prompt, "document": config.passage_prompt}
    _freeze(model, config.frozen_layers)
    prompts = {name: config.query_prompt if name == "anchor" else config.passage_prompt for name in columns}
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        prompts={name: prompt for name, prompt in prompts.items() if prompt} or None,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_ratio,  # below 1 it is a share of the steps
        seed=config.seed,
        bf16=config.bf16,
        use_cpu=config.device == "cpu",
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    loss = MultipleNegativesRankingLoss(model, scale=1 / config.temperature)
    trainer = _Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=loss)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Progress())
    trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    if len(losses) != config.steps:
        raise ValueError(f"train: {config.steps} steps expected, the trainer made {len(losses)}; lower batch_size")
    return losses


def _freeze(model: SentenceTransformer, layers: int) -> None:
    """Exclude the embeddings and the lowest `layers` layers from training; for 0 nothing is excluded."""
    if not layers:
        return
    frozen = set()
    for name, parameter in model.named_parameters():
        layer = _LAYER.search(name)
        if "embed" in name or (layer and int(layer[1]) < layers):
            parameter.requires_grad = False
            frozen.add(layer[1] if layer else "")
    if len(frozen - {""}) != layers or not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"frozen_layers={layers} expects a model of more layers; lower it")


@contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    """Use deterministic algorithms of torch, where they exist, and this number of threads; restore both at the end."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    threads_before = torch.get_num_threads()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.set_num_threads(threads_before)
