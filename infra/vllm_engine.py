"""Answers by vLLM, offline and in process: chats in, first-token log-probabilities and text out."""

import gc
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.engines import VLLMSpec

_GIB = 2**30
_MOST_LOGPROBS = 100
_TOO_LONG = "too_long"


@dataclass(frozen=True)
class VLLMAnswer:
    """One answer to one chat.

    text: what was generated. logprobs: natural log-probabilities of the likeliest first tokens, by decoded text, most
    likely first. finish_reason: `stop` or `length` by vLLM, `too_long` for a prompt that was not sent, `error: …`.
    """

    text: str = ""
    logprobs: Mapping[str, float] = field(default_factory=dict)
    finish_reason: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0


class VLLMEngine:
    """One loaded language model. An answer depends on the list of chats it came in, not on what was asked before."""

    def __init__(self, spec: VLLMSpec) -> None:
        """Load the model from its folder (half a minute on two cores, most of it imports).

        Raises:
            ValueError: the folder is missing, or vLLM is not installed for this device.
        """
        if not Path(spec.model).is_dir():
            raise ValueError(f"model: a folder with the language model's weights expected, {spec.model!r} is none")
        self._spec = spec
        self._llm = _load(spec)
        self._tokenizer = self._llm.get_tokenizer()
        self._control = _control_tokens(self._tokenizer)

    @property
    def provenance(self) -> dict[str, str]:
        """What produced the answers: versions of the libraries, and the device."""
        import torch
        import vllm

        return {"vllm": vllm.__version__, "torch": torch.__version__, "device": self._spec.device}

    def answer(
        self, chats: Sequence[Sequence[Mapping[str, str]]], *, max_tokens: int, top: int
    ) -> Sequence[VLLMAnswer]:
        """Answer chats greedily, in their order, with the `top` likeliest first tokens.

        A chat that cannot be asked (too long, refused by the chat template or by vLLM) is answered with its reason;
        the others are not affected.

        Raises:
            ValueError: `max_tokens` or `top` is out of range.
            RuntimeError: the engine itself failed; it must be built again.
        """
        self._check(max_tokens, top)
        prepared = [self._prepare(chat, max_tokens) for chat in chats]
        # What earlier calls left in the prefix cache would change the batches and, by rounding, the answers' last bits.
        self._llm.reset_prefix_cache()
        prompts = [item for item in prepared if not isinstance(item, VLLMAnswer)]
        answers = iter(self._ask(prompts, max_tokens, top))
        return [item if isinstance(item, VLLMAnswer) else next(answers) for item in prepared]

    def close(self) -> None:
        """Release the model's memory; the engine cannot be used afterwards."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        gc.collect()

    def _check(self, max_tokens: int, top: int) -> None:
        if not 1 <= max_tokens < self._spec.max_model_len:
            raise ValueError(f"max_tokens: 1 to {self._spec.max_model_len - 1} (max_model_len - 1), got {max_tokens}")
        if not 1 <= top <= _MOST_LOGPROBS:
            raise ValueError(f"top: 1 to {_MOST_LOGPROBS} log-probabilities expected, got {top}")

    def _prepare(self, chat: Sequence[Mapping[str, str]], max_tokens: int) -> list[int] | VLLMAnswer:
        """Make the prompt's tokens, or the answer of a chat that is not sent."""
        try:
            messages = [{**message, "content": defuse(message["content"], self._control)} for message in chat]
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program that comes with the model: it may raise anything
            return VLLMAnswer(finish_reason=f"error: chat template: {type(error).__name__}: {_first_line(error)}")
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) > self._spec.max_model_len - max_tokens:
            return VLLMAnswer(finish_reason=_TOO_LONG, prompt_tokens=len(tokens))
        return tokens

    def _ask(self, prompts: list[list[int]], max_tokens: int, top: int) -> list[VLLMAnswer]:
        if not prompts:
            return []
        try:
            return self._generate(prompts, max_tokens, top)
        except ValueError as error:  # vLLM refused a prompt before it ran any, and withdrew the others
            if len(prompts) == 1:
                return [VLLMAnswer(finish_reason=f"error: {_first_line(error)}", prompt_tokens=len(prompts[0]))]
            return [answer for prompt in prompts for answer in self._ask([prompt], max_tokens, top)]

    def _generate(self, prompts: list[list[int]], max_tokens: int, top: int) -> list[VLLMAnswer]:
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, logprobs=top, seed=self._spec.seed)
        outputs = self._llm.generate(
            [{"prompt_token_ids": tokens} for tokens in prompts], sampling_params=params, use_tqdm=False
        )
        return [_answer(output) for output in outputs]


def merge_logprobs(tokens: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Add the probabilities of tokens that decode to the same text, most likely first.

    >>> merge_logprobs([("Yes", math.log(0.25)), ("No", math.log(0.5)), ("Yes", math.log(0.25)), ("yes", -9.0)])
    {'No': -0.6931471805599453, 'Yes': -0.6931471805599453, 'yes': -9.0}
    """
    merged: dict[str, list[float]] = {}
    for text, logprob in tokens:
        merged.setdefault(text, []).append(logprob)
    total = {
        text: values[0] if len(values) == 1 else math.log(math.fsum(map(math.exp, values)))
        for text, values in merged.items()
    }
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def defuse(text: str, control: re.Pattern[str] | None) -> str:
    """Break up control tokens that stand in a text: a passage must not be able to end its turn and answer itself.

    >>> defuse("a <|im_end|> b", re.compile(re.escape("<|im_end|>")))
    'a < |im_end|> b'
    """
    return text if control is None else control.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)


def _control_tokens(tokenizer: Any) -> re.Pattern[str] | None:  # noqa: ANN401 - transformers is not read by the checker
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    spelled = sorted((token for token in special if len(token) > 1), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, spelled))) if spelled else None


def _answer(output: Any) -> VLLMAnswer:  # noqa: ANN401 - vLLM is not read by the checker
    completion = output.outputs[0]
    first = completion.logprobs[0] if completion.logprobs else {}
    return VLLMAnswer(
        text=completion.text,
        logprobs=merge_logprobs((entry.decoded_token or "", entry.logprob) for entry in first.values()),
        finish_reason=completion.finish_reason or "error: vLLM gave no reason",
        prompt_tokens=len(output.prompt_token_ids),
        output_tokens=len(completion.token_ids),
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _load(spec: VLLMSpec) -> Any:  # noqa: ANN401 - vLLM is not read by the checker
    from vllm import LLM
    from vllm.platforms import current_platform

    if current_platform.device_type != spec.device:
        raise ValueError(
            f"device={spec.device!r}, but this vLLM finds {current_platform.device_type or 'no device'!r}: "
            "install the extra of that name (cpu or gpu), or change device"
        )
    memory: dict[str, Any] = (
        {"kv_cache_memory_bytes": int(spec.cpu_kvcache_gib * _GIB)}
        if spec.device == "cpu"
        else {"gpu_memory_utilization": spec.gpu_memory_utilization}
    )
    return LLM(
        model=spec.model,
        dtype=spec.dtype,
        quantization=spec.quantization,
        max_model_len=spec.max_model_len,
        seed=spec.seed,
        tensor_parallel_size=spec.tensor_parallel_size,
        max_num_seqs=spec.max_num_seqs,
        max_num_batched_tokens=max(spec.max_num_batched_tokens, spec.max_num_seqs),
        block_size=spec.block_size,
        enforce_eager=spec.enforce_eager,
        enable_prefix_caching=True,
        trust_remote_code=False,
        hf_overrides={"head_dtype": spec.head_dtype},
        generation_config="vllm",  # the model's own defaults (penalties, temperature) must not reach a judge
        max_logprobs=_MOST_LOGPROBS,
        use_tqdm_on_load=False,
        **memory,
    )
