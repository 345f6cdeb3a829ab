"""Specs: what decides the key, what the process is started with, which engine is built."""

from typing import Any

import pytest
from pydantic import ValidationError

from infra.engines.specs import CrossEncoderSpec, SentenceTransformersSpec, VLLMSpec
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
