"""The benchmark of the search by words, on few texts."""

import pytest

from benchmarks import bm25


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw 2,000 different words instead of 100,000, which takes seconds."""
    monkeypatch.setattr(bm25, "_WORDS", 2_000)


def test_both_find_the_same_passages_and_the_shares_are_of_their_seconds() -> None:
    names = ("ours", "bm25s")
    runs = {name: bm25.run_one(name, passages=300, queries=20) for name in names}
    runs["numba"] = dict(runs["bm25s"])
    ours, theirs = ([set(found[:10]) for found in runs[name]["nearest"]] for name in names)
    assert ours == theirs
    figures = bm25.compare(runs)
    assert figures["equal_share"] == 1.0
    assert figures["bm25_share"] == round(runs["bm25s"]["seconds"] / runs["ours"]["seconds"], 3)


def test_texts_are_the_same_for_the_same_seed() -> None:
    assert bm25.write_texts(20, 3) == bm25.write_texts(20, 3)
