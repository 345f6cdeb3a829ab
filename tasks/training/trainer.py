"""Run the training loop of `train` with the trainer of sentence-transformers: deterministic, quiet and offline."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, load_model, save_file, save_model
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.base.trainer import BaseTrainer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util import get_rank
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import PrinterCallback

from tasks.protocols import Checkpoints
from tasks.training.loop import adapters
from tasks.training.loop.adapters import is_adapted, load_weights, weights_of
from tasks.training.loop.dev_set import DevSet
from tasks.training.loop.early_stop import EarlyStop
from tasks.training.loop.progress import Progress
from tasks.training.loop.resuming import WEIGHTS, Keeping, find_checkpoint
from tasks.training.objectives import loss_of
from tasks.training.rotation import EMPTY, Rotation
from tasks.training.train_config import TrainConfig
from tasks.training.training_rows import Rows

_EMPTY_TEXT = "."  # stands in empty places, and is masked; some tokenizers make nothing of no text
_log = logging.getLogger(__name__)
_LAYER = re.compile(r"\.layers?\.(\d+)\.")


class OurLoop(BaseTrainer):  # type: ignore[misc]  # the library has no types
    """What the trainers of all kinds of models share: the order of the rows, and small checkpoints without code."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add no model card callback, as it samples the data and contacts the model hub."""

    def get_batch_sampler(self, dataset: Dataset, batch_size: int, drop_last: bool, **_: Any) -> BatchSampler:
        """Take the places in their order: `Rotation` has shuffled them, and every batch is full."""
        del drop_last
        return BatchSampler(SequentialSampler(dataset), batch_size, drop_last=True)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ANN401
        """Write the weights of a checkpoint alone: the library would add pickled arguments and a model card."""
        del state_dict
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if is_adapted(self.model):
            save_file(weights_of(self.model), str(folder / WEIGHTS))
        else:
            save_model(self.model, str(folder / WEIGHTS))

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        """Read the weights of a checkpoint, and no code."""
        file, device = str(Path(checkpoint_path) / WEIGHTS), str(self.model.device)
        if is_adapted(self.model):
            load_weights(self.model, load_file(file, device=device))
        else:
            load_model(self.model, file, device=device)


class _Trainer(OurLoop, SentenceTransformerTrainer):  # type: ignore[misc]  # the library has no types
    pass


class _Collator(SentenceTransformerDataCollator):  # type: ignore[misc]  # the library has no types
    """Makes a batch of the texts that its places hold; the label of a row holds their numbers."""

    def __init__(self, rows: Rows, rotation: Rotation, model: SentenceTransformer, prompts: Sequence[str]) -> None:
        names = column_names(rotation)
        roles = dict(zip(names, [prompts[0], *[prompts[1]] * (len(names) - 1)], strict=True))
        super().__init__(preprocess_fn=model.preprocess, prompts={n: p for n, p in roles.items() if p} or None)
        self._rows, self._rotation, self._names = rows, rotation, names

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the model's inputs by column. features: the numbers of the places."""
        return dict(super().__call__([self.texts(feature["place"]) for feature in features]))

    def texts(self, number: int) -> dict[str, Any]:
        """Return the texts of a place by column, and its label."""
        query, *passages = self._rotation.place(number).numbers
        shown = [self._rows.passages[one] if one != EMPTY else _EMPTY_TEXT for one in passages]
        return dict(zip(self._names, [self._rows.queries[query], *shown], strict=True)) | {"label": [query, *passages]}


@dataclass(frozen=True)
class Curve:
    """What a training did. losses: of each step. scores: step and score on the development queries."""

    losses: list[float]
    scores: list[tuple[int, float]]


def column_names(rotation: Rotation) -> list[str]:
    """Name the columns of a batch in their order; the first is the query's."""
    columns = {"positive": rotation.positives, "negative": rotation.negatives}
    return ["anchor", *(f"{name}_{number}" for name, count in columns.items() for number in range(1, count + 1))]


def fit(
    config: TrainConfig,
    rows: Rows,
    rotation: Rotation,
    out: Path,
    checkpoints: Checkpoints | None = None,
    dev: DevSet | None = None,
) -> Curve:
    """Train for exactly `config.steps` steps, or until the score on `dev` stops it, and save the model below `out`.

    The prompts that it was trained with are saved with the model; other prompts of the base model stay. Where torch has
    a process group, this is one of its workers, and the first one saves the model. With `checkpoints` the training goes
    on from the newest one, and ends with the same weights as if it had never stopped.

    Raises:
        ValueError: `frozen_layers` is not below the number of layers, or the objective does not fit the model.
    """
    model = SentenceTransformer(config.model, device=config.device, local_files_only=True)
    length = model.max_seq_length
    if isinstance(length, int):  # models of static vectors have no limit
        model.max_seq_length = min(config.max_seq_length, length)
    model.prompts = _prompts(config, model.prompts)
    if config.pooling == "eos":
        end_with_eos(model)
    prepare_weights(config, model)
    early = None
    if dev is not None and config.early_stop is not None:
        early = EarlyStop(model, dev.score, config.early_stop.every, config.early_stop.patience)
    loop = Loop(
        _Trainer,
        model,
        _Collator(rows, rotation, model, (config.query_prompt, config.passage_prompt)),
        loss_of(config, model, rows, rotation),
    )
    losses = run_steps(config, loop, len(rotation), checkpoints, early)
    if early is not None:
        early.take_best()
    if isinstance(length, int):
        model.max_seq_length = length  # the limit of the training is not saved with the model
    save(model, out)
    return Curve(losses, [] if early is None else early.scores)


def prepare_weights(config: TrainConfig, model: Any) -> None:  # noqa: ANN401 - a model of sentence-transformers
    """Freeze what is not trained: layers, or all weights but those of new adapters.

    Raises:
        ValueError: `frozen_layers` is not below the number of layers, or the model has no layer of `lora`.
    """
    _freeze(model, config.frozen_layers)
    if config.lora is not None:
        adapters.add_adapter(model, config.lora, config.seed)


def save(model: Any, out: Path) -> None:  # noqa: ANN401 - a model of sentence-transformers
    """Write a trained model, with its adapters merged into the weights, and beside it the adapter; the first worker."""
    if get_rank() != 0:
        return
    if is_adapted(model):
        adapters.keep_adapter(model, out / adapters.FOLDER)
        adapters.merge(model)
    model.save_pretrained(str(out), create_model_card=False, safe_serialization=True)


def end_with_eos(model: SentenceTransformer) -> None:
    """Let a model read each text with an end-of-sequence token behind it, padded on the left, and take its vector.

    Raises:
        ValueError: the model pools no tokens, or its tokenizer has no such token, or cannot be told to put it there.
    """
    pooling = [module for module in model if isinstance(module, Pooling)]
    tokenizer = model.tokenizer
    eos = getattr(tokenizer, "eos_token_id", None)
    if not pooling or eos is None:
        raise ValueError("pooling eos expects a model that pools tokens and has an end-of-sequence token; set own")
    before = tokenizer("a")["input_ids"]
    if before[-1] != eos:
        tokenizer.add_eos_token = True
        if (after := tokenizer("a")["input_ids"]) != [*before, eos]:
            raise ValueError(
                f"pooling eos expects a tokenizer that puts token {eos} behind a text when told to; {before} became "
                f"{after}; set own, and save the model with a tokenizer that does"
            )
    tokenizer.padding_side = "left"
    for module in pooling:
        module.pooling_mode = "lasttoken"


def _prompts(config: TrainConfig, own: dict[str, str]) -> dict[str, str]:
    """Return the prompts to save: the base model's own, and over them those of the training.

    Where the training has none, the base model's stay, with a warning: the model was trained otherwise than they say.
    """
    given = {"query": config.query_prompt, "document": config.passage_prompt}
    for role, prompt in given.items():
        if own.get(role) and own[role] != prompt:
            setting = "query_prompt" if role == "query" else "passage_prompt"
            _log.warning(
                "the base model has the %s prompt %r, trained with %r: set encoder.%s", role, own[role], prompt, setting
            )
    return {**given, **own, **{role: prompt for role, prompt in given.items() if prompt}}


@dataclass(frozen=True)
class Loop:
    """What is trained, and how. trainer: of the model's kind. collator: makes the model's inputs of a batch."""

    trainer: type[OurLoop]
    model: Any
    collator: Any
    loss: Any


def run_steps(
    config: TrainConfig, loop: Loop, places: int, checkpoints: Checkpoints | None, early: EarlyStop | None = None
) -> list[float]:
    """Run the steps that are left; returns the loss of each step, also of those before a kill.

    places: how many places all batches have together; the collator gets their numbers.
    """
    with _deterministic(config.threads), TemporaryDirectory(prefix="reneg-") as scratch:
        trainer = loop.trainer(
            model=loop.model,
            args=_arguments(config, loop.trainer, scratch, keeps=checkpoints is not None),
            train_dataset=Dataset.from_dict({"place": list(range(places))}),
            data_collator=loop.collator,
            loss=loop.loss,
        )
        torch.set_num_threads(config.threads)  # the library sets another number where there are several workers
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Progress())
        if early is not None:
            trainer.add_callback(early)
        if checkpoints is not None:
            trainer.add_callback(Keeping(checkpoints, (lambda folder: None) if early is None else early.save))
        if get_rank():  # the first worker draws what a single one would
            torch.manual_seed(config.seed + get_rank())
        resumed = find_checkpoint(checkpoints, Path(scratch))
        if resumed is not None and early is not None:
            early.load(resumed)
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def _arguments(config: TrainConfig, trainer: type[OurLoop], scratch: str, *, keeps: bool) -> Any:  # noqa: ANN401
    return trainer.training_args_class(
        output_dir=scratch,
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size // config.workers,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_ratio,  # below 1 it is a share of the steps
        seed=config.seed,
        bf16=config.bf16,
        use_cpu=config.device == "cpu",
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="steps" if keeps else "no",
        save_steps=config.checkpoint_steps,
        report_to="none",
        disable_tqdm=True,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if config.gradient_checkpointing else None,
    )


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
