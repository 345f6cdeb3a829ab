"""Tokens counted with what is on this machine, and guessed from characters where nothing is."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.config.engines import CrossEncoderConfig, VLLMConfig
from flows.planning.token_counts import TokenCounter, counter_of
from infra.engines.specs import OpenAIBatchSpec, OpenAISpec

CHAT = ({"role": "system", "content": "Be a judge."}, {"role": "user", "content": "Is it relevant?"})  # 11 + 15


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a chat model's, whose tokenizer makes a token of every word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} {% endfor %}answer"
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def counted(engine: Any, cache: Path) -> tuple[int, str]:
    counter = counter_of(engine, cache)
    return counter.count(CHAT), counter.guess


def test_the_models_own_tokenizer_counts_what_its_template_makes_of_a_chat(model: Path, tmp_path: Path) -> None:
    engine = VLLMConfig(model=f"path:{model}")
    assert counted(engine, tmp_path) == (9, "")  # system, 3 words, user, 3 words, answer
    assert counter_of(engine, tmp_path).count_answer("It is relevant.") == 4  # three words and the end


def test_a_quantised_model_has_its_originals_tokenizer(model: Path, tmp_path: Path) -> None:
    assert counted(VLLMConfig(model=f"w8a8:path:{model}"), tmp_path) == (9, "")


def test_a_model_that_is_not_here_is_guessed_by_four_characters_a_token(tmp_path: Path) -> None:
    said = "tokens estimated from characters (4 per token): the model is not on this machine yet"
    assert counted(VLLMConfig(), tmp_path) == (26 // 4, said)


def test_a_tokenizer_without_a_chat_template_says_so(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in model.iterdir():
        (bare / path.name).write_bytes(path.read_bytes())
    said = json.loads((bare / "tokenizer_config.json").read_text())
    (bare / "tokenizer_config.json").write_text(json.dumps({**said, "chat_template": None}))
    tokens, guess = counted(VLLMConfig(model=f"path:{bare}"), tmp_path)
    assert tokens == 6
    assert "no chat template beside its tokenizer" in guess


@pytest.mark.parametrize("spec", [OpenAISpec, OpenAIBatchSpec])
def test_an_endpoints_model_without_a_tokenizer_here_is_guessed_and_nothing_is_fetched(
    spec: type[OpenAISpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    tokens, guess = counted(spec(model="a-model-of-ours-2026"), tmp_path)
    assert tokens == 6
    assert guess.endswith("no tokenizer for a-model-of-ours-2026 is on this machine")
    assert list(tmp_path.iterdir()) == []


def test_an_endpoints_chat_has_three_more_tokens_for_each_message_and_three_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Words:
        """Encodes as tiktoken's encodings do, a token for each word."""

        def encode(self, text: str, disallowed_special: tuple[str, ...]) -> list[str]:
            return text.split()

    monkeypatch.setattr("flows.planning.token_counts._load_encoding", lambda model: Words())
    # The roles are a word each; 1 + 3 + 1 + 3 words, 2 * 3 for the messages, 3 before the answer.
    assert counted(OpenAISpec(model="gpt-4o-2024-11-20"), tmp_path) == (8 + 6 + 3, "")


def test_a_cross_encoder_reads_no_chat(tmp_path: Path) -> None:
    assert counted(CrossEncoderConfig(model="m"), tmp_path) == (0, "")


def test_an_answers_tokens_are_what_it_adds_to_a_chat_and_its_end() -> None:
    counter = TokenCounter(lambda chat: 5 + sum(len(message["content"].split()) for message in chat))
    assert counter.count_answer("Yes") == 2
    assert counter.count_answer("") == 1
