import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import BaseModel, ValidationError

from infra.engines.encoder import EncoderEngine
from infra.engines.specs import (
    CrossEncoderSpec,
    SentenceTransformersSpec,
    Spec,
    VLLMSpec,
    build_engine,
    environment,
    parse_spec,
)
from infra.models.random_models import build_tiny_encoder
from infra.stages.part_keys import semantic
from tasks.protocols import Encoder

TEXTS = ["the sum of all values", "rows", "", "get the first rows of a frame, and then some more of them"]


def vllm_spec(**changes: Any) -> VLLMSpec:
    return VLLMSpec(**{"model": "/models/judge", "digest": "d1", **changes})


def encoder_spec(**changes: Any) -> SentenceTransformersSpec:
    return SentenceTransformersSpec(**{"model": "/models/encoder", "digest": "e1", **changes})


def cross_encoder_spec(**changes: Any) -> CrossEncoderSpec:
    return CrossEncoderSpec(**{"model": "/models/cross-encoder", "digest": "c1", **changes})


LOCAL = [vllm_spec(), encoder_spec(), cross_encoder_spec()]

# ---- specs ----


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
