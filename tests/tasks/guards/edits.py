"""Generated texts, and edited copies of them."""

import random

WORDS = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ne", "ru", "sta", "vel", "tor") for b in ("da", "ren", "si", "pol", "gu")
         for c in ("n", "t", "lis", "mor", "ka", "x", "ve")]  # fmt: skip


def generated(count: int, words: int = 100, seed: int = 0) -> list[str]:
    """Texts of random words, as often as in a language: the rank of a word decides how frequent it is."""
    chance = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(WORDS))]
    return [" ".join(chance.choices(WORDS, weights, k=words)) for _ in range(count)]


def edited(text: str, share: float, seed: int) -> str:
    """Replace, remove or add words, each in a third of the cases."""
    chance, made = random.Random(seed), list[str]()
    for word in text.split(" "):
        if chance.random() >= share:
            made.append(word)
            continue
        kind = chance.randrange(3)
        made += [chance.choice(WORDS)] if kind == 0 else [] if kind == 1 else [word, chance.choice(WORDS)]
    return " ".join(made)
