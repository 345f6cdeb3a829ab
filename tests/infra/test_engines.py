import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import ray
from pydantic import BaseModel, ValidationError

from infra.encoder_engine import EncoderEngine
from infra.engines import SentenceTransformersSpec, VLLMSpec, build_engine, environment, parse_spec
from infra.keys import semantic
from infra.ray_cluster import ray_cluster
from infra.tiny import build_tiny_encoder, build_tiny_llm
from infra.vllm_engine import VLLMAnswer, defuse, merge_logprobs
from tasks.protocols import LLM, Answer, Encoder

ROOT = Path(__file__).parents[2]
TEXTS = ["the sum of all values", "rows", "", "get the first rows of a frame, and then some more of them"]


def vllm_spec(**changes: Any) -> VLLMSpec:
    return VLLMSpec(**{"model": "/models/judge", "digest": "d1", **changes})


def encoder_spec(**changes: Any) -> SentenceTransformersSpec:
    return SentenceTransformersSpec(**{"model": "/models/encoder", "digest": "e1", **changes})


# ---- specs ----


@pytest.mark.parametrize("spec", [vllm_spec(), encoder_spec()], ids=["vllm", "sentence_transformers"])
def test_a_spec_survives_json_and_its_kind_says_which_it_is(spec: VLLMSpec | SentenceTransformersSpec) -> None:
    assert parse_spec(spec.model_dump_json()) == spec


def test_a_spec_refuses_unknown_fields() -> None:
    with pytest.raises(ValidationError, match="tensor_paralel_size"):
        vllm_spec(tensor_paralel_size=2)


def test_the_key_of_a_language_model_covers_what_decides_its_answers_and_nothing_else() -> None:
    assert semantic(vllm_spec()) == {
        "kind": "vllm",
        "digest": "d1",
        "dtype": "bfloat16",
        "head_dtype": "float32",
        "quantization": None,
        "max_model_len": 2048,
        "seed": 0,
    }


def test_the_key_of_an_encoder_covers_its_prompts_and_length_and_not_where_it_lies() -> None:
    assert semantic(encoder_spec(model="/elsewhere", batch_size=8, query_prompt="query: ")) == {
        "kind": "sentence_transformers",
        "digest": "e1",
        "dtype": "float32",
        "max_seq_length": 256,
        "query_prompt": "query: ",
        "passage_prompt": "",
    }


def test_every_engine_starts_offline_and_without_telemetry() -> None:
    for spec in (vllm_spec(), encoder_spec()):
        variables = environment(spec)
        assert variables["HF_HUB_OFFLINE"] == "1"
        assert variables["HF_HUB_DISABLE_TELEMETRY"] == "1"
        assert variables["DO_NOT_TRACK"] == "1"
    assert environment(vllm_spec())["VLLM_NO_USAGE_STATS"] == "1"


def test_one_device_runs_in_one_process_and_several_in_children() -> None:
    assert environment(vllm_spec())["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment(vllm_spec(tensor_parallel_size=2))["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"


def test_threads_are_left_to_ray_unless_they_are_given() -> None:
    assert "OMP_NUM_THREADS" not in environment(encoder_spec())
    assert environment(encoder_spec(threads=2))["OMP_NUM_THREADS"] == "2"


def test_an_unknown_spec_is_refused_by_name() -> None:
    class Other(BaseModel):
        pass

    with pytest.raises(ValueError, match=r"VLLMSpec or SentenceTransformersSpec.*got Other"):
        build_engine(Other())


@pytest.mark.parametrize("spec", [vllm_spec(), encoder_spec()], ids=["vllm", "sentence_transformers"])
def test_a_missing_model_folder_is_named(spec: VLLMSpec | SentenceTransformersSpec) -> None:
    with pytest.raises(ValueError, match=re.escape(spec.model)):
        build_engine(spec)


# ---- what surrounds vLLM ----


def test_tokens_that_decode_to_the_same_text_add_their_probabilities() -> None:
    merged = merge_logprobs([("Yes", math.log(0.25)), ("No", math.log(0.6)), ("Yes", math.log(0.15))])
    assert list(merged) == ["No", "Yes"]
    assert merged["Yes"] == pytest.approx(math.log(0.4), abs=1e-15)


def test_a_log_probability_of_minus_infinity_stays_one() -> None:
    assert merge_logprobs([("a", -math.inf), ("b", -0.5)]) == {"b": -0.5, "a": -math.inf}


def test_a_control_token_in_a_text_is_broken_up() -> None:
    control = re.compile(re.escape("<|im_end|>"))
    assert defuse("x <|im_end|>y", control) == "x < |im_end|>y"
    assert defuse("plain", None) == "plain"


# ---- encoder ----


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    build_tiny_encoder(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> Iterator[EncoderEngine]:
    engine = build_engine(encoder_spec(model=str(encoder_folder), query_prompt="query: ", batch_size=2))
    yield engine
    engine.close()


@pytest.mark.slow
def test_vectors_come_in_the_order_of_the_texts_with_length_one(encoder: EncoderEngine) -> None:
    as_protocol: Encoder = encoder
    vectors = as_protocol.encode(TEXTS, "passage")
    assert vectors.dtype == pl.Array(pl.Float32, 32)
    assert np.linalg.norm(vectors.to_numpy(), axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    backwards = encoder.encode(TEXTS[::-1], "passage").to_numpy()[::-1]
    assert vectors.to_numpy() == pytest.approx(backwards, abs=1e-5)


@pytest.mark.slow
def test_a_role_has_its_own_prompt(encoder: EncoderEngine) -> None:
    query, passage = (encoder.encode(["first rows"], role).to_numpy() for role in ("query", "passage"))
    spelled = encoder.encode(["query: first rows"], "passage").to_numpy()
    assert query == pytest.approx(spelled, abs=1e-6)
    assert query != pytest.approx(passage, abs=1e-3)


@pytest.mark.slow
def test_no_texts_give_no_vectors_of_the_right_dimension(encoder: EncoderEngine) -> None:
    vectors = encoder.encode([], "query")
    assert (vectors.len(), vectors.dtype) == (0, pl.Array(pl.Float32, 32))


@pytest.mark.slow
def test_an_unknown_role_is_refused(encoder: EncoderEngine) -> None:
    with pytest.raises(ValueError, match='"query" or "passage"'):
        encoder.encode(["x"], "document")  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_same_texts_give_the_same_bytes_whatever_was_encoded_before(encoder: EncoderEngine) -> None:
    first = encoder.encode(TEXTS, "passage").to_numpy().tobytes()
    encoder.encode(["something else"] * 5, "query")
    assert encoder.encode(TEXTS, "passage").to_numpy().tobytes() == first


@pytest.mark.slow
def test_a_sequence_length_beyond_the_models_positions_is_refused(encoder_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"max_seq_length=512.*256 positions"):
        build_engine(encoder_spec(model=str(encoder_folder), max_seq_length=512))


@pytest.mark.slow
def test_bfloat16_vectors_have_length_one_too(encoder_folder: Path) -> None:
    engine = build_engine(encoder_spec(model=str(encoder_folder), dtype="bfloat16"))
    assert np.linalg.norm(engine.encode(TEXTS, "query").to_numpy(), axis=1) == pytest.approx(np.ones(4), abs=1e-6)


# ---- vLLM itself, in a Ray actor, as the stage runner has it ----

LONG = [{"role": "user", "content": "word " * 600}]
BROKEN = [{"role": "user"}]


def _chats(topic: str, number: int) -> list[list[dict[str, str]]]:
    shared = f"You are a careful judge. Query: {topic}. Is the passage relevant to the query? "
    return [[{"role": "user", "content": f"{shared * 3} Passage {i}: rows and values"}] for i in range(number)]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[VLLMAnswer]]]:
    folder = tmp_path_factory.mktemp("llm")
    build_tiny_llm(folder)
    spec = vllm_spec(model=str(folder), max_model_len=512, cpu_kvcache_gib=0.1, threads=1)
    variables = {**environment(spec), "PYTHONPATH": str(ROOT)}
    with ray_cluster(None):
        actor = Holder.options(num_cpus=2, runtime_env={"env_vars": variables}).remote(spec.model_dump_json())

        def answer(chats: list[Any], **keywords: Any) -> list[VLLMAnswer]:
            return ray.get(actor.answer.remote(chats, **{"max_tokens": 1, "top": 5, **keywords}), timeout=180)

        yield answer


@ray.remote
class Holder:
    def __init__(self, spec: str) -> None:
        self.engine: LLM = build_engine(parse_spec(spec))

    def answer(self, chats: list[Any], **keywords: Any) -> list[Answer]:
        return list(self.engine.answer(chats, **keywords))


@pytest.mark.slow
def test_answers_come_in_the_chats_order_and_one_bad_chat_does_not_lose_the_others(
    llm: Callable[..., list[VLLMAnswer]],
) -> None:
    good = _chats("rows", 2)
    answers = llm([good[0], LONG, BROKEN, good[1]])
    assert [a.finish_reason for a in (answers[0], answers[1], answers[3])] == ["length", "too_long", "length"]
    assert answers[2].finish_reason == "error: chat template: KeyError: 'content'"
    assert answers[1].prompt_tokens > 512
    assert answers[1].logprobs == {}
    assert (answers[0].output_tokens, len(answers[0].logprobs)) == (1, 5)
    assert [answers[0], answers[3]] == llm(good)


@pytest.mark.slow
def test_log_probabilities_are_natural_and_most_likely_first(llm: Callable[..., list[VLLMAnswer]]) -> None:
    (answer,) = llm(_chats("rows", 1), top=20)
    values = list(answer.logprobs.values())
    assert values == sorted(values, reverse=True)
    assert 0 < sum(map(math.exp, values)) <= 1
    assert next(iter(answer.logprobs)) == answer.text


@pytest.mark.slow
def test_the_same_chats_are_answered_alike_whatever_was_asked_before(llm: Callable[..., list[VLLMAnswer]]) -> None:
    part = _chats("values", 12)
    first = llm(part)
    llm(_chats("rows", 7))
    llm(part[3:6])
    assert llm(part) == first


@pytest.mark.slow
def test_no_chats_need_no_engine_step(llm: Callable[..., list[VLLMAnswer]]) -> None:
    assert llm([]) == []


@pytest.mark.slow
def test_more_log_probabilities_than_the_engine_keeps_are_refused(llm: Callable[..., list[VLLMAnswer]]) -> None:
    with pytest.raises(ValueError, match="top: 1 to 100"):
        llm(_chats("rows", 1), top=101)
