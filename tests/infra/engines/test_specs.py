"""Specs: what decides the key, what the process is started with, which engine is built."""

from typing import Any

import pytest
from pydantic import ValidationError

from infra.engines.specs import (
    TEMPLATES,
    CrossEncoderSpec,
    OpenAIBatchSpec,
    OpenAISpec,
    PairTemplate,
    SentenceTransformersSpec,
    VLLMRerankerSpec,
    VLLMSpec,
)
from infra.stages.part_keys import semantic


def vllm_spec(**changes: Any) -> VLLMSpec:
    return VLLMSpec(**{"model": "/models/judge", "digest": "d1", **changes})


def encoder_spec(**changes: Any) -> SentenceTransformersSpec:
    return SentenceTransformersSpec(**{"model": "/models/encoder", "digest": "e1", **changes})


def cross_encoder_spec(**changes: Any) -> CrossEncoderSpec:
    return CrossEncoderSpec(**{"model": "/models/cross-encoder", "digest": "c1", **changes})


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


def test_the_key_of_a_cross_encoder_covers_its_length_and_how_a_probability_is_made() -> None:
    assert semantic(cross_encoder_spec(model="/elsewhere", batch_size=8)) == {
        "kind": "cross_encoder",
        "digest": "c1",
        "dtype": "float32",
        "max_seq_length": 512,
        "activation": "sigmoid",
    }


def test_what_does_not_decide_an_answer_has_these_defaults() -> None:
    assert vllm_spec().model_dump(exclude={"model", "digest", *semantic(vllm_spec())}) == {
        "device": "cpu",
        "threads": None,
        "software": {},  # with none the key does not depend on it
        "tensor_parallel_size": 1,
        "gpu_memory_utilization": 0.9,
        "cpu_kvcache_gib": 1.0,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
        "block_size": 32,
        "enforce_eager": True,
    }
    assert encoder_spec().batch_size == cross_encoder_spec().batch_size == 32
    endpoint, batch = OpenAISpec(model="m"), OpenAIBatchSpec(model="m")
    assert endpoint.model_dump(exclude={"model", "kind", *semantic(endpoint)}) == {
        "allow_plain_http": False,
        "api_key_env": "OPENAI_API_KEY",
        "concurrency": 16,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "timeout": 120.0,
        "max_retries": 6,
        "continues": "never",  # at its default it is not in the key
    }
    own = {"requests_per_batch", "parallel", "poll_seconds", "completion_window", "max_rounds"}
    assert batch.model_dump(include=own) == {
        "requests_per_batch": 5000, "parallel": 8, "poll_seconds": 30.0, "completion_window": "24h", "max_rounds": 3,
    }  # fmt: skip


def test_the_key_of_an_endpoint_covers_its_name_and_how_it_is_asked() -> None:
    assert semantic(OpenAISpec(model="judge-2026-01-01", timeout=5.0)) == {
        "kind": "openai",
        "model": "judge-2026-01-01",
        "revision": "",
        "base_url": None,
        "api_version": None,
        "seed": 0,
        "temperature": 0.0,
        "structured": "json_schema",
        "max_tokens_field": "max_completion_tokens",
        "extra_body": {},
    }


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (vllm_spec, {"max_model_len": 63}),
        (vllm_spec, {"seed": -1}),
        (vllm_spec, {"tensor_parallel_size": 0}),
        (vllm_spec, {"gpu_memory_utilization": 0.0}),
        (vllm_spec, {"gpu_memory_utilization": 1.01}),
        (vllm_spec, {"cpu_kvcache_gib": 0.0}),
        (vllm_spec, {"max_num_seqs": 0}),
        (vllm_spec, {"max_num_batched_tokens": 63}),
        (vllm_spec, {"block_size": 24}),
        (vllm_spec, {"block_size": 0}),
        (vllm_spec, {"threads": 0}),
        (encoder_spec, {"max_seq_length": 7}),
        (encoder_spec, {"batch_size": 0}),
        (cross_encoder_spec, {"max_seq_length": 7}),
        (cross_encoder_spec, {"batch_size": 0}),
        (OpenAISpec, {"model": ""}),
        (OpenAISpec, {"model": "m", "temperature": -0.1}),
        (OpenAISpec, {"model": "m", "concurrency": 0}),
        (OpenAISpec, {"model": "m", "requests_per_minute": 0}),
        (OpenAISpec, {"model": "m", "tokens_per_minute": 0}),
        (OpenAISpec, {"model": "m", "timeout": 0}),
        (OpenAISpec, {"model": "m", "max_retries": -1}),
        (OpenAISpec, {"model": "m", "base_url": "https://me:hidden@host/v1"}),
        (OpenAISpec, {"model": "m", "base_url": "https://host/v1?key=hidden"}),
        (OpenAIBatchSpec, {"model": "m", "requests_per_batch": 0}),
        (OpenAIBatchSpec, {"model": "m", "parallel": 0}),
        (OpenAIBatchSpec, {"model": "m", "poll_seconds": 0}),
        (OpenAIBatchSpec, {"model": "m", "max_rounds": 0}),
    ],
)
def test_a_value_below_what_makes_sense_is_refused_and_not_repeated(make: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        make(**changes)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (vllm_spec, {"max_model_len": 64, "tensor_parallel_size": 1, "gpu_memory_utilization": 1.0, "threads": 1}),
        (vllm_spec, {"max_num_seqs": 1, "max_num_batched_tokens": 64, "block_size": 16, "seed": 0}),
        (vllm_spec, {"cpu_kvcache_gib": 0.1, "gpu_memory_utilization": 0.1}),
        (OpenAISpec, {"model": "m", "timeout": 0.1, "requests_per_minute": 0.5, "tokens_per_minute": 0.5}),
        (OpenAIBatchSpec, {"model": "m", "poll_seconds": 0.1}),
        (encoder_spec, {"max_seq_length": 8, "batch_size": 1}),
        (cross_encoder_spec, {"max_seq_length": 8, "batch_size": 1}),
        (
            OpenAISpec,
            {"model": "m", "temperature": 0, "concurrency": 1, "max_retries": 0, "base_url": "https://host/v1"},
        ),
        (OpenAIBatchSpec, {"model": "m", "requests_per_batch": 1, "parallel": 1, "max_rounds": 1}),
    ],
)
def test_the_least_value_is_taken(make: Any, changes: dict[str, Any]) -> None:
    spec = make(**changes)
    assert {name: getattr(spec, name) for name in changes} == changes


def test_a_template_is_named_changed_or_given_whole() -> None:
    def template(said: Any) -> PairTemplate:
        return VLLMRerankerSpec.model_validate({"model": "m", "digest": "d", "template": said}).template

    assert template("qwen3") == TEMPLATES["qwen3"] == VLLMRerankerSpec(model="m", digest="d").template
    changed = template({"like": "mxbai", "yes_token": "A", "no_token": "B"})
    assert (changed.yes_token, changed.suffix) == ("A", TEMPLATES["mxbai"].suffix)
    whole = template({"body": "{document}?{query}", "suffix": "!"})
    assert (whole.prefix, whole.suffix, whole.takes_instruction) == ("", "!", False)
    assert TEMPLATES["qwen3"].takes_instruction
    for wrong, told in (
        ("other", "one of qwen3, mxbai expected"),
        ({"body": "{query}"}, "each once"),
        ({"body": "{query} {query} {document}"}, "each once"),
        ({"body": "{query} {document} {title}"}, "each once"),
        ({"like": "qwen3", "yes_token": "no"}, "two different tokens"),
    ):
        with pytest.raises(ValidationError, match=told):
            template(wrong)


def test_the_key_of_a_reranker_covers_its_template() -> None:
    plain = CrossEncoderSpec(model="m", digest="d")
    assert not {"template", "query_prompt", "passage_prompt"} & set(semantic(plain))
    asked = CrossEncoderSpec.model_validate({"model": "m", "digest": "d", "template": "qwen3"})
    assert semantic(asked)["template"] == TEMPLATES["qwen3"].model_dump()
    with pytest.raises(ValidationError, match="nothing expected beside `template`"):
        CrossEncoderSpec(model="m", digest="d", template=TEMPLATES["qwen3"], passage_prompt="p")
