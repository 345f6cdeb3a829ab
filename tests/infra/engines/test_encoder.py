"""Embeddings of a tiny encoder: in order, of length one, the same bytes for the same texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from infra.engines.encoder import EncoderEngine
from infra.engines.kinds import build_engine
from infra.engines.specs import SentenceTransformersSpec
from infra.models.random_models import build_tiny_encoder
from tasks.protocols import Encoder

TEXTS = ["the sum of all values", "rows", "", "get the first rows of a frame, and then some more of them"]


def encoder_spec(**changes: Any) -> SentenceTransformersSpec:
    return SentenceTransformersSpec(**{"model": "/models/encoder", "digest": "e1", **changes})


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
