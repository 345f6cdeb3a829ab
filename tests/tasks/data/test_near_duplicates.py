"""Near-duplicates of queries: what is the same, what is near, and that the numbers never change."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.near_duplicates import near_pairs, nearest_of, sketch

LONG = "how can i reduce my belly fat through a diet that is rich in vegetables and fish"


def pairs_of(*texts: str, similarity: float = 0.8) -> list[tuple[int, int]]:
    return list(near_pairs(sketch(pl.Series(texts)), similarity).iter_rows())


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("How do I boil an egg?", "how do i boil an EGG"),
        ("how  do I boil\tan egg ?!", "“How do I boil an egg”"),
        ("where is the ﬁsh", "Where is the fish?"),
        ("straße", "STRASSE"),
        ("???", "???"),
        ("卵の茹で方は？", "卵の茹で方は"),
    ],
)
def test_case_punctuation_unicode_form_and_spaces_make_no_difference(text: str, other: str) -> None:
    same = sketch(pl.Series([text, other]))["same"]
    assert same[0] == same[1]
    assert pairs_of(text, other) == [(0, 1)]


@pytest.mark.parametrize(("text", "other"), [("what is C#", "what is C"), ("???", "!!!"), ("a b", "ab"), ("", "?")])
def test_what_changes_the_meaning_is_not_the_same(text: str, other: str) -> None:
    assert sketch(pl.Series([text, other]))["same"].n_unique() == 2


def test_a_word_more_is_near_and_another_number_is_not() -> None:
    assert pairs_of(LONG, f"{LONG} please", "where does the otter live") == [(0, 1)]
    assert pairs_of(f"{LONG} in 2010", f"{LONG} in 2011") == []
    assert pairs_of(f"{LONG} in 2010", f"{LONG} in 2010 please") == [(0, 1)]


def test_the_limit_of_similarity_decides() -> None:
    texts = (LONG, LONG.replace("vegetables", "chocolate"))
    assert pairs_of(*texts, similarity=0.6) == [(0, 1)]
    assert pairs_of(*texts, similarity=0.95) == []


def test_signatures_are_the_same_for_ever() -> None:
    """Other numbers would move queries between training and test."""
    signature = sketch(pl.Series(["how do i boil an egg", "egg"]))["signature"]
    assert signature[0][:3].to_list() == [126696100, 256752558, 45427685]
    assert sketch(pl.Series(["egg"]))["signature"][0].to_list() == signature[1].to_list()


def test_texts_are_sketched_alike_alone_and_among_many() -> None:
    texts = pl.Series([f"{LONG} {'word ' * (number % 700)}" for number in range(300)])
    whole = sketch(texts)
    assert whole.slice(290, 5).equals(sketch(texts.slice(290, 5)))


def test_the_nearest_of_others_is_found_and_nothing_in_empty_tables() -> None:
    ours, others = (sketch(pl.Series(texts)) for texts in ([f"{LONG} please", "otter", "Heron?"], ["x", LONG, "heron"]))
    assert nearest_of(ours, others, 0.8).to_list() == [1, None, 2]
    assert nearest_of(ours, others, 2.0).to_list() == [None, None, 2]
    assert nearest_of(ours, others.clear(), 0.8).to_list() == [None, None, None]
    assert nearest_of(ours.clear(), others, 0.8).to_list() == []
    assert near_pairs(ours.clear(), 0.8).is_empty()


def test_many_texts_in_one_bucket_cost_few_comparisons_and_form_one_chain() -> None:
    found = near_pairs(sketch(pl.Series([LONG] * 2_000)), 0.8)
    assert found.height < 2_000 * 10
    assert set(found["right"]) == set(range(1, 2_000))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=12))
def test_any_texts_are_sketched_and_equal_ones_are_near(texts: list[str]) -> None:
    clean = [text.encode("utf-8", "ignore").decode() for text in texts]
    sketches = sketch(pl.Series(clean, dtype=pl.String))
    found = set(near_pairs(sketches, 1.0).iter_rows())
    for right, text in enumerate(clean):
        for left in range(right):
            if clean[left] == text:
                assert (left, right) in found
