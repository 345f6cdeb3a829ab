"""A cross-encoder scores pairs in their order, alike each time, and says what is wrong with a model that cannot."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.engines.cross_encoder import CrossEncoderEngine
from infra.engines.kinds import build_engine
from infra.engines.specs import CrossEncoderSpec
from infra.models.random_models import build_tiny_cross_encoder, build_tiny_encoder
from tasks.protocols import CrossEncoder

pytestmark = pytest.mark.slow

PAIRS = [
    ("rows of a frame", "Return the first n rows"),
    ("mean", "quick brown fox"),
    ("", ""),
    ("the sum of all values", "the sum of an array along an axis " * 200),
    ("rows of a frame", "Return the last n rows"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross_encoder")
    build_tiny_cross_encoder(folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[CrossEncoderEngine]:
    engine = build_engine(_spec(folder, batch_size=2))
    yield engine
    engine.close()


@pytest.fixture
def changed(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny model with another head or another configuration."""

    def change(head: Callable[[Any], Any] | None = None, **config: Any) -> Path:
        from safetensors.torch import load_file, save_file

        copy = Path(shutil.copytree(folder, tmp_path / "changed"))
        if head is not None:
            tensors = load_file(copy / "model.safetensors")
            tensors |= {name: head(tensors[name]) for name in ("classifier.weight", "classifier.bias")}
            save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        written = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(written | config))
        return copy

    return change


def _spec(folder: Path, **changes: Any) -> CrossEncoderSpec:
    return CrossEncoderSpec(**{"model": str(folder), "digest": "c1", **changes})


def test_scores_come_in_the_order_of_the_pairs_between_zero_and_one(engine: CrossEncoderEngine) -> None:
    as_protocol: CrossEncoder = engine
    scores = as_protocol.score(PAIRS)
    assert len(set(scores)) == len(PAIRS)
    assert all(type(score) is float and 0 < score < 1 for score in scores)
    assert scores == pytest.approx([engine.score([pair])[0] for pair in PAIRS], abs=1e-5)
    assert scores[::-1] == pytest.approx(engine.score(PAIRS[::-1]), abs=1e-5)


def test_query_and_passage_are_not_interchangeable(engine: CrossEncoderEngine) -> None:
    assert engine.score([PAIRS[0]]) != pytest.approx(engine.score([PAIRS[0][::-1]]), abs=1e-3)


def test_the_same_pairs_give_the_same_bytes_in_another_engine_too(engine: CrossEncoderEngine, folder: Path) -> None:
    first = engine.score(PAIRS)
    engine.score(PAIRS[1:3] * 3)
    assert engine.score(PAIRS) == first
    assert build_engine(_spec(folder, batch_size=2)).score(PAIRS) == first


def test_no_pairs_give_no_scores(engine: CrossEncoderEngine) -> None:
    assert engine.score([]) == []


def test_a_longer_pair_is_cut_at_max_seq_length(folder: Path) -> None:
    engine = build_engine(_spec(folder, max_seq_length=16))
    assert engine.score([("rows", "sum " * 100)]) == engine.score([("rows", "sum " * 200)])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_smaller_dtype_gives_nearly_the_same_scores(engine: CrossEncoderEngine, folder: Path, dtype: str) -> None:
    scores = build_engine(_spec(folder, dtype=dtype)).score(PAIRS)
    assert scores == pytest.approx(engine.score(PAIRS), abs=0.1)
    assert scores != engine.score(PAIRS)


def test_scores_near_one_stay_apart(changed: Callable[..., Path]) -> None:
    scores = build_engine(_spec(changed(lambda weight: weight * 8))).score(PAIRS)
    assert max(scores) > 1 - 1e-7
    assert len(set(scores)) == len(PAIRS)


def test_a_sequence_length_beyond_the_models_positions_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"max_seq_length=513.*512 positions"):
        build_engine(_spec(folder, max_seq_length=513))


def test_positions_that_the_padding_takes_are_not_counted(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

    build_tiny_cross_encoder(tmp_path)
    config = RobertaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(tmp_path)),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        num_labels=1,
        pad_token_id=1,
        type_vocab_size=2,
    )
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"max_seq_length=65.*64 positions"):
        build_engine(_spec(tmp_path, max_seq_length=65))
    assert len(build_engine(_spec(tmp_path, max_seq_length=64)).score([("rows", "sum " * 100)])) == 1


def test_a_model_with_several_labels_is_refused(changed: Callable[..., Path]) -> None:
    labels = {"id2label": {str(i): str(i) for i in range(3)}, "label2id": {str(i): i for i in range(3)}}
    folder = changed(lambda weight: weight.repeat_interleave(3, 0), **labels)
    with pytest.raises(ValueError, match="one score per pair expected, this one gives 3"):
        build_engine(_spec(folder))


def test_a_model_without_a_trained_head_is_refused(changed: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"a cross-encoder expected.*found BertModel"):
        build_engine(_spec(changed(architectures=["BertModel"])))


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    build_tiny_encoder(tmp_path)
    with pytest.raises(ValueError, match=r"a cross-encoder expected.*found SentenceTransformer"):
        build_engine(_spec(tmp_path, max_seq_length=64))


def test_what_sentence_transformers_saved_itself_scores_alike(
    engine: CrossEncoderEngine, folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder as Saved

    Saved(str(folder), device="cpu").save_pretrained(str(tmp_path), create_model_card=False)
    assert (tmp_path / "modules.json").exists()
    assert build_engine(_spec(tmp_path, batch_size=2)).score(PAIRS) == engine.score(PAIRS)


def test_a_model_that_gives_no_number_is_called_broken(changed: Callable[..., Path]) -> None:
    engine = build_engine(_spec(changed(lambda weight: weight * float("nan"))))
    with pytest.raises(RuntimeError, match="5 of 5 scores are not numbers"):
        engine.score(PAIRS)


def test_an_output_that_is_no_probability_needs_an_activation(folder: Path) -> None:
    with pytest.raises(ValueError, match="set activation='sigmoid'"):
        build_engine(_spec(folder, activation="none")).score(PAIRS)
