"""Tiny models are the same on each build, and load as real ones do."""

import hashlib
from pathlib import Path

import pytest

from infra.models.random_models import BUILDERS, build_tiny_cross_encoder, build_tiny_encoder, build_tiny_llm
from infra.models.resolve import digest_of, name_of, resolve


def _digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_tiny_encoder_is_the_same_on_each_build_and_encodes(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    for name in ("one", "two"):
        build_tiny_encoder(tmp_path / name)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")
    vectors = SentenceTransformer(str(tmp_path / "one"), device="cpu").encode(["a text", "", "🙂" * 500])
    assert vectors.shape == (3, 32)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_tiny_reference_is_built_into_the_cache_once(tmp_path: Path) -> None:
    said: list[str] = []
    first = resolve("tiny:llm", tmp_path, said.append)
    assert resolve("tiny:llm", tmp_path, said.append) == first
    assert said == ["tiny-llm: building it"]
    assert (first.name, first.digest) == ("tiny-llm", digest_of("tiny:llm", tmp_path))


def test_each_tiny_model_has_a_reference_and_a_digest_of_its_own(tmp_path: Path) -> None:
    references = [f"tiny:{kind}" for kind in BUILDERS]
    assert sorted(references) == ["tiny:cross_encoder", "tiny:encoder", "tiny:llm"]
    assert len({digest_of(reference, tmp_path) for reference in references}) == 3
    assert name_of("tiny:cross_encoder") == "tiny-cross_encoder"
