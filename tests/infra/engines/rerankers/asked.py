"""What the tests of instruction rerankers ask, and P computed by hand with transformers alone."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

QUERIES = [
    "rows of a frame",
    "how do I compute the mean",
    "what is a fox",
    "sum of values along an axis",
    "largest river of France",
    "is tea healthy",
]
PASSAGES = [
    "Return the first n rows of the data frame",
    "quick brown fox jumps over the lazy dog",
    "a new array of the same type",
    "The Loire is the longest river in France.",
    "Green tea holds caffeine and may help attention.",
    "Größe und Menge: 数量と大きさ",
]
PAIRS = list(product(QUERIES, PASSAGES))
INSTRUCTION = "Given a claim, retrieve passages that show whether it is true"
LONG = ("rows of a frame", "Return the first n rows of the data frame. " * 200)
# Longer than any prompt may be here, so that nothing of the passage would be left.
ENDLESS = ("how do I compute the mean " * 200, "a new array")
LONGEST = 256


class ByHand:
    """The reranker as its makers describe it: one forward pass for each pair, without padding or batches."""

    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()

    def score(
        self, pairs: Sequence[tuple[str, str]], instruction: str | None = INSTRUCTION, suffix: str = suffix
    ) -> list[float]:
        """Return P(yes) for each pair; without an instruction its line is left out."""
        import torch

        first = "" if instruction is None else f"<Instruct>: {instruction}\n"
        yes, no = (self.tokenizer.convert_tokens_to_ids(token) for token in ("yes", "no"))
        found = []
        for query, passage in pairs:
            parts = [
                self.ids(part) for part in (self.prefix, f"{first}<Query>: {query}\n<Document>: {passage}", suffix)
            ]
            room = LONGEST - len(parts[0]) - len(parts[2])
            with torch.no_grad():
                logits = self.model(torch.tensor([parts[0] + parts[1][:room] + parts[2]])).logits[0, -1]
            found.append(torch.softmax(logits[[no, yes]], 0)[1].item())
        return found

    def ids(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens
