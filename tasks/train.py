"""Train: fine-tune an embedding model on the instances of one treatment (paper §4: InfoNCE with hard negatives).

One row per (query, positive), with the same number of hard negatives each; the other rows of the batch lend theirs.
A batch never holds a text twice, so no row's positive is another row's negative. Every treatment gets the same number
of optimiser steps: more rows mean fewer rounds, not more training.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from datasets import Dataset
from pydantic import BaseModel, ConfigDict, Field
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from torch import Tensor
from torch.nn.functional import pad
from transformers import PrinterCallback

from tasks.hashing import combine_hashes, show_passage

SUMMARY_FILE = "training.json"

Features = dict[str, Tensor]
_LAYER = re.compile(r"\.layers?\.(\d+)\.")
_TOKENS = {"input_ids", "attention_mask", "token_type_ids"}


class TrainConfig(BaseModel):
    """What is trained and how; the defaults suit a small model on two cores.

    The paper (§4) trains on 7 negatives and 350 tokens at temperature 0.01 and learning rate 2e-5.

    model: directory of the base model; its digest belongs in the stage's key, the path does not.
    steps: optimiser steps, the same for every treatment.
    positives: "all" makes a row of each positive of a query, "first" of the first one only.
    temperature: similarities are divided by it.
    frozen_layers: that many of the lowest layers, and the token embeddings, stay as they are and cost no backward pass.
    rows_per_forward: texts that go through the model at once, of like length.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(json_schema_extra={"operational": True})
    steps: int = Field(60, ge=1)
    batch_size: int = Field(16, ge=2)
    num_negatives: int = Field(3, ge=0)
    positives: Literal["all", "first"] = "all"
    learning_rate: float = Field(2e-5, gt=0)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    temperature: float = Field(0.05, gt=0)
    max_seq_length: int = Field(128, ge=8)
    frozen_layers: int = Field(0, ge=0)
    query_prompt: str = ""
    passage_prompt: str = ""
    seed: int = Field(42, ge=0)
    device: Literal["cpu", "cuda"] = "cpu"
    bf16: bool = False  # with AVX-512-BF16 but no AMX it is slower than float32, and on a CPU there is no memory to save
    rows_per_forward: int = Field(16, ge=1)


@dataclass(frozen=True)
class Rows:
    """The training rows, and what became of the instances.

    columns: anchor, positive, negative_1 … negative_n, all of the same length.
    padded: rows whose negatives were fewer and are repeated in turn.
    skipped: instances without a negative (none where num_negatives is 0).
    """

    columns: dict[str, list[str]]
    instances: int
    padded: int
    skipped: int

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.columns["anchor"])


def train(
    config: TrainConfig, *, instances: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame, out: Path
) -> dict[str, pl.DataFrame]:
    """Fine-tune `config.model` and write it below `out`, with `training.json` (rows, steps, seed, loss by step).

    `queries` and `passages` may hold more than the instances name. On one machine and number of threads the same
    input gives the same weights.

    Raises:
        ValueError: a text is missing or not the one the instances were made with, a query is held out, or no instance
            has a negative.
    """
    rows = training_rows(config, instances=instances, queries=queries, passages=passages)
    if not len(rows):
        raise ValueError(
            f"train: at least one instance with a negative expected, {instances.height} instances came and "
            f"{rows.skipped} of them have none; mine more candidates, or train with num_negatives=0"
        )
    with _deterministic():
        model, losses = _fit(config, rows, out)
    model.save_pretrained(str(out), create_model_card=False, safe_serialization=True)
    summary = {
        "instances": rows.instances,
        "skipped_without_negatives": rows.skipped,
        "rows": len(rows),
        "rows_with_repeated_negatives": rows.padded,
        "steps": len(losses),
        **config.model_dump(exclude={"model", "steps"}),
        "loss": [round(loss, 6) for loss in losses],
    }
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return {}


def training_rows(
    config: TrainConfig, *, instances: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame
) -> Rows:
    """Join the texts, check them against `texts_hash`, and lay them out as rows of equal width.

    A row with fewer than `num_negatives` negatives repeats its own in turn: n1 n2 n1.
    """
    names = ["anchor", "positive", *(f"negative_{i}" for i in range(1, config.num_negatives + 1))]
    table: list[tuple[str, ...]] = []
    padded = skipped = 0
    for query, positives, negatives in _with_texts(instances, queries, passages):
        if config.num_negatives and not negatives:
            skipped += 1
            continue
        used = positives if config.positives == "all" else positives[:1]
        hard = list(islice(cycle(negatives), config.num_negatives))
        table += [(query, positive, *hard) for positive in used]
        padded += len(used) if len(negatives) < config.num_negatives else 0
    columns = {name: [row[i] for row in table] for i, name in enumerate(names)}
    return Rows(columns, instances=instances.height, padded=padded, skipped=skipped)


def _with_texts(
    instances: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Query, positives and negatives as texts, instance by instance in the order of the ids."""
    pairs = pl.concat(
        instances.select("dataset", doc_id=side).explode("doc_id").drop_nulls() for side in ("positives", "negatives")
    )
    wanted = passages.join(pairs, on=["dataset", "doc_id"], how="semi")
    shown = {
        (dataset, doc_id): (text_hash, show_passage(title, text))
        for dataset, doc_id, title, text, text_hash in wanted.select(
            "dataset", "doc_id", "title", "text", "text_hash"
        ).iter_rows()
    }
    asked = {
        (dataset, query_id): (text_hash, text, split)
        for dataset, query_id, text_hash, text, split in queries.join(
            instances, on=["dataset", "query_id"], how="semi"
        ).select("dataset", "query_id", "text_hash", "text", "split").iter_rows()
    }
    for row in instances.sort("dataset", "query_id").iter_rows(named=True):
        name = f"{row['dataset']}/{row['query_id']}"
        try:
            query_hash, query, split = asked[row["dataset"], row["query_id"]]
            positives = [shown[row["dataset"], doc_id] for doc_id in row["positives"]]
            negatives = [shown[row["dataset"], doc_id] for doc_id in row["negatives"]]
        except KeyError as error:
            raise ValueError(f"train: no text for {'/'.join(error.args[0])} of {name}; treat the same data") from error
        if split == "test":
            raise ValueError(f"train: {name} is held out (split test) and must not be trained on; treat again")
        hashes = [query_hash, *(text_hash for text_hash, _ in (*positives, *negatives))]
        if combine_hashes(hashes) != row["texts_hash"]:
            raise ValueError(f"train: the texts of {name} are not those its instance was made with; treat again")
        yield query, [text for _, text in positives], [text for _, text in negatives]


class LengthSortedRankingLoss(MultipleNegativesRankingLoss):
    """MultipleNegativesRankingLoss that embeds a batch's texts in groups of like length.

    The loss is the same. The library pads all passages of a batch to the longest one; sorting them saves that work,
    on a CPU half of the time.
    """

    def __init__(self, model: SentenceTransformer, scale: float, rows_per_forward: int) -> None:
        """Keep the size of a group."""
        super().__init__(model, scale=scale)
        self.rows_per_forward = rows_per_forward

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        """Compute the loss of a batch of columns: anchor, positive, negatives."""
        columns = list(sentence_features)
        if not all(_is_right_padded(column) for column in columns):
            return super().forward(columns, labels)
        lengths = torch.cat([column["attention_mask"].sum(dim=1) for column in columns])
        order = torch.argsort(lengths, stable=True)
        widest = int(lengths.max())
        merged = {key: torch.cat([_resize(column[key], widest) for column in columns]) for key in columns[0]}
        embedded = []
        for group in order.split(self.rows_per_forward):
            width = int(lengths[group].max())
            embedded.append(self.model({key: values[group, :width] for key, values in merged.items()}))
        sorted_embeddings = torch.cat([output["sentence_embedding"] for output in embedded])
        embeddings = sorted_embeddings[torch.argsort(order)]
        return self.compute_loss_from_embeddings(list(embeddings.split(len(columns[0]["input_ids"]))), labels)


def _is_right_padded(features: Mapping[str, Any]) -> bool:
    """Whether the features are nothing but tokens, with all padding at the end."""
    if not {"input_ids", "attention_mask"} <= features.keys() <= _TOKENS:
        return False
    mask = features["attention_mask"]
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


def _resize(tokens: Tensor, width: int) -> Tensor:
    return pad(tokens, [0, width - tokens.shape[1]]) if tokens.shape[1] < width else tokens[:, :width]


class _Trainer(SentenceTransformerTrainer):
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do without: the card's callback samples the data and asks the model hub."""


def _fit(config: TrainConfig, rows: Rows, out: Path) -> tuple[SentenceTransformer, list[float]]:
    """Train for exactly `config.steps` steps; the loss of each."""
    model = SentenceTransformer(config.model, device=config.device, local_files_only=True)
    model.max_seq_length = config.max_seq_length
    model.prompts = {"query": config.query_prompt, "document": config.passage_prompt}
    _freeze(model, config.frozen_layers)
    prompts = {name: config.query_prompt if name == "anchor" else config.passage_prompt for name in rows.columns}
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
    loss = LengthSortedRankingLoss(model, 1 / config.temperature, config.rows_per_forward)
    trainer = _Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(rows.columns), loss=loss)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    if len(losses) != config.steps:
        raise ValueError(f"train: {config.steps} steps expected, the trainer made {len(losses)}; lower batch_size")
    return model, losses


def _freeze(model: SentenceTransformer, layers: int) -> None:
    """Exclude embeddings and the lowest `layers` layers from training; nothing for 0."""
    if not layers:
        return
    frozen = set()
    for name, parameter in model.named_parameters():
        layer = _LAYER.search(name)
        if "embed" in name or (layer and int(layer[1]) < layers):
            parameter.requires_grad = False
            frozen.add(layer[1] if layer else "")
    if len(frozen - {""}) != layers or not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"frozen_layers={layers} expects a model of more layers than that; lower it")


@contextmanager
def _deterministic() -> Iterator[None]:
    """Let torch use deterministic algorithms only, as far as it has them; leave its setting as it was."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
