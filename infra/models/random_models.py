"""Tiny models with random weights, built when they are needed, to run the engines without a real model.

Run as a program with `llm`, `reranker`, `encoder` or `cross_encoder` and a directory, this file builds one.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

# Part of a tiny model's digest: raise it when a builder changes.
VERSION = 3

_SENTENCES = (
    "Yes or No: is the passage relevant to the query? Answer Yes or No. Yes No Yes No Yes No",
    "Query: get the first rows of a frame. Passage: Return the first n rows of the data frame or series.",
    "The quick brown fox jumps over the lazy dog, and 0123456789 are the digits.",
    "Parameters: the number of rows to return. Returns: a new array, tensor or series of the same type.",
    "Compute the sum, the mean, the minimum and the maximum of all values along an axis of an array.",
    "system user assistant You are a careful judge. Relevant passages: document, positive, negative.",
)
_CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_END_OF_TEXT, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_THINKING = ("<think>", "</think>")
_SPREAD = 8.0  # standard deviation of the tiny reranker's log-odds over the pairs that its head is fitted on
_SHARPNESS = 3.0
_MAX_LENGTH = 8192
_ENCODER_LENGTH = 256
_CROSS_ENCODER_LENGTH = 512


def build_tiny_llm(directory: Path, seed: int = 0) -> None:
    """Write a two-layer random Qwen2 chat model with a byte-level tokenizer that knows Yes and No into `directory`."""
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = _byte_level_tokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token=_END,
        pad_token=_END_OF_TEXT,
        additional_special_tokens=[_START],
        model_max_length=_MAX_LENGTH,
        chat_template=_CHAT_TEMPLATE,
    )
    tokens: Mapping[str, int] = tokenizer.get_vocab()
    config = Qwen2Config(
        vocab_size=len(tokens),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,  # heads of 32: the smallest that vLLM's CPU attention takes
        num_key_value_heads=2,
        max_position_embeddings=_MAX_LENGTH,
        tie_word_embeddings=False,
        eos_token_id=tokens[_END],
        pad_token_id=tokens[_END_OF_TEXT],
        dtype="bfloat16",
    )
    with _seeded(seed):
        model = Qwen2ForCausalLM(config)
    _prefer(model, [tokens[token] for token in ("Yes", "No", "ĠYes", "ĠNo")], tokens["Ċ"])
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def build_tiny_reranker(directory: Path, seed: int = 0) -> None:
    """Write a two-layer random Qwen3 that answers `yes` or `no` to a templated pair of texts, into `directory`.

    Its tokenizer has the control tokens of the Qwen3-Reranker family. The log-odds of `yes` are centred and have the
    standard deviation `_SPREAD` over pairs of our sentences, so P(yes) differs from pair to pair.
    """
    from transformers import AddedToken, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_tokenizer(["yes", "no"] * 8),
        eos_token=_END,
        pad_token=_END_OF_TEXT,
        additional_special_tokens=[_START],
        model_max_length=_MAX_LENGTH,
        padding_side="left",
        chat_template=_CHAT_TEMPLATE,
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _THINKING])
    tokens: Mapping[str, int] = tokenizer.get_vocab()
    config = Qwen3Config(
        vocab_size=len(tokens),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's CPU attention takes
        max_position_embeddings=_MAX_LENGTH,
        initializer_range=0.15,  # with less, all pairs would have nearly the same hidden state
        tie_word_embeddings=False,
        eos_token_id=tokens[_END],
        pad_token_id=tokens[_END_OF_TEXT],
        dtype="float32",
    )
    with _seeded(seed):
        model = Qwen3ForCausalLM(config).eval()
    _spread(model, tokenizer, tokens["yes"], tokens["no"])
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _spread(model: Any, tokenizer: Any, yes: int, no: int) -> None:  # noqa: ANN401 - transformers is not type-checked
    """Point the difference of two output rows along what varies most over pairs of sentences, and scale it."""
    import torch

    prompts = [
        f"{_START}system\nJudge whether the Document meets the Query and the Instruct.{_END}\n{_START}user\n"
        f"<Instruct>: {_SENTENCES[number % 3]}\n<Query>: {one}\n<Document>: {other}{_END}\n"
        f"{_START}assistant\n{_THINKING[0]}\n\n{_THINKING[1]}\n\n"
        for number, (one, other) in enumerate(product(_SENTENCES, _SENTENCES))
    ]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_norm.weight *= _SHARPNESS  # each position reads few others, so the texts matter
        states = torch.stack(
            [model.model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0, -1] for prompt in prompts]
        )
        mean = states.mean(dim=0)
        away = states - states @ mean[:, None] * mean / mean.square().sum()  # without the part that all pairs share
        direction = torch.linalg.svd(away - away.mean(dim=0), full_matrices=False).Vh[0]
        direction -= direction @ mean * mean / mean.square().sum()
        direction *= torch.sign(direction[direction.abs().argmax()])  # the sign of a singular vector is arbitrary
        direction *= _SPREAD / (states @ direction).std()
        model.lm_head.weight[yes], model.lm_head.weight[no] = direction / 2, -direction / 2


def build_tiny_encoder(directory: Path, seed: int = 0) -> None:
    """Write a two-layer random BERT with mean pooling, as sentence-transformers loads it, into `directory`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertModel

    config, tokenizer = _bert(_ENCODER_LENGTH)
    with _seeded(seed):
        model = BertModel(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    transformer = Transformer(str(directory), max_seq_length=_ENCODER_LENGTH)
    encoder = SentenceTransformer(modules=[transformer, Pooling(config.hidden_size)], device="cpu")
    encoder.save_pretrained(str(directory), create_model_card=False)


def build_tiny_cross_encoder(directory: Path, seed: int = 0) -> None:
    """Write a two-layer random BERT that gives a pair of texts one score, into `directory`."""
    import torch
    from transformers import BertForSequenceClassification

    # With a smaller range every pair would have nearly the same score.
    config, tokenizer = _bert(_CROSS_ENCODER_LENGTH, num_labels=1, initializer_range=0.5)
    with _seeded(seed):
        model = BertForSequenceClassification(config).eval()
    pairs = tokenizer(list(_SENTENCES), list(_SENTENCES[::-1]), padding=True, return_tensors="pt")
    with torch.no_grad():
        model.classifier.bias -= model(**pairs).logits.mean()  # some scores above 0.5, some below
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _bert(length: int, **settings: Any) -> tuple[Any, Any]:
    """Return a tiny BERT's configuration and the tokenizer that fits it."""
    from transformers import BertConfig, BertTokenizerFast

    vocabulary = _word_pieces()
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=length,
        pad_token_id=vocabulary["[PAD]"],
        **settings,
    )
    return config, BertTokenizerFast(vocab=vocabulary, model_max_length=length)


def _prefer(model: Any, answers: list[int], newline: int) -> None:  # noqa: ANN401 - transformers is not type-checked
    """Make some tokens the likeliest next ones after any prompt, in an order that depends on the prompt.

    The last layer's value biases give every hidden state a constant part; the answers' output rows point along it.
    Every prompt ends with the template's newline.
    """
    import torch

    attention = model.model.layers[-1].self_attn
    with torch.no_grad():
        attention.v_proj.bias.fill_(0.2)
        last = model.model.embed_tokens.weight[newline]
        same, _ = torch.linalg.qr(torch.stack([attention.o_proj.weight.sum(dim=1), last], dim=1))
        same[:, 0] *= torch.sign(same[:, 0] @ attention.o_proj.weight.sum(dim=1))
        rows = model.lm_head.weight[answers]
        across = rows - rows @ same @ same.T  # without the part that all prompts share, which would favour one answer
        model.lm_head.weight[answers] = 20 * across + same[:, 0]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from torch's generator with a fixed seed, and leave the caller's as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _byte_level_tokenizer(words: Sequence[str] = ()) -> Any:  # noqa: ANN401 - `tokenizers` carries no types
    """Train a tokenizer on the sentences; `words` are trained on too, each as a text of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=448,
        special_tokens=[_END_OF_TEXT, _START, _END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Each word also at the start of a text: an answer is "Yes", not " Yes".
    tokenizer.train_from_iterator([*_SENTENCES, *["Yes", "No"] * 8, *words], trainer)
    return tokenizer


def _word_pieces() -> dict[str, int]:
    """Return a vocabulary: the sentences' words, and all printable ASCII characters, alone and within a word."""
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = sorted({word.strip(",.:?").lower() for text in _SENTENCES for word in text.split()} - set(characters))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *characters, *(f"##{character}" for character in characters), *words]
    return {piece: number for number, piece in enumerate(pieces)}


def describe(kind: str) -> str:
    """Return what decides a tiny model's bytes, for its digest."""
    libraries = {name: version(name) for name in ("torch", "transformers", "tokenizers", "sentence-transformers")}
    return json.dumps({"tiny": kind, "version": VERSION, **libraries}, sort_keys=True)


BUILDERS = {
    "llm": build_tiny_llm,
    "reranker": build_tiny_reranker,
    "encoder": build_tiny_encoder,
    "cross_encoder": build_tiny_cross_encoder,
}

if __name__ == "__main__":
    BUILDERS[sys.argv[1]](Path(sys.argv[2]))
