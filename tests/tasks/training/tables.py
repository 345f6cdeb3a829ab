"""A tiny model, and a toy training set that it knows all words of."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from tasks import schemas
from tasks.texts import combine_hashes, hash_passage, hash_text
from tasks.training.train import train
from tasks.training.train_config import TrainConfig

TOPICS = ("cats", "dogs", "boats", "trees", "stars", "wines", "roads", "bells")


WORDS = ("what", "about", "are", "nice", "and", "old", "not", *TOPICS)


def build_tiny_model(folder: Path) -> Path:
    """A random two-layer BERT that knows a few words, as a sentence-transformers model."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    bert = BertModel(BertConfig(vocab_size=5 + len(WORDS), max_position_embeddings=64, **shape))
    bert.save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=64)
    model = SentenceTransformer(modules=[transformer, Pooling(32, "mean")], device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def build_static_model(folder: Path, words: tuple[str, ...] = WORDS) -> Path:
    """A vector for each of the few words, as a sentence-transformers model."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    torch.manual_seed(0)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(("[UNK]", *words))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def queries_table(split: str = "train") -> pl.DataFrame:
    rows = [("toy", f"q{i}", f"what about {t}", hash_text(f"what about {t}"), split) for i, t in enumerate(TOPICS)]
    return pl.DataFrame(rows, schema=schemas.QUERIES.columns, orient="row")


def passages_table() -> pl.DataFrame:
    texts = [(f"p{i}", "", f"{t} are nice") for i, t in enumerate(TOPICS)]
    texts += [(f"s{i}", "old", f"{t} and {t}") for i, t in enumerate(TOPICS)]
    texts += [(f"n{i}", "", f"not {t}") for i, t in enumerate(TOPICS)]
    rows = [("toy", doc_id, title, text, hash_passage(title, text)) for doc_id, title, text in texts]
    return pl.DataFrame(rows, schema=schemas.PASSAGES.columns, orient="row")


def instances_table(rows: list[tuple[str, list[str], list[str]]]) -> pl.DataFrame:
    """Instances by query id, with the hash that `treat` would give them."""
    hashes = dict(passages_table().select("doc_id", "text_hash").iter_rows())
    of_query = dict(queries_table().select("query_id", "text_hash").iter_rows())
    made = [
        ("toy", q, p, n, "relabel", combine_hashes([of_query[q], *(hashes[d] for d in (*p, *n))])) for q, p, n in rows
    ]
    return pl.DataFrame(made, schema=schemas.INSTANCES.columns, orient="row")


def eight_instances() -> pl.DataFrame:
    return instances_table([(f"q{i}", [f"p{i}", f"s{i}"], [f"n{i}", f"n{(i + 1) % 8}"]) for i in range(8)])


def train_toy(base: Path, out: Path, **settings: Any) -> dict[str, Any]:
    out.mkdir()
    wanted: dict[str, Any] = {
        "steps": 30,
        "batch_size": 4,
        "num_negatives": 2,
        "learning_rate": 3e-3,
        "threads": 1,
        **settings,
    }
    config = TrainConfig(model=str(base), **wanted)
    made = train(config, instances=eight_instances(), queries=queries_table(), passages=passages_table(), out=out)
    assert made == {}
    summary: dict[str, Any] = json.loads((out / "training.json").read_text())
    return summary


def build_tiny_qwen(folder: Path, hidden: int = 32) -> Path:
    """A random two-layer Qwen2 with its kind of tokenizer, as a language model's folder, without modules.json."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer.get_vocab()),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
