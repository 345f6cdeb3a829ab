"""Generated texts, and edited copies of them."""

import random

_SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sta", "vel", "tor", "da", "ren", "si", "pol", "gu", "lis", "mor")
WORDS = sorted({"".join(random.Random(seed).choices(_SYLLABLES, k=1 + seed % 4)) for seed in range(3_000)})


def generated(count: int, words: int = 100, seed: int = 0) -> list[str]:
    """Texts of random words, as often as in a language: the rank of a word decides how frequent it is."""
    chance = random.Random(seed)
    ranked = chance.sample(WORDS, len(WORDS))
    weights = [1 / (rank + 5) for rank in range(len(ranked))]
    return [" ".join(chance.choices(ranked, weights, k=words)) for _ in range(count)]


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
