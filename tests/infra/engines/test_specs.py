"""Specs: what decides the key, what the process is started with, which engine is built."""

import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from infra.engines.specs import (
    CrossEncoderSpec,
    SentenceTransformersSpec,
    Spec,
    VLLMSpec,
    build_engine,
    environment,
    parse_spec,
)
from infra.stages.part_keys import semantic


def vllm_spec(**changes: Any) -> VLLMSpec:
    return VLLMSpec(**{"model": "/models/judge", "digest": "d1", **changes})


def encoder_spec(**changes: Any) -> SentenceTransformersSpec:
    return SentenceTransformersSpec(**{"model": "/models/encoder", "digest": "e1", **changes})


def cross_encoder_spec(**changes: Any) -> CrossEncoderSpec:
    return CrossEncoderSpec(**{"model": "/models/cross-encoder", "digest": "c1", **changes})


LOCAL = [vllm_spec(), encoder_spec(), cross_encoder_spec()]


@pytest.mark.parametrize("spec", LOCAL, ids=lambda spec: spec.kind)
def test_a_spec_survives_json_and_its_kind_says_which_it_is(spec: Spec) -> None:
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


def test_the_key_of_a_cross_encoder_covers_its_length_and_how_a_probability_is_made() -> None:
    assert semantic(cross_encoder_spec(model="/elsewhere", batch_size=8)) == {
        "kind": "cross_encoder",
        "digest": "c1",
        "dtype": "float32",
        "max_seq_length": 512,
        "activation": "sigmoid",
    }


def test_every_engine_starts_offline_and_without_telemetry() -> None:
    for spec in LOCAL:
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

    with pytest.raises(ValueError, match=r"engine's spec expected \(cross_encoder, .*vllm\), got Other"):
        build_engine(Other())


@pytest.mark.parametrize("spec", LOCAL, ids=lambda spec: spec.kind)
def test_a_missing_model_folder_is_named(spec: VLLMSpec | SentenceTransformersSpec | CrossEncoderSpec) -> None:
    with pytest.raises(ValueError, match=re.escape(spec.model)):
        build_engine(spec)
