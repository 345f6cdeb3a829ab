"""A model is loaded with the similarity that it was made for."""

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.evaluation.encoding import Model, load_model
from tests.tasks.evaluation.collection import write_model

TEXTS = ["word1 word2", "word3", "word1 word2"]


def _load(folder: Path) -> Model:
    return load_model(folder, device="cpu", dtype="float32", max_seq_length=64, batch_size=2)


def test_a_model_for_dot_products_keeps_the_lengths_of_its_vectors(tmp_path: Path) -> None:
    """Before, every model was scored by cosine."""
    cosine, dot = (_load(write_model(tmp_path / name, name)) for name in ("cosine", "dot"))
    assert (cosine.similarity, dot.similarity) == ("cosine", "dot")
    lengths = [np.linalg.norm(model.encode(TEXTS, ""), axis=1) for model in (cosine, dot)]
    assert lengths[0] == pytest.approx(np.ones(3), abs=1e-6)
    assert lengths[1][0] == lengths[1][2] != pytest.approx(1, abs=0.05)
    prompted = dot.encode(["word2"], "word1 ")
    assert prompted == pytest.approx(dot.encode(TEXTS[:1], ""), abs=1e-6)


def test_a_model_s_default_prompt_is_not_added_where_the_settings_have_none(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "prompted")
    settings = folder / "config_sentence_transformers.json"
    said = json.loads(settings.read_text()) | {"prompts": {"query": "word9 "}, "default_prompt_name": "query"}
    settings.write_text(json.dumps(said))
    plain = _load(write_model(tmp_path / "plain")).encode(TEXTS, "")
    assert _load(folder).encode(TEXTS, "") == pytest.approx(plain, abs=1e-6)


def test_a_model_for_another_similarity_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"similarity cosine or dot expected, .* has 'euclidean'"):
        _load(write_model(tmp_path / "far", "euclidean"))
