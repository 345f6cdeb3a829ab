"""A run is warned of a judge that is of one family with the miner."""

from pathlib import Path
from typing import Any

import pytest

from flows.config.load import parse_config
from flows.curation.kinship import related_judges


def warnings(encoder: str, *engines: dict[str, Any]) -> list[str]:
    tiers = [{"name": f"t{number}", "engine": engine} for number, engine in enumerate(engines)]
    settings = {"name": "mine", "source": {"path": "/rows.jsonl"}, "encoder": {"model": encoder}, "tiers": tiers}
    return list(related_judges(parse_config(settings, "test")))


def test_only_judges_of_the_miners_family_are_named() -> None:
    (told,) = warnings(
        "hub:Qwen/Qwen3-Embedding-0.6B",
        {"kind": "vllm_reranker", "model": "hub:Qwen/Qwen3-Reranker-4B"},
        {"kind": "openai", "model": "gpt-4o-2024-11-20"},
        {"kind": "cross_encoder", "model": "hub:cross-encoder/ettin-reranker-68m-v1"},
    )
    assert told.startswith("tier t0: its judge and the encoder that mines are of one family (qwen).")
    assert warnings("package:minilm", {"kind": "vllm", "model": "tiny:llm"}) == []


@pytest.mark.parametrize(
    ("text", "families"),
    [('{"model_type": "qwen2"}', ["qwen"]), ("no JSON", []), ("[]", []), ('{"model_type": "bert"}', [])],
)
def test_a_folder_of_ones_own_is_told_by_its_configuration(tmp_path: Path, text: str, families: list[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(text)
    told = warnings("hub:Qwen/Qwen3-Embedding-0.6B", {"model": f"path:{tmp_path}/mine"})
    assert len(told) == len(families)
