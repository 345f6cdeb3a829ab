"""A pair as an instruction reranker's tokens: prefix, body, suffix; only the body is cut (Qwen3-Embedding, README).

Both engines that ask instruction rerankers take their tokens from here, so they ask in the same way.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.engines.chat_tokens import control_tokens, defuse
from infra.engines.specs import PairTemplate

_SLOT = re.compile(r"\{(instruction|query|document)\}")


class PairTokens:
    """Makes a reranker's prompts. `yes` and `no` are the ids of the two tokens that it answers with."""

    def __init__(self, model: str | Path, template: PairTemplate, longest: int) -> None:
        """Load the tokenizer from the model's folder; no code from the model is run.

        Args:
            model: the folder.
            template: how a pair is put to the model.
            longest: the most tokens of a prompt.

        Raises:
            ValueError: an answer is not one token of this model, or prefix and suffix leave no room for a pair.
        """
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True, trust_remote_code=False)
        self._template = template
        self._control = control_tokens(self._tokenizer)
        self.yes, self.no = (self._single(name, getattr(template, name), model) for name in ("yes_token", "no_token"))
        self._prefix, self._suffix = self._encode([template.prefix, template.suffix])
        self._room = longest - len(self._prefix) - len(self._suffix)
        if self._room < 1:
            raise ValueError(
                f"{longest} tokens hold no pair: the template's prefix and suffix alone are {longest - self._room}; "
                "raise max_seq_length or max_model_len"
            )

    @property
    def padding(self) -> int:
        """The id of the token that fills up shorter prompts; the model does not read it."""
        found = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id or 0) if found is None else int(found)

    def encode(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[list[int] | None]:
        """Make one prompt for each pair of (query, passage), in their order.

        A prompt that is too long loses the end of its body, the passage's. None stands for one that would lose all of
        the passage, because its query and instruction alone are too long.

        Args:
            pairs: queries and passages.
            instructions: one for each pair, or none; in place of an empty one the template's own is asked.
        """
        asked = list(instructions) or [""] * len(pairs)
        bodies = [self._fill(*pair, instruction) for pair, instruction in zip(pairs, asked, strict=True)]
        tokens = self._encode(bodies)
        return [
            None
            if len(found) > self._room and self._misses_passage(query, instruction)
            else [*self._prefix, *found[: self._room], *self._suffix]
            for found, (query, _), instruction in zip(tokens, pairs, asked, strict=True)
        ]

    def _fill(self, query: str, document: str, instruction: str) -> str:
        instruction = (instruction or self._template.instruction).strip()
        body = self._template.body
        if not instruction:
            body = "".join(line for line in body.splitlines(keepends=True) if "{instruction}" not in line)
        texts = {"instruction": instruction, "query": query, "document": document}
        return _SLOT.sub(lambda slot: defuse(texts[slot.group(1)], self._control), body)

    def _misses_passage(self, query: str, instruction: str) -> bool:
        (without,) = self._encode([self._fill(query, "", instruction).rstrip()])
        return len(without) >= self._room

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def _single(self, name: str, text: str, model: Any) -> int:  # noqa: ANN401 - a path of any kind
        (tokens,) = self._encode([text])
        if len(tokens) != 1:
            raise ValueError(f"template.{name}: one token of {model} expected, {text!r} is {len(tokens)}")
        return tokens[0]


def share_of_yes(log_odds: float) -> float:
    """Make a probability of log-odds, without overflow on either side: the softmax over two logits by their difference.

    >>> share_of_yes(0.0), share_of_yes(-1e4), share_of_yes(1e4)
    (0.5, 0.0, 1.0)
    """
    small = math.exp(-abs(log_odds))
    return 1 / (1 + small) if log_odds >= 0 else small / (1 + small)
