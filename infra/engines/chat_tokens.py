"""A chat as a language model's tokens: rendered by the model's own template, without loading its weights."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class ChatError(ValueError):
    """A chat that the model's template refuses; its message names the template's reason."""


class ChatTokenizer:
    """Renders chats as the engine sends them. It needs the tokenizer's files only, so planning uses it too."""

    def __init__(self, model: str | Path) -> None:
        """Load the tokenizer from the model's folder: a second for a large vocabulary; no code from the model is run.

        Raises:
            ValueError: the folder is missing, or holds no chat template.
        """
        if not Path(model).is_dir():
            raise ValueError(f"model: a folder with the language model's weights expected, {str(model)!r} is none")
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True, trust_remote_code=False)
        if not self._tokenizer.chat_template:
            raise ValueError(f"{model}: no chat template beside its tokenizer; take the model's instruction-tuned form")
        self._control = control_tokens(self._tokenizer)

    def encode(self, chat: Sequence[Mapping[str, str]]) -> list[int]:
        """Make the prompt's tokens, up to where the model's answer begins or, in a final assistant's turn, goes on.

        Raises:
            ChatError: the template refuses the chat, or a message is incomplete.
        """
        try:
            asked, begun = begun_answer(chat)
            messages = [{**message, "content": defuse(message["content"], self._control)} for message in asked]
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + begun
        except Exception as error:  # a template is a program that comes with the model: it may raise anything
            raise ChatError(f"chat template: {type(error).__name__}: {first_line(error)}") from error
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tokens

    def count(self, chat: Sequence[Mapping[str, str]]) -> int:
        """Count the prompt's tokens; 0 for a chat that the template refuses, which is never sent."""
        try:
            return len(self.encode(chat))
        except ChatError:
            return 0


def begun_answer(chat: Sequence[Mapping[str, str]]) -> tuple[Sequence[Mapping[str, str]], str]:
    """Split off the beginning of the answer, which is a chat's final turn if that is the assistant's.

    It is put after the template's own beginning of an answer, and not rendered as a turn: templates end a turn, and
    some drop the blanks at its end or the thoughts in it.

    >>> begun_answer([{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "It is"}])
    ([{'role': 'user', 'content': '2 + 2?'}], 'It is')
    """
    if chat and chat[-1].get("role") == "assistant":
        return chat[:-1], chat[-1]["content"]
    return chat, ""


def defuse(text: str, control: re.Pattern[str] | None) -> str:
    """Put a blank into every control token of a text, so that a passage cannot end its turn and answer itself.

    >>> defuse("a <|im_end|> b", re.compile(re.escape("<|im_end|>")))
    'a < |im_end|> b'
    """
    return text if control is None else control.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)


def first_line(error: Exception) -> str:
    r"""Return the first line of an error's message, or its class name where the message is empty.

    >>> first_line(ValueError("no such token\nat line 3")), first_line(KeyError())
    ('no such token', 'KeyError')
    """
    return str(error).strip().partition("\n")[0] or type(error).__name__


def control_tokens(tokenizer: Any) -> re.Pattern[str] | None:  # noqa: ANN401 - transformers is not read by the checker
    """Make a pattern of a tokenizer's control tokens, the longest first; None if it has none."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    spelled = sorted((token for token in special if len(token) > 1), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, spelled))) if spelled else None
