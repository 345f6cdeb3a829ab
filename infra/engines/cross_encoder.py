"""Scores by a cross-encoder of sentence-transformers: pairs of texts in, P(relevant) out."""

import gc
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.engines.specs import CrossEncoderSpec

# Models with a trained head for scores. To any other model sentence-transformers adds a random head; at most it warns.
_HEADS = ("CrossEncoder", "ForSequenceClassification", "ForCausalLM")


class CrossEncoderEngine:
    """One loaded cross-encoder; the same list of pairs gives the same bytes, in any process of one machine."""

    def __init__(self, spec: CrossEncoderSpec) -> None:
        """Load the model from its folder; no code from the model is run, nothing is downloaded.

        Raises:
            ValueError: the folder is missing, its model gives no single score, or `max_seq_length` is more than it has
                positions for.
        """
        if not Path(spec.model).is_dir():
            raise ValueError(f"model: a folder with the cross-encoder's weights expected, {spec.model!r} is none")
        self._spec = spec
        self._model = _load(spec)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Score pairs of (query, passage), in their order; pairs of like length go together.

        Raises:
            ValueError: `activation` is `none`, and the model's output is no probability.
            RuntimeError: the model gave no number, as a broken one or too narrow a `dtype` does.
        """
        if not pairs:
            return []
        import torch

        raw = self._model.predict(
            [list(pair) for pair in pairs],
            batch_size=self._spec.batch_size,
            activation_fn=torch.nn.Identity(),
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        outputs: list[float] = raw.tolist()
        broken = [index for index, value in enumerate(outputs) if math.isnan(value)]
        if broken:
            raise RuntimeError(
                f"{self._spec.model}: {len(broken)} of {len(pairs)} scores are not numbers (pair {broken[0]} first); "
                f"try dtype=float32 instead of {self._spec.dtype}, or another copy of the weights"
            )
        # In float64: in float32 every output above 17 would be the same 1.0.
        return [_sigmoid(value) for value in outputs] if self._spec.activation == "sigmoid" else self._checked(outputs)

    def close(self) -> None:
        """Release the model's memory; the engine cannot be used afterwards."""
        self._model = None
        gc.collect()

    def _checked(self, outputs: list[float]) -> list[float]:
        outside = [value for value in outputs if not 0 <= value <= 1]
        if outside:
            raise ValueError(
                f"activation='none', but {self._spec.model} gave {outside[0]:g}, which is no probability; "
                "set activation='sigmoid'"
            )
        return outputs


def _sigmoid(value: float) -> float:
    """Make a probability of a logit, without overflow on either side.

    >>> _sigmoid(0.0), _sigmoid(-1e4), _sigmoid(1e4)
    (0.5, 0.0, 1.0)
    """
    small = math.exp(-abs(value))
    return 1 / (1 + small) if value >= 0 else small / (1 + small)


def _load(spec: CrossEncoderSpec) -> Any:  # noqa: ANN401 - sentence-transformers is not read by the checker
    _check_head(Path(spec.model))
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        spec.model,
        device=spec.device,
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"dtype": getattr(torch, spec.dtype), "use_safetensors": True},
    )
    if model.num_labels != 1:
        raise ValueError(f"{spec.model}: a model with one score per pair expected, this one gives {model.num_labels}")
    positions = _positions(model)
    if positions is not None and spec.max_seq_length > positions:
        raise ValueError(
            f"max_seq_length={spec.max_seq_length} is more than the {positions} positions of {spec.model}; lower it"
        )
    model.max_seq_length = spec.max_seq_length
    return model.eval()


def _check_head(folder: Path) -> None:
    """Refuse a model without a trained head, such as an encoder: sentence-transformers would add a random one."""
    if (folder / "modules.json").exists():  # sentence-transformers' own format
        names = [_settings(folder / "config_sentence_transformers.json").get("model_type", "SentenceTransformer")]
    else:
        names = _settings(folder / "config.json").get("architectures") or ["no architecture"]
    if not any(name.endswith(_HEADS) for name in names):
        raise ValueError(f"{folder}: a cross-encoder expected ({', '.join(_HEADS)}), found {', '.join(names)}")


def _settings(file: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    return settings


def _positions(model: Any) -> int | None:  # noqa: ANN401 - sentence-transformers is not read by the checker
    """Count the positions a text can take; the models of RoBERTa's family begin after the padding's position."""
    import torch

    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - first
    positions = getattr(model.config, "max_position_embeddings", None)
    return None if positions is None else int(positions)
