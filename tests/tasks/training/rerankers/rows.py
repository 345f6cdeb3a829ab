"""A tiny cross-encoder, and its training on the toy training set."""

import json
from pathlib import Path
from typing import Any

from tasks.training.rerankers.settings import RerankerTrainConfig
from tasks.training.rerankers.train import train_reranker
from tests.tasks.training.tables import WORDS, eight_instances, passages_table, queries_table


def build_tiny_cross_encoder(folder: Path) -> Path:
    """A random two-layer BERT that knows a few words, with one score for a pair."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(0)
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, num_labels=1, **shape)
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab=words, model_max_length=64).save_pretrained(folder)
    return folder


def train_toy_reranker(base: Path, out: Path, **settings: Any) -> dict[str, Any]:
    out.mkdir()
    wanted = {"steps": 8, "batch_size": 8, "num_negatives": 2, "learning_rate": 3e-3, "threads": 1}
    config = RerankerTrainConfig.model_validate({"model": "", "max_seq_length": 64, **wanted, **settings})
    tables = {"instances": eight_instances(), "queries": queries_table(), "passages": passages_table()}
    assert train_reranker(config, **tables, out=out, base=base) == {}
    summary: dict[str, Any] = json.loads((out / "training.json").read_text())
    return summary
