"""A cross-encoder scores pairs in their order, alike each time, and says what is wrong with a model that cannot."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infra.engines.kinds import build_engine
from infra.engines.rerankers.cross_encoder import CrossEncoderEngine
from infra.engines.specs import CrossEncoderSpec
from infra.models.random_models import build_tiny_cross_encoder, build_tiny_encoder
from tasks.protocols import CrossEncoder

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


@pytest.mark.slow
def test_scores_come_in_the_order_of_the_pairs_between_zero_and_one(engine: CrossEncoderEngine) -> None:
    as_protocol: CrossEncoder = engine
    scores = as_protocol.score(PAIRS)
    assert len(set(scores)) == len(PAIRS)
    assert all(type(score) is float and 0 < score < 1 for score in scores)
    assert scores == pytest.approx([engine.score([pair])[0] for pair in PAIRS], abs=1e-5)
    assert scores[::-1] == pytest.approx(engine.score(PAIRS[::-1]), abs=1e-5)


@pytest.mark.slow
def test_query_and_passage_are_not_interchangeable(engine: CrossEncoderEngine) -> None:
    assert engine.score([PAIRS[0]]) != pytest.approx(engine.score([PAIRS[0][::-1]]), abs=1e-3)


@pytest.mark.slow
def test_the_same_pairs_give_the_same_bytes_in_another_engine_too(engine: CrossEncoderEngine, folder: Path) -> None:
    first = engine.score(PAIRS)
    engine.score(PAIRS[1:3] * 3)
    assert engine.score(PAIRS) == first
    assert build_engine(_spec(folder, batch_size=2)).score(PAIRS) == first


@pytest.mark.slow
def test_no_pairs_give_no_scores(engine: CrossEncoderEngine) -> None:
    assert engine.score([]) == []


@pytest.mark.slow
def test_a_longer_pair_is_cut_at_max_seq_length(folder: Path) -> None:
    engine = build_engine(_spec(folder, max_seq_length=16))
    assert engine.score([("rows", "sum " * 100)]) == engine.score([("rows", "sum " * 200)])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_smaller_dtype_gives_nearly_the_same_scores(engine: CrossEncoderEngine, folder: Path, dtype: str) -> None:
    scores = build_engine(_spec(folder, dtype=dtype)).score(PAIRS)
    assert scores == pytest.approx(engine.score(PAIRS), abs=0.1)
    assert scores != engine.score(PAIRS)


@pytest.mark.slow
def test_scores_near_one_stay_apart(changed: Callable[..., Path]) -> None:
    scores = build_engine(_spec(changed(lambda weight: weight * 8))).score(PAIRS)
    assert max(scores) > 1 - 1e-7
    assert len(set(scores)) == len(PAIRS)


@pytest.mark.slow
def test_a_sequence_length_beyond_the_models_positions_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"max_seq_length=513.*512 positions"):
        build_engine(_spec(folder, max_seq_length=513))


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_model_with_several_labels_is_refused(changed: Callable[..., Path]) -> None:
    labels = {"id2label": {str(i): str(i) for i in range(3)}, "label2id": {str(i): i for i in range(3)}}
    folder = changed(lambda weight: weight.repeat_interleave(3, 0), **labels)
    with pytest.raises(ValueError, match="one score per pair expected, this one gives 3"):
        build_engine(_spec(folder))


@pytest.mark.slow
def test_a_model_without_a_trained_head_is_refused(changed: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"a cross-encoder expected.*found BertModel"):
        build_engine(_spec(changed(architectures=["BertModel"])))


@pytest.mark.slow
def test_an_encoder_is_refused(tmp_path: Path) -> None:
    build_tiny_encoder(tmp_path)
    with pytest.raises(ValueError, match=r"a cross-encoder expected.*found SentenceTransformer"):
        build_engine(_spec(tmp_path, max_seq_length=64))


@pytest.mark.slow
def test_what_sentence_transformers_saved_itself_scores_alike(
    engine: CrossEncoderEngine, folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder as Saved

    Saved(str(folder), device="cpu").save_pretrained(str(tmp_path), create_model_card=False)
    assert (tmp_path / "modules.json").exists()
    assert build_engine(_spec(tmp_path, batch_size=2)).score(PAIRS) == engine.score(PAIRS)


@pytest.mark.slow
def test_a_model_that_gives_no_number_is_called_broken(changed: Callable[..., Path]) -> None:
    engine = build_engine(_spec(changed(lambda weight: weight * float("nan"))))
    with pytest.raises(RuntimeError, match="5 of 5 scores are not numbers"):
        engine.score(PAIRS)


@pytest.mark.slow
def test_an_output_that_is_no_probability_needs_an_activation(folder: Path) -> None:
    with pytest.raises(ValueError, match="set activation='sigmoid'"):
        build_engine(_spec(folder, activation="none")).score(PAIRS)


# ---- without a model: what sentence-transformers is given, and what is made of what it gives back ----


class Embedding:
    """As torch's, as far as it is asked."""

    def __init__(self, rows: int, padding: int | None) -> None:
        self.num_embeddings, self.padding_idx = rows, padding


class Model:
    """Takes the place of sentence-transformers' model: the output of a pair is the number that its passage spells."""

    num_labels = 1
    positions: Any = Embedding(512, None)

    def __init__(self, folder: str, **options: Any) -> None:
        self.options = {"folder": folder, **options}
        self.asked: list[dict[str, Any]] = []
        self.config = SimpleNamespace(max_position_embeddings=100)
        self.evaluates = False

    def named_modules(self) -> list[tuple[str, Any]]:
        modules = [("bert", object()), ("bert.embeddings.word_embeddings", Embedding(9, None))]
        return [*modules, ("bert.embeddings.position_embeddings", self.positions)]

    def predict(self, pairs: list[list[str]], **options: Any) -> np.ndarray:
        self.asked.append(options)
        return np.array([float(passage) for _, passage in pairs])

    def eval(self) -> "Model":
        self.evaluates = True
        return self


@pytest.fixture
def model_class(monkeypatch: pytest.MonkeyPatch) -> type[Model]:
    """The stand-in, in the place of the libraries."""
    ours = type("Model", (Model,), {})
    nn = SimpleNamespace(Identity=lambda: "as it is", Embedding=Embedding)
    members = {"torch": {"float32": "f32", "float16": "f16", "nn": nn}, "sentence_transformers": {"CrossEncoder": ours}}
    for name, values in members.items():
        module = ModuleType(name)
        for member, value in values.items():
            setattr(module, member, value)
        monkeypatch.setitem(sys.modules, name, module)
    return ours


@pytest.fixture
def headed(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    return tmp_path


def test_a_probability_is_made_in_float64_so_that_large_outputs_stay_apart(
    model_class: type[Model], headed: Path
) -> None:
    engine = CrossEncoderEngine(_spec(headed, batch_size=4))
    scores = engine.score([("q", "0"), ("q", "-1"), ("q", "20"), ("q", "21")])
    assert scores[:2] == [0.5, pytest.approx(0.2689414213699951, abs=1e-15)]
    assert 1 - 1e-8 < scores[2] < scores[3] < 1
    assert engine._model.asked == [
        {"batch_size": 4, "activation_fn": "as it is", "convert_to_numpy": True, "show_progress_bar": False}
    ]
    assert engine.score([]) == []
    engine.close()
    assert engine._model is None


def test_without_an_activation_outputs_must_be_probabilities(model_class: type[Model], headed: Path) -> None:
    engine = CrossEncoderEngine(_spec(headed, activation="none"))
    assert engine.score([("q", "0"), ("q", "0.25"), ("q", "1")]) == [0.0, 0.25, 1.0]
    for output in ("1.5", "-0.1"):
        with pytest.raises(ValueError, match=f"activation='none', but .* gave {output}, which is no probability"):
            engine.score([("q", "0.5"), ("q", output)])


def test_scores_that_are_no_numbers_are_counted_and_the_first_is_named(model_class: type[Model], headed: Path) -> None:
    engine = CrossEncoderEngine(_spec(headed, dtype="float16"))
    told = r"2 of 3 scores are not numbers \(pair 1 first\); try dtype=float32 instead of float16"
    with pytest.raises(RuntimeError, match=told):
        engine.score([("q", "1"), ("q", "nan"), ("q", "nan")])


def test_a_cross_encoder_is_loaded_offline_without_code_of_its_own(model_class: type[Model], headed: Path) -> None:
    model = CrossEncoderEngine(_spec(headed, dtype="float16", max_seq_length=512))._model
    assert model.options == {
        "folder": str(headed),
        "device": "cpu",
        "trust_remote_code": False,
        "local_files_only": True,
        "model_kwargs": {"dtype": "f16", "use_safetensors": True},
    }
    assert (model.max_seq_length, model.evaluates) == (512, True)


def test_a_model_that_gives_several_scores_is_refused(model_class: type[Model], headed: Path) -> None:
    model_class.num_labels = 3
    with pytest.raises(ValueError, match="one score per pair expected, this one gives 3"):
        CrossEncoderEngine(_spec(headed))


@pytest.mark.parametrize(
    ("positions", "most"),
    [(Embedding(512, None), 512), (Embedding(514, 1), 512), (Embedding(64, 0), 63), ("of another kind", 100)],
)
def test_the_positions_that_a_text_can_take_are_counted(
    model_class: type[Model], headed: Path, positions: Any, most: int
) -> None:
    model_class.positions = positions
    assert CrossEncoderEngine(_spec(headed, max_seq_length=most))._model.max_seq_length == most
    with pytest.raises(ValueError, match=f"max_seq_length={most + 1} is more than the {most} positions"):
        CrossEncoderEngine(_spec(headed, max_seq_length=most + 1))


def test_a_model_that_names_no_positions_takes_any_length(model_class: type[Model], headed: Path) -> None:
    model_class.positions = "of another kind"
    model_class.named_modules = lambda self: []  # type: ignore[method-assign]
    init = model_class.__init__

    def without_config(self: Model, folder: str, **options: Any) -> None:
        init(self, folder, **options)
        self.config = SimpleNamespace()

    model_class.__init__ = without_config  # type: ignore[method-assign]
    assert CrossEncoderEngine(_spec(headed, max_seq_length=9999))._model.max_seq_length == 9999


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"config.json": '{"architectures": ["BertModel"]}'}, "BertModel"),
        ({"config.json": "{}"}, "no architecture"),
        ({}, "no architecture"),
        ({"modules.json": "[]", "config.json": '{"architectures": ["BertForSequenceClassification"]}'},
         "SentenceTransformer"),
        ({"modules.json": "[]", "config_sentence_transformers.json": '{"model_type": "SparseEncoder"}'},
         "SparseEncoder"),
    ],
)  # fmt: skip
def test_a_folder_without_a_trained_head_is_refused_with_what_was_found(
    tmp_path: Path, files: dict[str, str], found: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"a cross-encoder expected \(CrossEncoder, .*\), found {found}$"):
        CrossEncoderEngine(_spec(tmp_path))


def test_a_head_in_the_librarys_own_format_is_taken(model_class: type[Model], tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    assert CrossEncoderEngine(_spec(tmp_path)).score([("q", "0")]) == [0.5]


def test_a_language_model_without_a_template_is_refused(model_class: type[Model], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    with pytest.raises(ValueError, match=r"is a language model \(Qwen3ForCausalLM\).*set `template` to one of qwen3"):
        CrossEncoderEngine(_spec(tmp_path))


def test_a_template_for_another_kind_of_model_is_refused(headed: Path) -> None:
    told = r"a template asks a language model \(…ForCausalLM\), found BertForSequenceClassification"
    with pytest.raises(ValueError, match=told):
        CrossEncoderEngine(_spec(headed, template="qwen3"))


def test_prompts_stand_before_the_texts_of_their_role(model_class: type[Model], headed: Path) -> None:
    shown: list[list[str]] = []
    model_class.predict = lambda self, pairs, **options: shown.extend(pairs) or np.zeros(1)  # type: ignore[method-assign]
    engine = CrossEncoderEngine(_spec(headed, query_prompt="query: ", passage_prompt="passage: "))
    assert engine.score([("rows", "of a frame")]) == [0.5]
    assert shown == [["query: rows", "passage: of a frame"]]


def test_an_instruction_without_a_place_for_it_is_refused(model_class: type[Model], headed: Path) -> None:
    engine = CrossEncoderEngine(_spec(headed))
    assert engine.score([("q", "0")], [""]) == [0.5]
    with pytest.raises(ValueError, match="a `template` is needed"):
        engine.score([("q", "0")], ["Find the proof."])
