"""An instruction reranker under vLLM: one step for each pair, and the log-probabilities of exactly its two answers."""

import gc
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from infra.engines.rerankers.pair_tokens import PairTokens, share_of_yes
from infra.engines.specs import VLLMRerankerSpec
from infra.engines.vllm import load_llm, place_for_sockets


class VLLMReranker:
    """One loaded reranker. A score depends on the list of pairs it came in, not on what was scored before."""

    def __init__(self, spec: VLLMRerankerSpec) -> None:
        """Load the model from its folder.

        Raises:
            ValueError: the folder is missing, its tokenizer does not fit the template, or vLLM is not installed for
                this device.
        """
        if not Path(spec.model).is_dir():
            raise ValueError(f"model: a folder with the reranker's weights expected, {spec.model!r} is none")
        self._spec = spec
        self._tokens = PairTokens(spec.model, spec.template, spec.max_model_len - 1)  # one token is generated
        self._sockets = place_for_sockets() if spec.tensor_parallel_size > 1 else None
        self._llm = load_llm(spec)

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[float]:
        """Return P(yes) of P(yes) + P(no) for each pair of (query, passage), in their order.

        Args:
            pairs: queries and passages; those of one query next to each other share the work for it.
            instructions: one for each pair, or none. A pair whose passage would be cut off whole has the score NaN.

        Raises:
            RuntimeError: the engine itself failed, or the model gave no number; it must be built again.
        """
        prompts = self._tokens.encode(pairs, instructions)
        # What earlier calls left in the prefix cache would change the batches and, by rounding, the last bits.
        self._llm.reset_prefix_cache()
        scores = iter(self._ask([prompt for prompt in prompts if prompt is not None]))
        return [math.nan if prompt is None else next(scores) for prompt in prompts]

    def close(self) -> None:
        """Release the model's memory; the engine cannot be used afterwards."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
        gc.collect()

    def _ask(self, prompts: Sequence[list[int]]) -> list[float]:
        from vllm import SamplingParams

        if not prompts:
            return []
        answers = [self._tokens.no, self._tokens.yes]
        # The token that is generated does not matter: these two are reported whichever it is.
        params = SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=answers, seed=self._spec.seed)
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], sampling_params=params, use_tqdm=False
        )
        if len(outputs) != len(prompts):
            raise RuntimeError(f"vLLM gave {len(outputs)} answers to {len(prompts)} prompts; build the engine again")
        found = [output.outputs[0].logprobs[0] for output in outputs]
        no, yes = ([entry[token].logprob for entry in found] for token in answers)
        broken = [number for number, (low, high) in enumerate(zip(no, yes, strict=True)) if math.isnan(high - low)]
        if broken:
            raise RuntimeError(
                f"{self._spec.model}: {len(broken)} of {len(prompts)} scores are not numbers; try dtype=float32 "
                f"instead of {self._spec.dtype}, or another copy of the weights"
            )
        return [share_of_yes(high - low) for low, high in zip(no, yes, strict=True)]
