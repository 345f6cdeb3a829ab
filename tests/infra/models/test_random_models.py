"""Tiny models are the same on each build, and load as real ones do."""

import hashlib
import json
from pathlib import Path

import pytest

from infra.models.random_models import (
    BUILDERS,
    VERSION,
    _byte_level_tokenizer,
    _seeded,
    _word_pieces,
    build_tiny_cross_encoder,
    build_tiny_encoder,
    build_tiny_llm,
    build_tiny_reranker,
    describe,
)
from infra.models.resolve import digest_of, name_of, resolve


def _digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_tiny_llm_is_the_same_on_each_build_and_knows_its_answers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in ("one", "two"):
        build_tiny_llm(tmp_path / name)
    build_tiny_llm(tmp_path / "other", seed=1)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two") != _digests(tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert [len(tokenizer(answer).input_ids) for answer in ("Yes", "No", " Yes", " No")] == [1, 1, 1, 1]
    chat = [{"role": "system", "content": "Judge."}, {"role": "user", "content": "Is it ✓?"}]
    shown = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert shown == (
        "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\nIs it ✓?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(tokenizer(shown).input_ids) == shown
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    leads = []
    for question in ("Is it?", "Compute the sum 17.", "Häé ✓ 🙂", "a" * 500):
        chat[1]["content"] = question
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        logits = model(**asked).logits[0, -1]
        assert {"Yes", "No"} <= {tokenizer.decode(token) for token in logits.topk(5).indices}
        leads.append(round((logits[tokenizer("Yes").input_ids[0]] - logits[tokenizer("No").input_ids[0]]).item(), 3))
    assert len(set(leads)) == len(leads)


def test_the_tiny_encoder_is_the_same_on_each_build_and_encodes(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    for name in ("one", "two"):
        build_tiny_encoder(tmp_path / name)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")
    encoder = SentenceTransformer(str(tmp_path / "one"), device="cpu")
    assert encoder.max_seq_length == 256
    assert not (tmp_path / "one" / "README.md").exists()
    vectors = encoder.encode(["a text", "", "🙂" * 500])
    assert vectors.shape == (3, 32)


def test_the_tiny_cross_encoder_is_the_same_on_each_build_and_tells_pairs_apart(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    for name in ("one", "two"):
        build_tiny_cross_encoder(tmp_path / name)
    build_tiny_cross_encoder(tmp_path / "other", seed=1)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two") != _digests(tmp_path / "other")
    model = CrossEncoder(str(tmp_path / "one"), device="cpu")
    scores = model.predict([("rows", "the first rows"), ("rows", "digits"), ("", ""), ("🙂" * 500, "a" * 3000)])
    assert model.num_labels == 1
    assert all(abs(a - b) > 0.001 for i, a in enumerate(scores) for b in scores[:i])


def test_the_tiny_reranker_is_the_same_on_each_build_and_has_the_familys_tokens(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in ("one", "two"):
        build_tiny_reranker(tmp_path / name)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    single = ("yes", "no", "<think>", "</think>", "<|im_start|>", "<|im_end|>")
    assert [len(tokenizer(token, add_special_tokens=False).input_ids) for token in single] == [1] * len(single)
    assert tokenizer.padding_side == "left"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    assert model.config.architectures == ["Qwen3ForCausalLM"]
    with torch.no_grad():
        logits = model(**tokenizer("Is it relevant?", return_tensors="pt")).logits[0, -1]
    assert torch.isfinite(logits).all()


@pytest.mark.slow
def test_a_tiny_reference_is_built_into_the_cache_once(tmp_path: Path) -> None:
    said: list[str] = []
    first = resolve("tiny:llm", tmp_path, said.append)
    assert resolve("tiny:llm", tmp_path, said.append) == first
    assert said == ["tiny-llm: building it"]
    assert (first.name, first.digest) == ("tiny-llm", digest_of("tiny:llm", tmp_path))


def test_each_tiny_model_has_a_reference_and_a_digest_of_its_own(tmp_path: Path) -> None:
    references = [f"tiny:{kind}" for kind in BUILDERS]
    assert sorted(references) == ["tiny:cross_encoder", "tiny:encoder", "tiny:llm", "tiny:reranker"]
    assert len({digest_of(reference, tmp_path) for reference in references}) == 4
    assert name_of("tiny:cross_encoder") == "tiny-cross_encoder"


def test_the_digest_covers_the_kind_the_builders_version_and_the_libraries() -> None:
    told = json.loads(describe("llm"))
    assert (told.pop("tiny"), told.pop("version")) == ("llm", VERSION)
    assert sorted(told) == ["sentence-transformers", "tokenizers", "torch", "transformers"]
    assert describe("llm") != describe("encoder")


def test_an_answer_is_one_token_and_any_text_comes_back_from_its_tokens() -> None:
    tokenizer = _byte_level_tokenizer()
    assert [len(tokenizer.encode(answer).ids) for answer in ("Yes", "No", " Yes", " No")] == [1, 1, 1, 1]
    for text in ("Häé ✓ 🙂", "<|im_start|>user\n", "", "a" * 300):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert [tokenizer.token_to_id(token) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [0, 1, 2]
    assert tokenizer.get_vocab_size() <= 448


def test_word_pieces_cover_every_printable_sign_alone_and_within_a_word() -> None:
    pieces = _word_pieces()
    assert [pieces[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]
    assert {"!", "~", "a", "9", "##!", "##~", "##a", "frame", "relevant"} <= pieces.keys()
    assert not {" ", "A", "##A", "\x7f", "Return", "array,"} & pieces.keys()
    assert sorted(pieces.values()) == list(range(len(pieces)))


def test_the_callers_random_numbers_are_left_as_they_were_and_ours_follow_the_seed() -> None:
    import torch

    def drawn(seed: int) -> list[float]:
        with _seeded(seed):
            return torch.rand(3).tolist()  # type: ignore[no-any-return]

    torch.manual_seed(5)
    expected = torch.rand(1).item()
    torch.manual_seed(5)
    assert drawn(0) == drawn(0) != drawn(1)
    assert torch.rand(1).item() == expected
