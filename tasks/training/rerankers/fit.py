"""Run the training loop with the trainer of sentence-transformers for cross-encoders, and save the model.

The saved folder is one that the engine `cross_encoder` loads: a model of transformers with one score for each pair.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.trainer import CrossEncoderTrainer

from tasks.protocols import Checkpoints
from tasks.training.loop.dev_set import DevSet
from tasks.training.rerankers.losses import RowLoss
from tasks.training.rotation import EMPTY, Rotation
from tasks.training.train_config import TrainConfig
from tasks.training.trainer import Curve, Loop, OurLoop, prepare_weights, run_steps, save
from tasks.training.training_rows import Rows

_ONE_SCORE = "ForSequenceClassification"


class _Trainer(OurLoop, CrossEncoderTrainer):  # type: ignore[misc]  # the library has no types
    def collect_features(self, inputs: dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
        """Return the model's inputs and the labels: the collator has made tokens of the pairs already."""
        labels = inputs.pop("label")
        return [inputs], labels


class _Collator:
    """Makes a batch of the pairs that its places hold; the label of a row holds the numbers of its texts."""

    valid_label_columns = ("label",)  # the library asks for it

    def __init__(self, rows: Rows, rotation: Rotation, model: CrossEncoder, prompts: Sequence[str]) -> None:
        self._rows, self._rotation, self._model, self._prompts = rows, rotation, model, prompts

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the model's inputs. features: the numbers of the places."""
        labels = [self._rotation.place(feature["place"]).numbers for feature in features]
        pairs = [self._pair(query, one) for query, *passages in labels for one in passages if one != EMPTY]
        inputs = self._model.preprocess(pairs)
        tensors = {name: value for name, value in inputs.items() if torch.is_tensor(value)}
        return {**tensors, "label": torch.tensor(labels)}

    def _pair(self, query: int, passage: int) -> list[str]:
        first, second = self._prompts
        return [first + self._rows.queries[query], second + self._rows.passages[passage]]


@dataclass(frozen=True)
class FitReranker:
    """Trains a reranker for exactly `config.steps` steps, and saves it below `out`; called as `fit`."""

    objective: Literal["softmax", "pairs"]

    def __call__(
        self,
        config: TrainConfig,
        rows: Rows,
        rotation: Rotation,
        out: Path,
        checkpoints: Checkpoints | None = None,
        _dev: DevSet | None = None,  # there is no early stop
    ) -> Curve:
        """Train and save.

        Raises:
            ValueError: the model cannot give one score, reads fewer tokens, or has no layer of `lora`.
        """
        model = load_start(config)
        length = model.max_seq_length
        if config.max_seq_length > length:
            raise ValueError(
                f"train_reranker.max_seq_length: at most {length} expected, which the model reads, got "
                f"{config.max_seq_length}"
            )
        model.max_seq_length = config.max_seq_length
        prepare_weights(config, model)
        prompts = (config.query_prompt, config.passage_prompt)
        loop = Loop(_Trainer, model, _Collator(rows, rotation, model, prompts), RowLoss(model, self.objective))
        losses = run_steps(config, loop, len(rotation), checkpoints)
        model.max_seq_length = length
        save(model, out)
        return Curve(losses, [])


def load_start(config: TrainConfig) -> CrossEncoder:
    """Load the model that a training starts from, with one score for each pair: its own head, or a new one.

    The same seed gives the same new head.

    Raises:
        ValueError: the model has a head for something else, or weights in half precision that are not trained so.
    """
    settings: dict[str, Any] = json.loads((Path(config.model) / "config.json").read_text())
    named = (settings.get("architectures") or [""])[0]
    heads = len(settings.get("id2label") or {}) or settings.get("num_labels", 1)
    if named.endswith(_ONE_SCORE) and heads != 1:
        raise ValueError(
            f"train_reranker.model: a model with one score for each pair, or without a head, expected; {named} here "
            f"gives {heads}"
        )
    dtype = "auto" if config.lora is not None else torch.float32  # steps are too small for the digits of bfloat16
    torch.manual_seed(config.seed)
    offline = {"local_files_only": True, "trust_remote_code": False}
    transformer = Transformer(
        config.model,
        transformer_task="sequence-classification",
        model_kwargs={"use_safetensors": True, "dtype": dtype, **offline},
        processor_kwargs=offline,
        config_kwargs={"num_labels": 1, **offline},
    )
    if transformer.model.dtype != torch.float32 and not config.bf16:
        raise ValueError(
            f"train_reranker.bf16: true expected for weights in {transformer.model.dtype} with adapters, got false"
        )
    tokenizer = transformer.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if transformer.model.config.pad_token_id is None:  # the last token before the padding is read
        transformer.model.config.pad_token_id = tokenizer.pad_token_id
    return CrossEncoder(modules=[transformer], device=config.device)
