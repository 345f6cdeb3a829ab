"""Answers by vLLM, offline and in process: chats in, text and first-token log-probabilities out."""

import gc
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.engines.answers import ERROR, TOO_LONG, Answer, Request, merge_logprobs
from infra.engines.chat_tokens import ChatError, ChatTokenizer, first_line
from infra.engines.specs import VLLMSpec
from infra.private_folders import private_folder

_GIB = 2**30
_MOST_LOGPROBS = 100
# One backend for all schemas: where vLLM chooses, the first schema decides for all later ones. Without whitespace
# between the fields an answer has a greatest length, and a model cannot fill it with blanks.
_STRUCTURED = {"backend": "xgrammar", "disable_any_whitespace": True}


@dataclass(frozen=True)
class _Prompt:
    """A request made ready for vLLM."""

    tokens: list[int]
    params: Any


class VLLMEngine:
    """One loaded language model. An answer depends on the list of requests it came in, not on what was asked before."""

    def __init__(self, spec: VLLMSpec) -> None:
        """Load the model from its folder (half a minute on two cores, most of it imports).

        Raises:
            ValueError: the folder is missing or holds no chat template, or vLLM is not installed for this device.
        """
        self._spec = spec
        self._tokenizer = ChatTokenizer(spec.model)
        self._sockets = place_for_sockets() if spec.tensor_parallel_size > 1 else None
        self._llm = load_llm(spec)
        _compile_grammars_at_once(self._llm)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests greedily, in their order, each within its own limits and by its own schema.

        One that cannot be asked (too long, refused by the chat template, a schema that no grammar can be made of) is
        answered with its reason; the others are not affected.

        Raises:
            RuntimeError: the engine itself failed; it must be built again.
        """
        prepared = [self._prepare(request) for request in requests]
        # What earlier calls left in the prefix cache would change the batches and, by rounding, the answers' last bits.
        self._llm.reset_prefix_cache()
        answers = iter(self._ask([item for item in prepared if isinstance(item, _Prompt)]))
        return [next(answers) if isinstance(item, _Prompt) else item for item in prepared]

    def close(self) -> None:
        """Release the model's memory; the engine cannot be used afterwards."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
        gc.collect()

    def _prepare(self, request: Request) -> _Prompt | Answer:
        """Make what vLLM is given, or the answer of a request that is not sent."""
        try:
            tokens = self._tokenizer.encode(request.chat)
        except ChatError as error:
            return Answer(finish_reason=f"{ERROR}{error}")
        if len(tokens) > self._spec.max_model_len - request.max_tokens:
            return Answer(finish_reason=TOO_LONG, prompt_tokens=len(tokens))
        try:
            return _Prompt(tokens, _sampling(request, self._spec.seed))
        except ValueError as error:
            return Answer(finish_reason=f"{ERROR}{first_line(error)}", prompt_tokens=len(tokens))

    def _ask(self, prompts: list[_Prompt]) -> list[Answer]:
        """Ask all prompts at once; where vLLM refuses the list, ask its halves, until a refused prompt is alone."""
        from vllm.exceptions import VLLMClientError

        if not prompts:
            return []
        try:
            return self._generate(prompts)
        except (ValueError, VLLMClientError) as error:  # raised before any runs; vLLM drops the whole list
            if self._llm.llm_engine.has_unfinished_requests():
                raise RuntimeError(f"vLLM failed while it answered: {first_line(error)}") from error
            if len(prompts) == 1:
                return [Answer(finish_reason=f"{ERROR}{first_line(error)}", prompt_tokens=len(prompts[0].tokens))]
            half = len(prompts) // 2
            return [*self._ask(prompts[:half]), *self._ask(prompts[half:])]

    def _generate(self, prompts: list[_Prompt]) -> list[Answer]:
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt.tokens} for prompt in prompts],
            sampling_params=[prompt.params for prompt in prompts],
            use_tqdm=False,
        )
        if len(outputs) != len(prompts):
            raise RuntimeError(f"vLLM gave {len(outputs)} answers to {len(prompts)} prompts; build the engine again")
        return [_answer(output) for output in outputs]


def _sampling(request: Request, seed: int) -> Any:  # noqa: ANN401 - vLLM is not read by the checker
    """Say how vLLM is to answer one request.

    Raises:
        ValueError: a limit out of range, or a schema that no grammar can be made of.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

    if request.max_tokens < 1:
        raise ValueError(f"max_tokens: 1 or more expected, got {request.max_tokens}")
    if not 0 <= request.top <= _MOST_LOGPROBS:
        raise ValueError(f"top: 0 to {_MOST_LOGPROBS} log-probabilities expected, got {request.top}")
    limits = {"temperature": 0.0, "max_tokens": request.max_tokens, "logprobs": request.top or None, "seed": seed}
    if request.schema is None:
        return SamplingParams(**limits)
    try:
        params = SamplingParams(
            **limits, structured_outputs=StructuredOutputsParams(json=json.dumps(dict(request.schema)))
        )
        # vLLM checks it too, but drops the whole list for one bad schema.
        validate_xgrammar_grammar(params)
    except (TypeError, ValueError, RecursionError, VLLMClientError) as error:
        raise ValueError(f"schema: {first_line(error)}") from error
    return params


def _answer(output: Any) -> Answer:  # noqa: ANN401 - vLLM is not read by the checker
    completion = output.outputs[0]
    first = completion.logprobs[0] if completion.logprobs else {}
    reason = completion.finish_reason
    return Answer(
        text=completion.text,
        logprobs=merge_logprobs((entry.decoded_token or "", entry.logprob) for entry in first.values()),
        finish_reason=reason if reason in ("stop", "length") else f"{ERROR}vLLM ended it with {reason!r}",
        prompt_tokens=len(output.prompt_token_ids),
        cached_tokens=output.num_cached_tokens or 0,
        output_tokens=len(completion.token_ids),
    )


def _compile_grammars_at_once(llm: Any) -> None:  # noqa: ANN401 - vLLM is not read by the checker
    """Let each grammar be compiled before its request is queued.

    Compiled in the background, a grammar is ready at a step that differs from run to run. The batches would differ too
    and, by rounding, the answers. With several devices the core is in a child process, where this cannot be set.
    """
    core = getattr(llm.llm_engine.engine_core, "engine_core", None)
    if core is not None:
        core.structured_output_manager._use_async_grammar_compilation = False


def place_for_sockets() -> Path:
    """Give vLLM a folder for the sockets between its processes; call it before vLLM is imported.

    They lie in TMPDIR otherwise, where the path may be too long for them. What comes through them is unpickled, so
    nobody else may reach them.
    """
    folder = private_folder("vllm-", str(uuid.UUID(int=0)))
    os.environ["VLLM_RPC_BASE_PATH"] = str(folder)
    return folder


def load_llm(spec: VLLMSpec) -> Any:  # noqa: ANN401 - vLLM is not read by the checker
    """Load a model's weights into vLLM, in this process for one device.

    Raises:
        ValueError: vLLM is not installed for this device.
    """
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
        structured_outputs_config=_STRUCTURED,
        use_tqdm_on_load=False,
        **memory,
    )
