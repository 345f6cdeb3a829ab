"""vLLM answers each request within its own limits and by its own schema; real, in a Ray actor as the stages have it."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from infra.cluster.ray_cluster import ray_cluster
from infra.engines.answers import Answer
from infra.engines.chat_tokens import ChatTokenizer
from infra.engines.kinds import build_engine, environment
from infra.engines.specs import VLLMSpec
from infra.models.random_models import build_tiny_llm
from tasks.protocols import LLM
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(600)  # the first test waits for the engine, minutes on a busy machine
IDS = [f"p{number}" for number in range(1, 26)]
GRADES = ["better", "equal", "worse", "none"]
LONGEST = 1024


@dataclass(frozen=True)
class Ask:
    chat: Sequence[Mapping[str, str]]
    max_tokens: int = 1
    top: int = 5
    schema: Mapping[str, Any] | None = None
    call_id: str = ""


Engine = Callable[..., list[Answer]]
LONG = Ask([{"role": "user", "content": "word " * 1200}])
BROKEN = Ask([{"role": "user"}])
UNKNOWN = Ask([{"role": "user", "content": "a token that the model does not have"}])


def _asks(topic: str, number: int, **changes: Any) -> list[Ask]:
    shared = f"You are a careful judge. Query: {topic}. Is the passage relevant to the query? "
    chats = [[{"role": "user", "content": f"{shared * 3} Passage {i}: rows and values"}] for i in range(number)]
    return [Ask(chat, **changes) for chat in chats]


def _verdicts(ids: Sequence[str]) -> dict[str, Any]:
    grades = {"type": "string", "enum": GRADES}
    verdicts = _object(dict.fromkeys(ids, grades))
    return _object({"verdicts": verdicts})


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


@ray.remote
class Holder:
    def __init__(self, spec: VLLMSpec) -> None:
        self.engine: Any = build_engine(spec)
        core = self.engine._llm.llm_engine.engine_core.engine_core
        core.structured_output_manager.executor = None  # no grammar may be compiled in the background
        encode = self.engine._tokenizer.encode
        unknown = [10**6]  # vLLM itself refuses a token that the model does not have
        self.engine._tokenizer.encode = lambda chat: unknown if chat == UNKNOWN.chat else encode(chat)

    def answer(self, requests: list[Ask]) -> list[Answer]:
        as_protocol: LLM = self.engine
        return list(as_protocol.answer(requests))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llm")
    build_tiny_llm(folder)
    return folder


@pytest.fixture(scope="module")
def holder(folder: Path) -> Iterator[Any]:
    spec = VLLMSpec(model=str(folder), digest="d1", max_model_len=LONGEST, cpu_kvcache_gib=0.1, threads=1)
    variables = {**environment(spec), "PYTHONPATH": str(ROOT)}
    with ray_cluster(None):
        yield Holder.options(num_cpus=2, runtime_env={"env_vars": variables}).remote(spec)


@pytest.fixture(scope="module")
def llm(holder: Any) -> Engine:
    return lambda asks: ray.get(holder.answer.remote(asks), timeout=400)


@pytest.mark.slow
def test_answers_come_in_the_requests_order_and_one_bad_chat_does_not_lose_the_others(llm: Engine) -> None:
    good = _asks("rows", 2)
    answers = llm([good[0], LONG, BROKEN, good[1]])
    assert [a.finish_reason for a in (answers[0], answers[1], answers[3])] == ["length", "too_long", "length"]
    assert answers[2].finish_reason == "error: chat template: KeyError: 'content'"
    assert answers[1].prompt_tokens > LONGEST
    assert answers[1].logprobs == {}
    assert (answers[0].output_tokens, len(answers[0].logprobs)) == (1, 5)
    assert [answers[0], answers[3]] == llm(good)


@pytest.mark.slow
def test_what_vllm_itself_refuses_harms_no_other(llm: Engine) -> None:
    good = _asks("rows", 4)
    answers = llm([*good[:2], UNKNOWN, *good[2:], UNKNOWN])
    assert answers[2] == answers[5]
    assert answers[2].finish_reason.startswith("error: Token id 1000000 is out of vocabulary")
    assert [answer.text for answer in (*answers[:2], *answers[3:5])] == [answer.text for answer in llm(good)]


@pytest.mark.slow
def test_log_probabilities_are_natural_and_most_likely_first(llm: Engine) -> None:
    (answer,) = llm(_asks("rows", 1, top=20))
    values = list(answer.logprobs.values())
    assert values == sorted(values, reverse=True)
    assert 0 < sum(map(math.exp, values)) <= 1
    assert next(iter(answer.logprobs)) == answer.text


@pytest.mark.slow
def test_each_request_has_its_own_limits(llm: Engine) -> None:
    chats = _asks("rows", 4)
    limits = [(1, 4), (7, 0), (3, 2), (LONGEST, 0)]
    one, seven, three, too_much = llm(
        [replace(ask, max_tokens=most, top=top) for ask, (most, top) in zip(chats, limits, strict=True)]
    )
    assert [len(answer.logprobs) for answer in (one, seven, three)] == [4, 0, 2]
    assert [answer.output_tokens for answer in (one, seven, three)] == [1, 7, 3]
    assert (too_much.finish_reason, too_much.text) == ("too_long", "")
    assert too_much.prompt_tokens == one.prompt_tokens


@pytest.mark.slow
def test_a_prompt_and_its_answer_may_just_fill_the_model(llm: Engine) -> None:
    (ask,) = _asks("rows", 1)
    (answer,) = llm([ask])
    room = LONGEST - answer.prompt_tokens
    fits, exceeds = llm([replace(ask, max_tokens=room, schema=_verdicts(IDS[:2])), replace(ask, max_tokens=room + 1)])
    assert (fits.finish_reason, exceeds.finish_reason) == ("stop", "too_long")


@pytest.mark.slow
def test_limits_out_of_range_are_told_to_the_request_that_has_them(llm: Engine) -> None:
    ask, other = _asks("rows", 2)
    answers = llm([replace(ask, top=101), replace(ask, max_tokens=0), other])
    assert answers[0].finish_reason == "error: top: 0 to 100 log-probabilities expected, got 101"
    assert answers[1].finish_reason == "error: max_tokens: 1 or more expected, got 0"
    assert answers[2:] == llm([other])


@pytest.mark.slow
def test_an_answer_obeys_its_schema_whatever_the_model_would_say(llm: Engine) -> None:
    all_of_them, few, free = llm(
        [
            *_asks("rows", 1, max_tokens=600, top=0, schema=_verdicts(IDS)),
            *_asks("sums", 1, max_tokens=200, top=3, schema=_verdicts(IDS[:3])),
            *_asks("free", 1, max_tokens=8),
        ]
    )
    for answer, ids in ((all_of_them, IDS), (few, IDS[:3])):
        verdicts = json.loads(answer.text)["verdicts"]
        assert (answer.finish_reason, list(verdicts)) == ("stop", ids)
        assert set(verdicts.values()) <= set(GRADES)
    assert len(few.logprobs) == 3
    assert not free.text.startswith("{")


@pytest.mark.slow
def test_an_answer_that_its_limit_cuts_off_says_so(llm: Engine) -> None:
    (answer,) = llm(_asks("rows", 1, max_tokens=20, schema=_verdicts(IDS)))
    assert (answer.finish_reason, answer.output_tokens) == ("length", 20)
    assert answer.text.startswith('{"verdicts"')


@pytest.mark.slow
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        {"type": "string", "pattern": "("},
        {"$ref": "#/nowhere"},
        {"type": "object", "properties": {"x": object}},
    ],
    ids=["type", "unsupported", "pattern", "reference", "not JSON"],
)
def test_a_bad_schema_harms_its_own_request_only(llm: Engine, schema: Mapping[str, Any]) -> None:
    good = [*_asks("rows", 1), *_asks("sums", 1, max_tokens=100, schema=_verdicts(IDS[:2]))]
    bad = _asks("bad", 1, max_tokens=100, schema=schema)
    answers = llm([good[0], *bad, good[1]])
    assert answers[1].finish_reason.startswith("error: schema: ")
    assert answers[1].text == ""
    assert [answers[0], answers[2]] == llm(good)


@pytest.mark.slow
def test_prompts_of_one_list_share_what_they_have_in_common(llm: Engine) -> None:
    answers = llm(_asks("rows", 6))
    assert answers[0].cached_tokens == 0
    assert all(a.prompt_tokens > a.cached_tokens >= a.prompt_tokens // 2 for a in answers[1:])
    assert llm(_asks("rows", 1))[0].cached_tokens == 0


@pytest.mark.slow
def test_the_same_requests_are_answered_alike_whatever_was_asked_before(llm: Engine) -> None:
    part = [
        *_asks("values", 12),
        *_asks("sums", 3, max_tokens=120, schema=_verdicts(IDS[:4])),
        *_asks("free", 3, max_tokens=30, top=0),
    ]
    first = llm(part)
    llm(_asks("rows", 7))
    llm(part[11:16])
    assert llm(part) == first


@pytest.mark.slow
def test_prompts_are_counted_without_asking(llm: Engine, folder: Path) -> None:
    asks = [*_asks("rows", 2), LONG, BROKEN]
    counted = [ChatTokenizer(folder).count(ask.chat) for ask in asks]
    assert counted == [answer.prompt_tokens for answer in llm(asks)]


@pytest.mark.slow
def test_no_requests_need_no_engine_step(llm: Engine) -> None:
    assert llm([]) == []
