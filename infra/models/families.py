"""Families of models: those that grew from the same weights, by name and by what a model's configuration says.

A judge and a miner of one family share errors: what the miner wrongly ranks high, the judge wrongly calls relevant.
"""

import re
from collections.abc import Mapping
from typing import Any

# Name of a family: what a model's name or its base model's name has in it. The first that fits counts: a model that was
# fine-tuned often has the names of both, the more special one first.
_BY_NAME = (
    ("mxbai", r"mxbai"),
    ("ettin", r"ettin|modernbert"),
    ("bge", r"\bbge\b"),
    ("gte", r"\bgte\b"),
    ("e5", r"\be5\b"),
    ("jina", r"jina"),
    ("nomic", r"nomic"),
    ("minilm", r"minilm"),
    ("mpnet", r"mpnet"),
    ("qwen", r"qwen|\bqwq\b"),
    ("llama", r"llama"),
    ("mistral", r"mistral|mixtral|ministral"),
    ("gemma", r"gemma"),
    ("phi", r"\bphi\b"),
    ("deepseek", r"deepseek"),
    ("gpt", r"\bgpt\b|\bo[134]\b"),
    ("claude", r"claude"),
    ("t5", r"t5\b"),
)
# Architectures that stand for one family's weights. Those that many makers trained from nothing, as BERT, do not.
_BY_TYPE = ("qwen", "llama", "mistral", "gemma", "phi", "deepseek", "t5")


def model_families(name: str, config: Mapping[str, Any] | None = None) -> frozenset[str]:
    """Name the families that a model belongs to; none where neither its name nor its configuration tells.

    Args:
        name: a reference, as `hub:Qwen/Qwen3-Reranker-0.6B@…`, or an endpoint's name of the model.
        config: what is in its `config.json`: `_name_or_path` names the base model, `model_type` its architecture.

    >>> sorted(model_families("hub:mixedbread-ai/mxbai-rerank-base-v2", {"model_type": "qwen2"}))
    ['mxbai', 'qwen']
    >>> model_families("path:/models/mine")
    frozenset()
    """
    config = config or {}
    found = {model_family(name), model_family(str(config.get("_name_or_path") or ""))}
    kind = str(config.get("model_type") or "").lower()
    found |= {family for family in _BY_TYPE if kind.startswith(family)}
    return frozenset(found - {""})


def model_family(name: str) -> str:
    """Name the family that a model's name tells; empty where it tells none.

    >>> model_family("hub:BAAI/bge-m3@0123"), model_family("gpt-4o-2024-11-20"), model_family("package:minilm")
    ('bge', 'gpt', 'minilm')
    """
    spelled = name.lower().replace("_", "-").rpartition("/")[2] or name.lower()
    return next((family for family, pattern in _BY_NAME if re.search(pattern, spelled)), "")
