"""Define the settings by which a reranker is trained."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.training.loop.lora import LoraConfig
from tasks.training.train_config import TrainConfig

_READING = ("query_prompt", "passage_prompt", "max_seq_length")


class RerankerTrainConfig(BaseModel):
    """Settings by which a reranker is trained, on the same rows as the retriever.

    model: the model that it starts from: `hub:owner/name`, with `@commit` or without, or `path:folder`. A cross-encoder
        keeps its head; an encoder or a language model gets a new one, one linear layer that makes a score of the first
        token's or the last token's vector.
    objective: `softmax`: the positive's share among the passages of its row (as in Tevatron). `pairs`: cross-entropy of
        each pair by itself, where the positive weighs as much as the negatives of its row together; its outputs can be
        read as log-odds, so a judge can use them.
    steps: optimiser steps, the same for each treatment. batch_size: rows per step; each row is scored with
        1 + `num_negatives` passages, and with those of no other row. num_negatives: most hard negatives per row.
    positives: which one a row has: `all`, `first` or `each`, as in `train`.
    mask: which passages are no negatives of a query. The treatment `default` reads no verdict, so there it is
        `positives` at most.
    max_seq_length: the most tokens read of a pair; more than the model reads is refused.
    query_prompt, passage_prompt: put before each text of that role. A language model's tokenizer puts nothing between
        the two texts, so its passage_prompt begins with a line break.
    lora: train adapters of a language model, and its head; they are merged into the weights of the trained model.
    gradient_checkpointing: compute the layers' outputs again in the backward pass, which takes less memory and more
        time.
    learning_rate, warmup_ratio: of AdamW; after the warm-up the rate falls linearly.
    seed: of the order of rows, of the first positive, of the order of negatives, of a new head, of adapters and of
        dropout.
    threads: CPU threads; the last bits of the weights depend on their number. workers: processes that train together,
        as in `train`, with `resources: {train_reranker}`.
    checkpoint_steps: steps between two checkpoints, from which a training that was killed goes on.
    device: device of the model. bf16: mixed precision, for GPUs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    objective: Literal["softmax", "pairs"] = "softmax"
    steps: int = Field(60, ge=1)
    batch_size: int = Field(16, ge=1)
    num_negatives: int = Field(7, ge=1)
    positives: Literal["all", "first", "each"] = "all"
    mask: Literal["none", "positives", "relevant", "unsure"] = "unsure"
    learning_rate: float = Field(2e-5, gt=0)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    max_seq_length: int = Field(512, ge=8)
    query_prompt: str = ""
    passage_prompt: str = ""
    lora: LoraConfig | None = None
    gradient_checkpointing: bool = False
    seed: int = Field(42, ge=0)
    threads: int = Field(2, ge=1)
    workers: int = Field(1, ge=1)
    checkpoint_steps: int = Field(200, ge=1, json_schema_extra={"operational": True})
    device: Literal["cpu", "cuda"] = "cpu"
    bf16: bool = False

    @model_validator(mode="after")
    def _equal_shares(self) -> Self:
        """Refuse a batch that the workers cannot share equally."""
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size: a multiple of workers={self.workers} expected, got {self.batch_size}")
        return self

    @property
    def loop(self) -> TrainConfig:
        """What the rows and the training loop read: the same settings as those of a retriever."""
        shared = set(RerankerTrainConfig.model_fields) - {"objective", "batch_size"}
        given = self.model_dump(include=shared)
        if self.batch_size == self.workers == 1:  # a retriever needs the passages of a second row, a reranker does not
            return TrainConfig.model_validate({**given, "batch_size": 2}).model_copy(update={"batch_size": 1})
        return TrainConfig.model_validate({**given, "batch_size": self.batch_size})

    @property
    def reading(self) -> dict[str, Any]:
        """How the trained model is asked: the same prompts and length."""
        return self.model_dump(include=set(_READING))
