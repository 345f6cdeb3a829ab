"""Families of models are told by name and by configuration; a name that tells nothing tells no family."""

from typing import Any

import pytest

from infra.models.families import model_families, model_family


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("package:minilm", "minilm"),
        ("w8a8:package:qwen2.5-coder-1.5b-instruct", "qwen"),
        ("hub:Qwen/Qwen3-Reranker-0.6B@" + "a" * 40, "qwen"),
        ("hub:intfloat/multilingual-e5-large", "e5"),
        ("hub:cross-encoder/ettin-reranker-68m-v1", "ettin"),
        ("hub:cross-encoder/ms-marco-MiniLM-L6-v2", "minilm"),
        ("castorini/monot5-base-msmarco", "t5"),
        ("gpt-4o-mini-2024-07-18", "gpt"),
        ("path:/models/qwen3/", "qwen"),
        ("tiny:encoder", ""),
        ("hub:owner/name", ""),
        ("", ""),
    ],
)
def test_a_name_tells_the_family(name: str, family: str) -> None:
    assert model_family(name) == family
    assert model_families(name) == (frozenset({family}) if family else frozenset())


@pytest.mark.parametrize(
    ("config", "families"),
    [
        ({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, {"qwen"}),
        ({"_name_or_path": "sentence-transformers/all-MiniLM-L6-v2", "model_type": "bert"}, {"minilm"}),
        ({"model_type": "bert", "_name_or_path": None}, set()),
        ({}, set()),
    ],
)
def test_a_folder_without_a_telling_name_is_told_by_its_configuration(
    config: dict[str, Any], families: set[str]
) -> None:
    assert model_families("path:/models/mine", config) == families
