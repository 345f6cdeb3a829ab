"""What vLLM is given, and what is made of what it gives back, without vLLM; with it, in test_vllm_running.py."""

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from infra.engines import vllm
from infra.engines.answers import Answer
from infra.engines.chat_tokens import ChatError
from infra.engines.specs import VLLMSpec
from infra.engines.vllm import VLLMEngine

LONGEST = 1024


@dataclass(frozen=True)
class Ask:
    chat: Sequence[Mapping[str, str]]
    max_tokens: int = 1
    top: int = 5
    schema: Mapping[str, Any] | None = None
    call_id: str = ""


BROKEN = Ask([{"role": "user"}])


class ClientError(Exception):
    """As vLLM's error of a request that it refuses."""


@dataclass
class Core:
    """The core of vLLM's engine."""

    closed: int = 0

    def shutdown(self) -> None:
        self.closed += 1


class Model:
    """Takes the place of `vllm.LLM`: answers each prompt with its first token, and refuses token 666."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.asked: list[list[int]] = []
        self.resets = 0
        self.left: bool = False
        self.lost = 0
        self.llm_engine = SimpleNamespace(engine_core=Core(), has_unfinished_requests=lambda: self.left)

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    def generate(self, prompts: list[dict[str, list[int]]], sampling_params: list[Any], use_tqdm: bool) -> list[Any]:
        firsts = [prompt["prompt_token_ids"][0] for prompt in prompts]
        self.asked.append(firsts)
        if 666 in firsts:
            raise ClientError("Token id 666 is out of vocabulary\nand more")
        outputs = [output_of(prompt["prompt_token_ids"]) for prompt in prompts]
        return outputs[: len(outputs) - self.lost]


def output_of(tokens: list[int], reason: str = "stop", cached: int | None = 3, logprobs: bool = True) -> Any:
    entries = {
        1: SimpleNamespace(decoded_token="Yes", logprob=math.log(0.25)),
        2: SimpleNamespace(decoded_token=None, logprob=math.log(0.5)),
        3: SimpleNamespace(decoded_token="Yes", logprob=math.log(0.125)),
    }
    completion = SimpleNamespace(
        text=f"says {tokens[0]}", token_ids=[7, 8], finish_reason=reason, logprobs=[entries] if logprobs else None
    )
    return SimpleNamespace(outputs=[completion], prompt_token_ids=tokens, num_cached_tokens=cached)


class Chats:
    """Takes the place of the tokenizer: the content holds the tokens."""

    def encode(self, chat: Sequence[Mapping[str, str]]) -> list[int]:
        if "content" not in chat[0]:
            raise ChatError("chat template: KeyError: 'content'")
        return [int(token) for token in chat[0]["content"].split()]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> VLLMEngine:
    """An engine whose vLLM is the stand-in."""

    def validate(params: Any) -> None:
        if params.structured_outputs is not None and "nonsense" in params.structured_outputs.json:
            raise ValueError("no such type\nat line 1")

    modules = {
        "vllm": {"LLM": Model, "SamplingParams": sampling_of},
        "vllm.exceptions": {"VLLMClientError": ClientError},
        "vllm.platforms": {"current_platform": SimpleNamespace(device_type="cpu")},
        "vllm.sampling_params": {"StructuredOutputsParams": lambda json: SimpleNamespace(json=json)},
        "vllm.v1": {},
        "vllm.v1.structured_output": {},
        "vllm.v1.structured_output.backend_xgrammar": {"validate_xgrammar_grammar": validate},
    }
    for name, members in modules.items():
        module = ModuleType(name)
        for member, value in members.items():
            setattr(module, member, value)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vllm, "ChatTokenizer", lambda model: Chats())
    return VLLMEngine(VLLMSpec(model="/models/judge", digest="d1", max_model_len=64, seed=3))


def sampling_of(structured_outputs: Any = None, **limits: Any) -> SimpleNamespace:
    return SimpleNamespace(structured_outputs=structured_outputs, **limits)


def say(content: str, **changes: Any) -> Ask:
    return Ask([{"role": "user", "content": content}], **changes)


def test_what_vllm_gives_back_is_made_into_an_answer(stand_in: VLLMEngine) -> None:
    (answer,) = stand_in.answer([say("5 6 7")])
    assert answer == Answer(
        text="says 5",
        logprobs={"": math.log(0.5), "Yes": pytest.approx(math.log(0.375))},
        finish_reason="stop",
        prompt_tokens=3,
        cached_tokens=3,
        output_tokens=2,
    )
    assert list(answer.logprobs) == ["", "Yes"]


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("abort", "error: vLLM ended it with 'abort'")]
)
def test_an_end_that_is_neither_stop_nor_length_is_an_error(reason: str, told: str) -> None:
    answer = vllm._answer(output_of([5], reason, cached=None, logprobs=False))
    assert (answer.finish_reason, answer.cached_tokens, answer.logprobs) == (told, 0, {})


def test_a_request_that_cannot_be_asked_is_answered_with_its_reason_in_its_place(stand_in: VLLMEngine) -> None:
    sixty = " ".join(["9"] * 60)
    asks = [say("1"), BROKEN, say(sixty, max_tokens=5), say(sixty, max_tokens=4), say("2", top=101), say("3")]
    answers = stand_in.answer(asks)
    assert [(a.text, a.finish_reason, a.prompt_tokens) for a in answers] == [
        ("says 1", "stop", 1),
        ("", "error: chat template: KeyError: 'content'", 0),
        ("", "too_long", 60),
        ("says 9", "stop", 60),
        ("", "error: top: 0 to 100 log-probabilities expected, got 101", 1),
        ("says 3", "stop", 1),
    ]
    assert (stand_in._llm.asked, stand_in._llm.resets) == ([[1, 9, 3]], 1)


def test_what_vllm_refuses_is_narrowed_down_by_halves(stand_in: VLLMEngine) -> None:
    answers = stand_in.answer([say(text) for text in ("1", "2", "666 5", "3")])
    assert [answer.text for answer in answers] == ["says 1", "says 2", "", "says 3"]
    assert answers[2].finish_reason == "error: Token id 666 is out of vocabulary"
    assert answers[2].prompt_tokens == 2
    assert stand_in._llm.asked == [[1, 2, 666, 3], [1, 2], [666, 3], [666], [3]]


def test_an_engine_that_fails_in_the_middle_or_loses_answers_must_be_built_again(stand_in: VLLMEngine) -> None:
    stand_in._llm.left = True
    with pytest.raises(RuntimeError, match="vLLM failed while it answered: Token id 666"):
        stand_in.answer([say("666"), say("1")])
    stand_in._llm.left, stand_in._llm.lost = False, 1
    with pytest.raises(RuntimeError, match="vLLM gave 1 answers to 2 prompts; build the engine again"):
        stand_in.answer([say("1"), say("2")])


def test_no_requests_and_refused_ones_alone_ask_nothing(stand_in: VLLMEngine) -> None:
    assert stand_in.answer([]) == []
    assert stand_in.answer([BROKEN])[0].finish_reason.startswith("error: chat template")
    assert stand_in._llm.asked == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_tokens": 0}, "max_tokens: 1 or more expected, got 0"),
        ({"top": -1}, "top: 0 to 100 log-probabilities expected, got -1"),
        ({"top": 101}, "top: 0 to 100 log-probabilities expected, got 101"),
        ({"schema": {"type": "nonsense"}}, "schema: no such type"),
        ({"schema": {"type": object}}, "schema: Object of type type is not JSON serializable"),
    ],
)
def test_limits_and_schemas_that_cannot_be_are_refused(
    stand_in: VLLMEngine, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        vllm._sampling(say("1", **changes), 3)


def test_answers_are_greedy_within_the_requests_own_limits(stand_in: VLLMEngine) -> None:
    plain = vllm._sampling(say("1", max_tokens=1, top=0), 3)
    assert vars(plain) == {"structured_outputs": None, "temperature": 0.0, "max_tokens": 1, "logprobs": None, "seed": 3}
    formed = vllm._sampling(say("1", max_tokens=9, top=100, schema={"type": "string"}), 3)
    assert (formed.max_tokens, formed.logprobs, formed.structured_outputs.json) == (9, 100, '{"type": "string"}')


def test_the_model_is_loaded_as_the_spec_says(stand_in: VLLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    options = stand_in._llm.options
    assert (options["model"], options["max_model_len"], options["seed"]) == ("/models/judge", 64, 3)
    assert options["kv_cache_memory_bytes"] == 2**30
    assert "gpu_memory_utilization" not in options
    assert (options["trust_remote_code"], options["enable_prefix_caching"]) == (False, True)
    assert options["structured_outputs_config"] == {"backend": "xgrammar", "disable_any_whitespace": True}
    assert (options["max_logprobs"], options["use_tqdm_on_load"]) == (100, False)
    assert options["max_num_batched_tokens"] == 2048
    spec = VLLMSpec(model="/models/judge", digest="d1", device="cuda", max_num_seqs=100, max_num_batched_tokens=64)
    with pytest.raises(ValueError, match="device='cuda', but this vLLM finds 'cpu': install the extra"):
        VLLMEngine(spec)
    monkeypatch.setattr(sys.modules["vllm.platforms"].current_platform, "device_type", "cuda")
    options = VLLMEngine(spec)._llm.options
    assert (options["gpu_memory_utilization"], options["max_num_batched_tokens"]) == (0.9, 100)
    assert "kv_cache_memory_bytes" not in options


def test_grammars_are_compiled_before_their_requests_are_queued_where_the_core_is_within_reach() -> None:
    manager = SimpleNamespace(_use_async_grammar_compilation=True)
    core = SimpleNamespace(engine_core=SimpleNamespace(structured_output_manager=manager))
    vllm._compile_grammars_at_once(SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core)))
    assert manager._use_async_grammar_compilation is False


def test_a_closed_engine_has_given_its_memory_back_and_may_be_closed_again(stand_in: VLLMEngine) -> None:
    core = stand_in._llm.llm_engine.engine_core
    stand_in.close()
    stand_in.close()
    assert (core.closed, stand_in._llm) == (1, None)


@pytest.mark.usefixtures("stand_in")
def test_the_sockets_between_the_processes_of_several_devices_lie_in_a_short_private_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", "unset")
    spec = VLLMSpec(model="/models/judge", digest="d1", max_model_len=64)
    VLLMEngine(spec).close()
    assert os.environ["VLLM_RPC_BASE_PATH"] == "unset"
    engine = VLLMEngine(spec.model_copy(update={"tensor_parallel_size": 2}))
    folder = Path(os.environ["VLLM_RPC_BASE_PATH"])
    assert folder.parent == Path("/tmp")
    assert folder.stat().st_mode & 0o777 == 0o700
    engine.close()
    assert not folder.exists()
