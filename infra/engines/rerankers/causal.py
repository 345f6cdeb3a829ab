"""An instruction reranker under sentence-transformers: the two answers of a language model as one score."""

from collections.abc import Sequence
from typing import Any

from infra.engines.rerankers.pair_tokens import PairTokens
from infra.engines.specs import CrossEncoderSpec, PairTemplate

_NO, _YES = 0, 1


class CausalReranker:
    """One loaded language model, asked about pairs by a template; it gives the log-odds of `yes` against `no`."""

    def __init__(self, spec: CrossEncoderSpec, template: PairTemplate) -> None:
        """Load the model from its folder; no code from the model is run, nothing is downloaded.

        Raises:
            ValueError: the folder holds no language model, or the template does not fit its tokenizer.
        """
        self._spec = spec
        self.tokens = PairTokens(spec.model, template, spec.max_seq_length)
        self.model = _load(spec, self.tokens)

    def log_odds(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[float | None]:
        """Return log-odds for each pair of (query, passage); None for one whose passage would be cut off whole."""
        import torch

        prompts = self.tokens.encode(pairs, instructions)
        order = sorted(
            (number for number, prompt in enumerate(prompts) if prompt is not None),
            key=lambda number: -len(prompts[number] or ()),
        )
        found: list[float | None] = [None] * len(pairs)
        with torch.inference_mode():
            for start in range(0, len(order), self._spec.batch_size):
                numbers = order[start : start + self._spec.batch_size]
                features = self._padded([prompts[number] or [] for number in numbers])
                scores = self.model(features)["scores"].squeeze(-1).float().tolist()
                for number, score in zip(numbers, scores, strict=True):
                    found[number] = score
        return found

    def _padded(self, prompts: Sequence[list[int]]) -> dict[str, Any]:
        """Fill shorter prompts up on the left, so that each ends with its suffix."""
        import torch

        longest = max(map(len, prompts))
        missing = [longest - len(prompt) for prompt in prompts]
        ids = [[self.tokens.padding] * gap + prompt for gap, prompt in zip(missing, prompts, strict=True)]
        mask = [[0] * gap + [1] * (longest - gap) for gap in missing]
        return {
            "input_ids": torch.tensor(ids, device=self._spec.device),
            "attention_mask": torch.tensor(mask, device=self._spec.device),
            "logits_to_keep": 1,
        }


def _load(spec: CrossEncoderSpec, tokens: PairTokens) -> Any:  # noqa: ANN401 - sentence-transformers is not read here
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import LogitScore
    from sentence_transformers.sentence_transformer.modules import Transformer

    offline = {"local_files_only": True, "trust_remote_code": False}
    transformer = Transformer(
        spec.model,
        transformer_task="text-generation",
        model_kwargs={"dtype": getattr(torch, spec.dtype), "use_safetensors": True, **offline},
        processor_kwargs=offline,
        config_kwargs=offline,
    )
    _keep_two_answers(transformer.model, tokens)
    score = LogitScore(true_token_id=_YES, false_token_id=_NO)
    return CrossEncoder(modules=[transformer, score], device=spec.device).eval()


def _keep_two_answers(model: Any, tokens: PairTokens) -> None:  # noqa: ANN401 - transformers is not read by the checker
    """Leave two rows of the output layer, in float32: as bfloat16, logits are multiples of 1/8."""
    import torch

    whole = model.get_output_embeddings()
    rows = [tokens.no, tokens.yes]
    head = torch.nn.Linear(whole.weight.shape[1], len(rows), bias=whole.bias is not None, dtype=torch.float32)
    with torch.no_grad():
        head.weight.copy_(whole.weight[rows].float())
        if whole.bias is not None:
            head.bias.copy_(whole.bias[rows].float())
    head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    model.set_output_embeddings(head)
