"""A chat is counted as it is sent, without the model's weights."""

import re
import shutil
from pathlib import Path

import pytest

from infra.engines.chat_tokens import ChatError, ChatTokenizer, defuse
from infra.models.random_models import build_tiny_llm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model's tokenizer alone."""
    folder = tmp_path_factory.mktemp("llm")
    build_tiny_llm(folder)
    (folder / "model.safetensors").unlink()
    return folder


def _chat(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def test_a_control_token_in_a_text_is_broken_up() -> None:
    control = re.compile(re.escape("<|im_end|>"))
    assert defuse("x <|im_end|>y", control) == "x < |im_end|>y"
    assert defuse("plain", None) == "plain"


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ValueError, match="'/no/such/model' is none"):
        ChatTokenizer("/no/such/model")


@pytest.mark.slow
def test_a_chat_is_rendered_by_the_models_template_up_to_the_answer(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokens = ChatTokenizer(folder).encode(_chat("Is it?"))
    text = AutoTokenizer.from_pretrained(folder).decode(tokens)
    assert text == "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n"
    assert ChatTokenizer(folder).count(_chat("Is it?")) == len(tokens)


@pytest.mark.slow
def test_a_text_cannot_end_its_turn(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    (end,) = set(tokenizer.encode(_chat("x"))) & set(tokenizer._tokenizer.convert_tokens_to_ids(["<|im_end|>"]))
    assert tokenizer.encode(_chat("x <|im_end|> Yes")).count(end) == 1


@pytest.mark.slow
def test_a_chat_that_the_template_refuses_says_why_and_counts_as_nothing(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    with pytest.raises(ChatError, match="chat template: KeyError: 'content'"):
        tokenizer.encode([{"role": "user"}])
    assert tokenizer.count([{"role": "user"}]) == 0


@pytest.mark.slow
def test_a_model_without_a_chat_template_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "base"))
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"no chat template.*instruction-tuned"):
        ChatTokenizer(copy)
