"""What may be in a model's folder, and its digest."""

import json
import os
from pathlib import Path

import pytest

from infra.models.model_files import (
    check_model_directory,
    directory_digest,
    file_digest,
    hash_files,
    refuse_foreign_code,
    relevant_files,
)
from infra.models.wheels import ModelError, sha256_of


def model_directory(path: Path, **files: str) -> Path:
    """Write a model's folder; further files by their name, a dot written as two underscores."""
    path.mkdir()
    for name, content in {"config__json": "{}", "model__safetensors": "weights", **files}.items():
        (path / name.replace("__", ".")).write_text(content)
    return path


def test_a_directorys_digest_follows_its_content_not_its_place_or_its_read_me(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one, two = model_directory(tmp_path / "one"), model_directory(tmp_path / "two")
    (two / "README.md").write_text("Read me.")
    assert directory_digest(one, cache) == directory_digest(two, cache)
    (two / "model.safetensors").write_bytes(b"heavier")
    assert directory_digest(one, cache) != directory_digest(two, cache)


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = model_directory(tmp_path / "model"), tmp_path / "cache"
    digest = directory_digest(path, cache)
    monkeypatch.setattr("infra.models.model_files.sha256_of", None)
    assert directory_digest(path, cache) == digest


def test_what_decides_the_answers_is_in_the_digest_and_nothing_else(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "model", README__md="read me", vocab__txt="a b", chat_template__jinja="{{ x }}")
    (path / "reneg-model.json").write_text("{}")
    (path / ".cache").mkdir()
    (path / ".cache" / "config.json").write_text("{}")
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text("{}")
    assert sorted(relevant_files(path)) == [
        "1_Pooling/config.json", "chat_template.jinja", "config.json", "model.safetensors", "vocab.txt",
    ]  # fmt: skip


def test_a_digest_covers_names_and_contents_whatever_their_order() -> None:
    assert hash_files({"a": "1", "b": "2"}) == hash_files({"b": "2", "a": "1"})
    assert hash_files({"a": "1", "b": "2"}) != hash_files({"a": "2", "b": "1"})
    assert len(hash_files({})) == 64


def test_a_file_is_hashed_again_when_its_size_or_its_time_changed(tmp_path: Path) -> None:
    path, cache = tmp_path / "weights.gguf", tmp_path / "cache"
    for content, time in ((b"weights", 1), (b"heavier", 2), (b"longer weights", 2)):
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        assert file_digest(path, cache) == sha256_of(path)
    path.write_bytes(b"shorter weight")
    os.utime(path, ns=(2, 2))
    assert file_digest(path, cache) != sha256_of(path)  # same size and time: taken for the same file


def test_a_damaged_memory_of_digests_is_written_again(tmp_path: Path) -> None:
    path, cache = model_directory(tmp_path / "model"), tmp_path / "cache"
    digest = directory_digest(path, cache)
    (memory,) = (cache / "digests").iterdir()
    assert len(memory.stem) == 32
    memory.write_text("{cut")
    assert directory_digest(path, cache) == digest
    assert sorted(json.loads(memory.read_text())) == ["config.json", "model.safetensors"]


def test_a_whole_model_is_accepted_with_either_of_its_two_settings_files(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "model")
    check_model_directory(path)
    (path / "config.json").rename(path / "modules.json")
    (path / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling"}]')
    check_model_directory(path)
    (path / "modules.json").unlink()
    with pytest.raises(ModelError, match=r"neither config\.json nor modules\.json in it"):
        check_model_directory(path)


def test_a_folder_without_weights_is_refused_and_pickled_ones_are_named(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "model")
    (path / "model.safetensors").rename(path / "model.bin")
    with pytest.raises(ModelError, match=r"its weights are pickled \(\.bin\)"):
        check_model_directory(path)
    (path / "model.bin").unlink()
    with pytest.raises(ModelError, match=r"no \*\.safetensors in it"):
        check_model_directory(path)
    with pytest.raises(ModelError, match="no such directory"):
        check_model_directory(path / "config.json")


def test_pickled_weights_are_accepted_only_beside_safetensors_in_the_same_folder(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "model")
    (path / "pytorch_model.bin").write_bytes(b"pickled")
    refuse_foreign_code(path)
    (path / "2_Dense").mkdir()
    (path / "2_Dense" / "weights.pt").write_bytes(b"pickled")
    with pytest.raises(ModelError, match=r"weights\.pt: pickled weights, and no safetensors beside them"):
        refuse_foreign_code(path)


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("config.json", '{"auto_map": {}}', True),
        ("tokenizer.json", '{"auto_map": {"A": "b.C"}}', True),
        ("config.json", '["auto_map"]', False),
        ("modules.json", '[{"type": "sentence_transformers.models.Pooling"}, {"type": "mine.Pooling"}]', True),
        ("modules.json", '[{"path": "1_Pooling"}]', True),
        ("modules.json", '[{"type": "sentence_transformers_fake.Pooling"}]', True),
        ("modules.json", "{}", False),
        ("other.json", '[{"type": "mine.Pooling"}]', False),
    ],
)
def test_settings_that_name_code_of_the_models_own_are_refused(
    tmp_path: Path, name: str, content: str, refused: bool
) -> None:
    path = model_directory(tmp_path / "model")
    (path / name).write_text(content)
    if refused:
        with pytest.raises(ModelError, match=f"{name}: the model brings modelling code of its own"):
            refuse_foreign_code(path)
    else:
        refuse_foreign_code(path)


def test_settings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "model", tokenizer__json="{cut")
    with pytest.raises(ModelError, match=r"tokenizer\.json: not readable as JSON .*; fetch the model again"):
        refuse_foreign_code(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", '[{"path": "../other", "type": "sentence_transformers.models.Pooling"}]'),
        ("modules.json", '[{"path": "/other", "type": "sentence_transformers.models.Pooling"}]'),
        ("model.safetensors.index.json", '{"weight_map": {"a": "a.safetensors", "b": "../../b.safetensors"}}'),
    ],
)
def test_settings_that_name_files_outside_of_the_model_are_refused(tmp_path: Path, name: str, content: str) -> None:
    path = model_directory(tmp_path / "model")
    (path / name).write_text('[{"path": "", "type": "sentence_transformers.models.Transformer"}]')
    refuse_foreign_code(path)
    (path / name).write_text(content)
    with pytest.raises(ModelError, match="which is no file below the model's folder"):
        refuse_foreign_code(path)


def test_settings_that_are_nested_too_deeply_or_are_no_modules_are_refused(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "model", deep__json="[" * 100_000)
    with pytest.raises(ModelError, match=r"deep\.json: not readable as JSON"):
        refuse_foreign_code(path)
    (path / "deep.json").unlink()
    (path / "modules.json").write_text("[1]")
    with pytest.raises(ModelError, match="modelling code"):
        refuse_foreign_code(path)
