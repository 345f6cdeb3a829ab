"""Embeddings of a tiny encoder: in order, of length one, the same bytes for the same texts."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.paper_size_data import DIMENSIONS, write_encoder
from infra.engines import encoder as module
from infra.engines.encoder import EncoderEngine, as_unit_vectors
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
def test_many_vectors_are_divided_by_their_lengths_a_few_at_a_time_with_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = np.random.default_rng(0).normal(size=(1000, 384)).astype(np.float32)
    vectors[500] = 0
    whole = as_unit_vectors(vectors)
    monkeypatch.setattr(module, "_ROWS", 7)
    assert np.array_equal(as_unit_vectors(vectors), whole)
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    lengths[500] = 1
    assert np.array_equal(whole, (exact / lengths).astype(np.float32))
    assert whole.dtype == np.float32
    assert as_unit_vectors(vectors[:0]).shape == (0, 384)


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


# ---- without a model: what sentence-transformers is given, and what is made of what it gives back ----


class Vectors:
    """Takes the place of a tensor."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __getitem__(self, places: Any) -> "Vectors":
        return Vectors(self.rows[places])

    def float(self) -> "Vectors":
        return Vectors(self.rows.astype(np.float32))

    def cpu(self) -> "Vectors":
        return self

    def numpy(self) -> np.ndarray:
        return self.rows


class Model:
    """Takes the place of sentence-transformers' model: a text of `n` letters is the vector (n, 0, -n).

    As the real one, it encodes the longest texts first, in batches, and returns what its hook made of them in the order
    of the texts. `order`: of the texts as it encodes them, where it is another.
    """

    similarity_fn_name = "cosine"
    order: list[int] | None = None

    def __init__(self, folder: str = "", positions: int | None = 256, **options: Any) -> None:
        self.options = {"folder": folder, **options}
        self.asked: list[dict[str, Any]] = []
        self.hooks: list[Any] = []
        config = SimpleNamespace() if positions is None else SimpleNamespace(max_position_embeddings=positions)
        self.transformer = SimpleNamespace(auto_model=SimpleNamespace(config=config))
        self.max_seq_length = 0
        self.evaluates = False

    def __getitem__(self, index: int) -> Any:
        return [self.transformer][index]

    def get_embedding_dimension(self) -> int:
        return 3

    def register_forward_hook(self, hook: Any) -> Any:
        self.hooks.append(hook)
        return SimpleNamespace(remove=lambda: self.hooks.remove(hook))

    def encode(self, texts: list[str], **options: Any) -> np.ndarray:
        self.asked.append(options)
        order = self.order or np.argsort([-len(text) for text in texts]).tolist()
        made = dict[int, Any]()
        for start in range(0, len(texts), options["batch_size"]):
            some = order[start : start + options["batch_size"]]
            rows = np.array([[len(texts[n]), 0, -len(texts[n])] for n in some], dtype=np.float64)
            output = {"sentence_embedding": Vectors(rows)}
            for hook in self.hooks:
                output = hook(self, (), output)
            made.update(zip(some, np.asarray(output["sentence_embedding"]), strict=True))
        return np.stack([made[n] for n in range(len(texts))])

    def eval(self) -> "Model":
        self.evaluates = True
        return self


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, members in {
        "torch": {"float32": "f32", "bfloat16": "bf16", "as_tensor": lambda rows: rows},
        "sentence_transformers": {"SentenceTransformer": Model},
    }.items():
        module = ModuleType(name)
        for member, value in members.items():
            setattr(module, member, value)
        monkeypatch.setitem(sys.modules, name, module)
    yield


def test_vectors_have_length_one_and_an_empty_ones_is_zero(stand_in: None, tmp_path: Path) -> None:
    engine = EncoderEngine(encoder_spec(model=str(tmp_path), query_prompt="query: ", batch_size=4))
    vectors = engine.encode(["ab", "", "abcd"], "query")
    assert (vectors.name, vectors.dtype) == ("vector", pl.Array(pl.Float32, 3))
    half = float(np.float32(0.5**0.5))
    assert vectors.to_list() == [[half, 0.0, -half], [0.0, 0.0, 0.0], [half, 0.0, -half]]
    engine.encode(["x"], "passage")
    wanted = {"batch_size": 4, "convert_to_numpy": True, "show_progress_bar": False}
    assert engine._model.asked == [{"prompt": "query: ", **wanted}, {"prompt": "", **wanted}]


@pytest.mark.parametrize("order", [None, [3, 0, 2, 1, 4]])
def test_vectors_come_in_the_order_of_the_texts_whatever_the_order_in_which_they_are_encoded(
    stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[int] | None
) -> None:
    monkeypatch.setattr(Model, "order", order)
    engine = EncoderEngine(encoder_spec(model=str(tmp_path), batch_size=2, similarity="dot"))
    vectors = engine.encode(["a", "bbb", "", "dd", "eeee"], "passage")
    assert vectors.arr.first().to_list() == [1.0, 3.0, 0.0, 2.0, 4.0]
    assert engine._model.hooks == []


def test_a_version_that_hands_no_rows_back_is_refused(
    stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "register_forward_hook", lambda self, hook: SimpleNamespace(remove=lambda: None))
    monkeypatch.setattr(np, "asarray", lambda rows: rows.rows)
    with pytest.raises(RuntimeError, match=r"1 numbers of rows expected .*\(1, 3\) came after 0 vectors"):
        EncoderEngine(encoder_spec(model=str(tmp_path))).encode(["x"], "query")


@pytest.mark.slow
@pytest.mark.parametrize("similarity", [None, "dot"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vectors_have_the_bits_that_sentence_transformers_gives(
    encoder_folder: Path, dtype: str, similarity: str | None
) -> None:
    engine = build_engine(encoder_spec(model=str(encoder_folder), dtype=dtype, similarity=similarity, batch_size=8))
    texts = ["ab " * (n % 7) + f"text {n % 11}" for n in range(100)]  # many of one length
    plain = engine._model.encode(texts, prompt="", batch_size=8, convert_to_numpy=True, show_progress_bar=False)
    wanted = plain.astype(np.float32) if similarity == "dot" else as_unit_vectors(plain)
    assert engine.encode(texts, "passage").to_numpy().tobytes() == wanted.tobytes()


def test_no_texts_and_an_unknown_role_ask_nothing(stand_in: None, tmp_path: Path) -> None:
    engine = EncoderEngine(encoder_spec(model=str(tmp_path)))
    assert engine.encode([], "passage").to_list() == []
    with pytest.raises(ValueError, match=r"\"query\" or \"passage\" expected, got 'document'"):
        engine.encode(["x"], "document")  # type: ignore[arg-type]
    assert engine._model.asked == []
    engine.close()
    assert engine._model is None


def test_the_model_is_loaded_offline_without_code_of_its_own(stand_in: None, tmp_path: Path) -> None:
    model = EncoderEngine(encoder_spec(model=str(tmp_path), dtype="bfloat16", max_seq_length=256))._model
    assert model.options == {
        "folder": str(tmp_path),
        "device": "cpu",
        "trust_remote_code": False,
        "local_files_only": True,
        "model_kwargs": {"dtype": "bf16", "use_safetensors": True},
    }
    assert (model.max_seq_length, model.evaluates) == (256, True)


def test_a_length_beyond_the_positions_is_refused_and_a_model_without_positions_takes_any(
    stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"max_seq_length=257 is more than the 256 positions"):
        EncoderEngine(encoder_spec(model=str(tmp_path), max_seq_length=257))
    monkeypatch.setattr(sys.modules["sentence_transformers"], "SentenceTransformer", partial(Model, positions=None))
    assert EncoderEngine(encoder_spec(model=str(tmp_path), max_seq_length=9999))._model.max_seq_length == 9999


@pytest.mark.slow
def test_a_model_of_word_vectors_reads_a_text_of_any_length(tmp_path: Path) -> None:
    write_encoder(tmp_path / "static")
    engine = build_engine(encoder_spec(model=str(tmp_path / "static"), max_seq_length=8))
    assert engine.dimension == DIMENSIONS
    long = engine.encode(["ba ko li", "ba ko li " * 500 + "mar"], "passage").to_numpy()
    assert np.linalg.norm(long, axis=1) == pytest.approx(np.ones(2), abs=1e-6)
    assert long[0] != pytest.approx(long[1], abs=1e-6)
    engine.close()


def test_a_model_for_dot_products_is_refused_unless_the_spec_says_how_to_compare(
    stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, its vectors were made unit vectors without a word."""
    monkeypatch.setattr(Model, "similarity_fn_name", "dot")
    with pytest.raises(ValueError, match=r"made for the similarity 'dot'.* set encoder.similarity: cosine"):
        EncoderEngine(encoder_spec(model=str(tmp_path)))
    found = {
        name: EncoderEngine(encoder_spec(model=str(tmp_path), similarity=name)).encode(["four"], "query")[0].to_list()
        for name in ("cosine", "dot")
    }
    assert found["dot"] == [4.0, 0.0, -4.0]
    assert found["cosine"] == pytest.approx([0.5**0.5, 0.0, -(0.5**0.5)])
