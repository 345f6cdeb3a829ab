"""Scores by a reranker under sentence-transformers, with a template or without: pairs of texts in, P(relevant) out."""

import gc
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.engines.rerankers.causal import CausalReranker
from infra.engines.rerankers.pair_tokens import share_of_yes
from infra.engines.specs import TEMPLATES, CrossEncoderSpec

# Models with a trained head for scores. To any other model sentence-transformers adds a random head; at most it warns.
_CAUSAL = "ForCausalLM"
_HEADS = ("CrossEncoder", "ForSequenceClassification", _CAUSAL)


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

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[float]:
        """Score pairs of (query, passage), in their order; pairs of like length go together.

        Args:
            pairs: queries and passages.
            instructions: one for each pair, or none; only a template has a place for them. With a template, a pair
                whose passage would be cut off whole has the score NaN.

        Raises:
            ValueError: `activation` is `none`, and the model's output is no probability; or instructions came without
                a template.
            RuntimeError: the model gave no number, as a broken one or too narrow a `dtype` does.
        """
        if not pairs:
            return []
        if isinstance(self._model, CausalReranker):
            found = self._model.log_odds(pairs, instructions)
            self._check_numbers([0.0 if value is None else value for value in found])
            return [math.nan if value is None else share_of_yes(value) for value in found]
        if any(instructions):
            raise ValueError("instructions: a `template` is needed that says where an instruction stands, none is set")
        outputs = self._raw(pairs)
        self._check_numbers(outputs)
        if self._spec.activation == "none":
            return self._checked(outputs)
        return [share_of_yes(value) for value in outputs]  # in float32 every output above 17 would be the same 1.0

    def close(self) -> None:
        """Release the model's memory; the engine cannot be used afterwards."""
        self._model = None
        gc.collect()

    def _raw(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        import torch

        first, second = self._spec.query_prompt, self._spec.passage_prompt
        raw = self._model.predict(
            [[first + query, second + passage] for query, passage in pairs],
            batch_size=self._spec.batch_size,
            activation_fn=torch.nn.Identity(),
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        outputs: list[float] = raw.tolist()
        return outputs

    def _check_numbers(self, outputs: Sequence[float]) -> None:
        broken = [index for index, value in enumerate(outputs) if math.isnan(value)]
        if broken:
            raise RuntimeError(
                f"{self._spec.model}: {len(broken)} of {len(outputs)} scores are not numbers (pair {broken[0]} first); "
                f"try dtype=float32 instead of {self._spec.dtype}, or another copy of the weights"
            )

    def _checked(self, outputs: list[float]) -> list[float]:
        outside = [value for value in outputs if not 0 <= value <= 1]
        if outside:
            raise ValueError(
                f"activation='none', but {self._spec.model} gave {outside[0]:g}, which is no probability; "
                "set activation='sigmoid'"
            )
        return outputs


def _load(spec: CrossEncoderSpec) -> Any:  # noqa: ANN401 - sentence-transformers is not read by the checker
    names = _heads(Path(spec.model))
    if spec.template is not None:
        if not names[0].endswith(_CAUSAL) and names[0] != "CrossEncoder":
            raise ValueError(f"{spec.model}: a template asks a language model (…{_CAUSAL}), found {', '.join(names)}")
        reranker = CausalReranker(spec, spec.template)
        _check_positions(spec, reranker.model)
        return reranker
    if not any(name.endswith(_HEADS) for name in names):
        raise ValueError(f"{spec.model}: a cross-encoder expected ({', '.join(_HEADS)}), found {', '.join(names)}")
    if names[0].endswith(_CAUSAL):
        raise ValueError(
            f"{spec.model} is a language model ({names[0]}), and without its makers' template its scores mean nothing; "
            f"set `template` to one of {', '.join(TEMPLATES)}, or to a template of your own"
        )
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
    _check_positions(spec, model)
    model.max_seq_length = spec.max_seq_length
    return model.eval()


def _heads(folder: Path) -> list[str]:
    """Name what a folder's model ends in; without a trained head sentence-transformers would add a random one."""
    if (folder / "modules.json").exists():  # sentence-transformers' own format
        return [_settings(folder / "config_sentence_transformers.json").get("model_type", "SentenceTransformer")]
    return _settings(folder / "config.json").get("architectures") or ["no architecture"]


def _check_positions(spec: CrossEncoderSpec, model: Any) -> None:  # noqa: ANN401 - sentence-transformers, not typed here
    positions = _positions(model)
    if positions is not None and spec.max_seq_length > positions:
        raise ValueError(
            f"max_seq_length={spec.max_seq_length} is more than the {positions} positions of {spec.model}; lower it"
        )


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
