"""Counts tokens as an engine would, with the tokenizers on this machine; no model is fetched, no engine started."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.config.engines import EngineConfig
from infra.engines.chat_tokens import ChatTokenizer
from infra.engines.kinds import kind_of
from infra.models.resolve import is_present, parse, resolve

if TYPE_CHECKING:  # not a dependency of ours; it may be installed by another package
    from tiktoken import Encoding

Chat = Sequence[Mapping[str, str]]

CHARACTERS_PER_TOKEN = 4
# What OpenAI's chat format adds: to every message, and before the answer.
_PER_MESSAGE, _BEFORE_ANSWER = 3, 3


@dataclass(frozen=True)
class TokenCounter:
    """Counts a chat's tokens. `guess` says why the count is an estimate; it is empty for the model's own tokenizer."""

    count: Callable[[Chat], int]
    guess: str = ""

    def count_answer(self, text: str) -> int:
        """Count the tokens of a text as the answer to a chat, the end token included."""
        chats = ([{"role": "user", "content": content}] for content in ("", text))
        empty, full = (self.count(chat) for chat in chats)
        return full - empty + 1


def counter_of(engine: EngineConfig, cache: Path) -> TokenCounter:
    """Return a counter with the model's own tokenizer if it is on this machine, else one token per four characters."""
    tokens = kind_of(engine).tokens
    if tokens == "none":
        return TokenCounter(lambda chat: 0)
    if tokens == "vendor":
        encoding = _load_encoding(engine.model)
        if encoding is None:
            return _by_characters(f"no tokenizer for {engine.model} is on this machine")
        return TokenCounter(lambda chat: _count_encoded(encoding, chat))
    folder = _find_folder(engine.model, cache)
    if folder is None:
        return _by_characters("the model is not on this machine yet")
    try:
        return TokenCounter(ChatTokenizer(folder).count)
    except ValueError as error:
        return _by_characters(str(error))


def _by_characters(why: str) -> TokenCounter:
    def count(chat: Chat) -> int:
        return sum(len(message["content"]) for message in chat) // CHARACTERS_PER_TOKEN

    return TokenCounter(count, f"tokens estimated from characters ({CHARACTERS_PER_TOKEN} per token): {why}")


def _find_folder(reference: str, cache: Path) -> Path | None:
    """Return the folder of a model, if it is on this machine; a quantised model has its original's tokenizer."""
    scheme, rest = parse(reference)
    if scheme == "w8a8":
        return _find_folder(rest, cache)
    if not is_present(reference, cache):
        return None
    return resolve(reference, cache).path


def _count_encoded(encoding: "Encoding", chat: Chat) -> int:
    texts = [text for message in chat for text in (message["role"], message["content"])]
    tokens = sum(len(encoding.encode(text, disallowed_special=())) for text in texts)
    return tokens + _PER_MESSAGE * len(chat) + _BEFORE_ANSWER


def _load_encoding(model: str) -> "Encoding | None":
    """Load the encoding of a vendor's model from tiktoken's cache; None if it is not there. Nothing is fetched."""
    try:
        import tiktoken
        import tiktoken.load
    except ImportError:
        return None

    def refuse(blobpath: str) -> bytes:
        raise ConnectionError(f"{blobpath}: not in tiktoken's cache")

    fetch, tiktoken.load.read_file = tiktoken.load.read_file, refuse
    try:
        return tiktoken.encoding_for_model(model)
    except (KeyError, OSError, ValueError):
        return None
    finally:
        tiktoken.load.read_file = fetch
