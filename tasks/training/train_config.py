"""Define the settings of training."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from tasks.training.loop.lora import LoraConfig

_KEYED_WHEN_SET: dict[str, JsonValue] = {"keyed_when_set": True}
_SOFT = ("margin_mse", "kl")  # objectives that learn from scores

Objective = Literal["infonce", "cached_infonce", "all_positives", "gist", "margin_mse", "kl"]


class EarlyStopConfig(BaseModel):
    """When a training ends before its last step, by nDCG@10 on development queries; the best weights are kept.

    every: steps between two scores; the last step is scored too. patience: scores in a row that are no better than the
        best one, after which the training ends.
    queries: most development queries that are scored. passages: how many passages they are compared with beside their
        relevant ones; both are chosen by the hashes of the texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: int = Field(50, ge=1)
    patience: int = Field(3, ge=1)
    queries: int = Field(200, ge=1)
    passages: int = Field(2000, ge=0)


class TrainConfig(BaseModel):
    """Settings of training; the defaults are for a small model on two cores.

    The paper (§4) trains on 7 negatives and 350 tokens at temperature 0.01 and learning rate 2e-5: `recipe: e5-base`.

    model: directory of the base model. Its digest is in the key of the stage, the path is not. Set by the flow.
    objective: the loss. `infonce` ranks a positive above the other passages of the batch; `cached_infonce` is the same
        with the memory of `mini_batch_size` texts (GradCache); `all_positives` ranks several positives of a row at
        once; `gist` is `infonce` without what the base model finds nearer than the positive; `margin_mse` and `kl`
        learn from soft labels of the row's own passages.
    steps: optimiser steps, the same for each treatment.
    batch_size: rows per step; every batch is full. num_negatives: most hard negatives per row.
    positives: which one a row has: `all` takes the next positive of the query in each epoch (the paper's rule), `first`
        always the first; `each` makes a row for each, so that a query counts as often as it has positives.
    mask: which passages are no negatives of a query, wherever in the batch they are: those that are its `positives`;
        also those that were judged `relevant`; also those that the judges are `unsure` of. The treatment `default`
        reads no verdict, so there it is `positives` at most. `none`: every other passage is a negative.
    score_margin: a passage whose cosine exceeds the positive's by more is no negative either (0.1 in Qwen3-Embedding);
        unset: none is left out by its score.
    guide_margin: for `gist`: a passage is no negative if its cosine under the base model exceeds the positive's minus
        this.
    positives_per_row: for `all_positives`: most positives of a row at once; the rest follow in the next epochs.
    soft_labels: for `margin_mse` and `kl`: log-odds of the `judges`' P(relevant), cut at 0.01 and 0.99, where a
        positive without a verdict counts as 0.99; or the scores of the source's `teacher`, as they are.
    soft_temperature: for `kl`: soft labels are divided by it.
    mini_batch_size: for `cached_infonce`: texts encoded at once.
    learning_rate, warmup_ratio: of AdamW; after the warm-up the rate falls linearly.
    query_prompt, passage_prompt: prefix of each text of that role; unset in a configuration: the encoder's.
    seed: of the order of rows, of the first positive, of the order of negatives and of dropout.
    device: device of the model. bf16: mixed precision, for GPUs.
    temperature: similarities are divided by it.
    max_seq_length: the most tokens read of a text, limited by the model; unset in a configuration: the encoder's.
    threads: CPU threads. Sums are split between them, so the last bits of the weights depend on their number.
    frozen_layers: number of lowest layers that are not trained; the token embeddings are not trained then either.
    lora: train adapters (LoRA) instead of the weights, for language models; they are merged into the weights of the
        trained model. Unset: all weights are trained.
    pooling: `own` is what the model says: of a language model without settings of sentence-transformers the last token.
        `eos` puts the end-of-sequence token behind each text, pads on the left, and takes this token's vector; the
        trained model reads in this way too.
    gradient_checkpointing: compute the layers' outputs again in the backward pass, which takes less memory and more
        time.
    workers: processes that train together, each with its share of every batch; each has the CPUs and GPUs of
        `resources: {train}` for itself. The loss curve is that of one worker up to rounding; dropout differs.
    early_stop: end before the last step when the score on the development queries no longer rises; unset: never.
    checkpoint_steps: steps between two checkpoints, from which a training that was killed goes on. Each writes about
        three times the weights to the store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field("", json_schema_extra={"operational": True})
    objective: Objective = Field("infonce", json_schema_extra=_KEYED_WHEN_SET)
    steps: int = Field(60, ge=1)
    batch_size: int = Field(16, ge=2)
    num_negatives: int = Field(3, ge=0)
    positives: Literal["all", "first", "each"] = "all"
    mask: Literal["none", "positives", "relevant", "unsure"] = Field("unsure", json_schema_extra=_KEYED_WHEN_SET)
    score_margin: float | None = Field(None, ge=0, json_schema_extra=_KEYED_WHEN_SET)
    guide_margin: float = Field(0.0, json_schema_extra=_KEYED_WHEN_SET)
    positives_per_row: int = Field(4, ge=1, json_schema_extra=_KEYED_WHEN_SET)
    soft_labels: Literal["judges", "teacher"] = Field("judges", json_schema_extra=_KEYED_WHEN_SET)
    soft_temperature: float = Field(1.0, gt=0, json_schema_extra=_KEYED_WHEN_SET)
    mini_batch_size: int = Field(32, ge=1, json_schema_extra=_KEYED_WHEN_SET)
    learning_rate: float = Field(2e-5, gt=0)
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    temperature: float = Field(0.05, gt=0)
    max_seq_length: int = Field(128, ge=8)
    frozen_layers: int = Field(0, ge=0)
    lora: LoraConfig | None = Field(None, json_schema_extra=_KEYED_WHEN_SET)
    pooling: Literal["own", "eos"] = Field("own", json_schema_extra=_KEYED_WHEN_SET)
    gradient_checkpointing: bool = Field(False, json_schema_extra=_KEYED_WHEN_SET)
    query_prompt: str = ""
    passage_prompt: str = ""
    seed: int = Field(42, ge=0)
    threads: int = Field(2, ge=1)
    workers: int = Field(1, ge=1, json_schema_extra=_KEYED_WHEN_SET)
    early_stop: EarlyStopConfig | None = Field(None, json_schema_extra=_KEYED_WHEN_SET)
    checkpoint_steps: int = Field(200, ge=1, json_schema_extra={"operational": True})
    device: Literal["cpu", "cuda"] = "cpu"
    bf16: bool = (
        False  # with AVX-512-BF16 but no AMX it is slower than float32, and on a CPU there is no memory to save
    )

    @model_validator(mode="after")
    def _negatives_to_learn_from(self) -> Self:
        """Refuse soft labels without hard negatives: a positive alone has nothing to be compared with."""
        if self.is_soft and not self.num_negatives:
            raise ValueError(f"objective {self.objective} compares the passages of a row; num_negatives of 1 or more")
        return self

    @model_validator(mode="after")
    def _equal_shares(self) -> Self:
        """Refuse a batch that the workers cannot share equally."""
        if self.batch_size % self.workers:
            raise ValueError(
                f"batch_size: a multiple of workers={self.workers} expected, got {self.batch_size}; each worker has "
                "the same share of a batch"
            )
        return self

    @model_validator(mode="after")
    def _adapters_or_layers(self) -> Self:
        """Refuse frozen layers beside adapters, which freeze every layer."""
        if self.lora is not None and self.frozen_layers:
            raise ValueError("frozen_layers: 0 expected with lora, which freezes all weights but the adapters")
        return self

    @property
    def is_soft(self) -> bool:
        """Whether the objective learns from soft labels."""
        return self.objective in _SOFT

    @property
    def positive_columns(self) -> int:
        """How many positives a row has at most."""
        return self.positives_per_row if self.objective == "all_positives" else 1
