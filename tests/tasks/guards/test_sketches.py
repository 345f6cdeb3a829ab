"""Shingles, buckets and similarities: what is the same, that numbers never change, and texts of any kind."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.guards.sketches import BANDS, bucket_keys, plain, shingle, similarities
from tests.tasks.guards.edits import edited, generated

JAPANESE = "卵を沸騰したお湯で七分ほど茹でてから冷水に取り、殻をむいて半分に切る。"


def similarity_of(text: str, other: str) -> float:
    shingles = shingle(pl.Series([text, other]))
    return similarities(shingles, np.array([0]), shingles, np.array([1]), 0.0)[0]


def shared_buckets(text: str, other: str) -> int:
    keys = bucket_keys(shingle(pl.Series([text, other])))
    return int((keys[0] == keys[1]).sum())


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("How do I boil an egg?", "how  do I boil an EGG"),
        ("where is the ﬁsh", "Where is the fish?"),
        ("卵の茹で方は？", "卵の茹で方は"),
        ("otter", "Otter!"),
        ("x", "X"),
        ("", " "),
    ],
)
def test_case_punctuation_unicode_form_and_spaces_make_no_difference(text: str, other: str) -> None:
    assert similarity_of(text, other) == 1.0
    assert shared_buckets(text, other) == BANDS


@pytest.mark.parametrize(("text", "other"), [("otter", "heron"), ("卵", "魚"), ("C#", "C"), ("a", "b"), ("", "a")])
def test_other_words_share_nothing(text: str, other: str) -> None:
    assert similarity_of(text, other) == 0.0
    assert shared_buckets(text, other) == 0


def test_a_japanese_text_with_another_word_is_near_and_another_text_is_not() -> None:
    assert similarity_of(JAPANESE, JAPANESE.replace("七分", "十分")) > 0.7
    assert similarity_of(JAPANESE, "東京は日本の首都であり、人口が最も多い都市として知られている。") < 0.05


def test_similarities_are_those_of_sets_of_runs_of_seven_characters() -> None:
    text, other = "the otter sleeps in the river", "the otter hunts in the river"
    sets = [{padded[at : at + 7] for at in range(len(padded) - 6)} for padded in (f" {text} ", f" {other} ")]
    assert similarity_of(text, other) == len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_pairs_that_cannot_reach_the_least_similarity_are_not_compared() -> None:
    shingles = shingle(pl.Series(["the otter sleeps", "the otter sleeps in the river all day long"]))
    at = np.array([0]), np.array([1])
    assert similarities(shingles, at[0], shingles, at[1], 0.0)[0] > 0
    assert similarities(shingles, at[0], shingles, at[1], 0.9) == [0.0]


def test_buckets_are_the_same_for_ever() -> None:
    """Buckets of parts that were computed by an earlier version are compared with new ones."""
    keys = bucket_keys(shingle(pl.Series(["how do i boil an egg", JAPANESE])))
    assert keys[:, 0].tolist() == [12843208602925690533, 6071474461881648168]


def test_texts_are_sketched_alike_alone_and_among_many() -> None:
    texts = pl.Series([*generated(50), "", "otter", JAPANESE * 400])
    whole = bucket_keys(shingle(texts))
    for row in (0, 17, 50, 51, 52):
        alone = bucket_keys(shingle(texts[row : row + 1]))
        assert (alone[0] == whole[row]).all()


def test_edited_copies_share_a_bucket_as_often_as_the_formula_says() -> None:
    texts = generated(300)
    copies = [edited(text, 0.1, seed) for seed, text in enumerate(texts)]
    shingles = shingle(pl.Series(texts + copies))
    keys = bucket_keys(shingles)
    rows = np.arange(len(texts))
    found = (keys[rows] == keys[rows + len(texts)]).any(axis=1)
    expected = [1 - (1 - s**4) ** BANDS for s in similarities(shingles, rows, shingles, rows + len(texts), 0.0)]
    assert abs(found.mean() - np.mean(expected)) < 0.05


def test_unlike_texts_seldom_share_a_bucket() -> None:
    keys = bucket_keys(shingle(pl.Series(generated(400))))
    pairs = sum(len(column) - len(np.unique(column)) for column in keys.T)
    assert pairs < 200  # of 79,800 pairs in 20 bands


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(max_size=40), max_size=8))
def test_any_text_has_shingles_and_is_like_itself(texts: list[str]) -> None:
    kept = [text.encode("utf-8", "ignore").decode() for text in texts]
    shingles = shingle(pl.Series(kept, dtype=pl.String))
    assert len(shingles) == len(kept) == len(bucket_keys(shingles))
    rows = np.arange(len(kept))
    assert (np.diff(shingles.starts) >= 1).all()
    assert similarities(shingles, rows, shingles, rows, 1.0) == [1.0] * len(kept)


def test_plain_keeps_what_changes_the_meaning() -> None:
    assert plain(pl.Series(["C# & C", "???", "5%"])).to_list() == ["c# & c", "???", "5%"]
