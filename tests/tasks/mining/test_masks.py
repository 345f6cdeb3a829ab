"""Masks: what cannot be a negative of a query, by which form of its text, and by its id where that says something."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import schemas
from tasks.mining.masks import (
    SAME_ID_AS_QUERY,
    SAME_TEXT_AS_CANDIDATE,
    SAME_TEXT_AS_POSITIVE,
    SAME_TEXT_AS_QUERY,
    SameId,
    find_own,
    find_repeats,
    hash_hits,
    is_near,
    mask,
    split_masked,
)
from tasks.texts import hash_guard, hash_passage, hash_shown, hash_text, normalise, show_passage

Passage = tuple[str, str, str]  # id, title, text


def _queries(*rows: tuple[str, str], split: str = "train") -> pl.DataFrame:
    full = [("d", query_id, text, hash_text(text), split) for query_id, text in rows]
    return pl.DataFrame(full, schema=schemas.QUERIES.columns, orient="row")


def _passages(*rows: Passage) -> pl.DataFrame:
    full = [("d", doc_id, title, text, hash_passage(title, text)) for doc_id, title, text in rows]
    return pl.DataFrame(full, schema=schemas.PASSAGES.columns, orient="row")


def _positives(query_id: str, *rows: Passage) -> pl.DataFrame:
    full = [
        ("d", query_id, doc, hash_passage(title, text), hash_shown(title, text), hash_guard(title, text), "label")
        for doc, title, text in rows
    ]
    return pl.DataFrame(full, schema=schemas.POSITIVES.columns, orient="row")


def _reasons(
    query: tuple[str, str], passages: list[Passage], positives: list[Passage], same_id: SameId = "auto"
) -> dict[str, str | None]:
    """The reason of each passage, all of them hits of the query in this order."""
    queries, corpus = _queries(query), _passages(*passages)
    pairs = corpus.select("dataset", "doc_id", "text_hash", query_id=pl.lit(query[0]))
    marked = mask(hash_hits(pairs, queries, corpus), positives=_positives(query[0], *positives), same_id=same_id)
    return dict(marked.select("doc_id", "reason").iter_rows())


def test_the_query_s_own_text_is_masked_whatever_its_case_spaces_and_title() -> None:
    asked = ("1", "How do I boil an egg?")
    reasons = _reasons(
        asked,
        [
            ("a", "", "How do I boil an egg?"),
            ("b", "", "how do I  boil an EGG?"),
            ("c", "How do I", "boil an egg?"),
            ("d", "Eggs", "How do I boil an egg?"),
            ("e", "How do I boil an egg?", "Put it into hot water."),
        ],
        [],
    )
    assert reasons == dict.fromkeys("abcd", SAME_TEXT_AS_QUERY) | {"e": None}


@pytest.mark.parametrize(
    ("same_id", "near", "other"), [("auto", True, False), (True, True, True), (False, False, False)]
)
def test_an_equal_id_counts_where_the_texts_are_near_the_same_or_the_settings_say_so(
    same_id: SameId, near: bool, other: bool
) -> None:
    text = ("7", "", "What are the best ways to learn to swim quickly, please?")
    masked = _reasons(("7", "What are the best ways to learn to swim quickly"), [text], [], same_id)
    assert (masked["7"] == SAME_ID_AS_QUERY) is near
    cranfield = ("7", "", "An experimental study of a wing in a propeller slipstream.")
    masked = _reasons(("7", "what laws must be obeyed by heated models"), [cranfield], [], same_id)
    assert (masked["7"] == SAME_ID_AS_QUERY) is other


def test_a_copy_of_a_positive_is_masked_and_the_reject_says_which_form_matched() -> None:
    positive = ("p", "Otters", "live near rivers")
    hits = [
        positive,
        ("cut", "", "Otters live near rivers"),
        ("case", "", "otters live  near RIVERS"),
        ("other", "", "Otters eat fish"),
    ]
    queries, corpus = _queries(("1", "where do otters live")), _passages(*hits)
    pairs = corpus.select("dataset", "doc_id", "text_hash", query_id=pl.lit("1"))
    marked = mask(hash_hits(pairs, queries, corpus), positives=_positives("1", positive))
    kept, rejects = split_masked("mine", marked)
    assert kept["doc_id"].to_list() == ["other"]
    hashes = {doc: hash_passage(title, text) for doc, title, text in hits}
    assert rejects.rows() == [
        ("mine", "d/1/cut", SAME_TEXT_AS_POSITIVE, f"shown text {hashes['cut']}"),
        ("mine", "d/1/case", SAME_TEXT_AS_POSITIVE, f"normalised text {hashes['case']}"),
    ]


def test_of_copies_among_the_candidates_the_first_stays() -> None:
    hits: list[Passage] = [("b", "", "Otters eat fish"), ("a", "Otters", "eat fish"), ("c", "", "OTTERS eat fish")]
    assert _reasons(("1", "q"), hits, []) == {"b": None, "a": SAME_TEXT_AS_CANDIDATE, "c": SAME_TEXT_AS_CANDIDATE}


def test_a_positive_that_is_the_query_s_own_text_is_no_reject() -> None:
    own = ("1", "", "How do I boil an egg?")
    assert _reasons(("1", own[2]), [own], [own]) == {"1": "positive"}


def test_the_masks_of_one_query_do_not_touch_another() -> None:
    queries = _queries(("1", "one"), ("2", "two"))
    corpus = _passages(("a", "", "one"), ("b", "", "two"))
    pairs = queries.select("dataset", "query_id").join(corpus.select("doc_id", "text_hash"), how="cross")
    marked = mask(hash_hits(pairs, queries, corpus), positives=schemas.POSITIVES.empty())
    free = marked.filter(pl.col("reason").is_null()).select("query_id", "doc_id").rows()
    assert sorted(free) == [("1", "b"), ("2", "a")]


def test_repeats_are_found_by_hashes_alone_where_there_are_no_texts() -> None:
    given_ = _positives("1", ("a", "", "ONE"), ("b", "", "one"), ("c", "", "two")).drop("source")
    assert find_repeats(given_, _queries(("1", "one")))["repeats"].to_list() == ["normalised text", "shown text", None]


def test_own_passages_are_found_in_all_datasets_without_building_all_pairs() -> None:
    queries = pl.concat(
        [_queries(("1", "one"), ("2", "two")), _queries(("1", "one")).with_columns(dataset=pl.lit("e"))]
    )
    passages = pl.concat([_passages(("x", "", "ONE"), ("2", "", "else")), _passages(("y", "", "one"))])
    found = find_own(queries, passages)
    assert found.select("dataset", "query_id", "doc_id").rows() == [("d", "1", "x"), ("d", "1", "y")]
    assert find_own(queries, passages, same_id=True)["doc_id"].to_list() == ["x", "y", "2"]
    assert find_own(queries, passages.clear()).is_empty()


def test_texts_without_words_are_not_near() -> None:
    assert not is_near("", "", "")


WORDS = st.lists(st.sampled_from(["an", "egg", "Egg", "EGG", "boil", "\u00e9", "e\u0301"]), min_size=1, max_size=3)
TEXTS = st.builds(lambda words, space: space.join(words), WORDS, st.sampled_from([" ", "  "]))
PASSAGES = st.lists(st.tuples(st.sampled_from(["", "boil"]), TEXTS), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(TEXTS, PASSAGES, st.data())
def test_each_hit_is_kept_or_masked_for_one_reason_and_no_kept_one_equals_a_positive_the_query_or_another(
    query: str, texts: list[tuple[str, str]], data: st.DataObject
) -> None:
    passages = [(f"p{n}", title, text) for n, (title, text) in enumerate(texts)]
    positives = data.draw(st.lists(st.sampled_from(passages), max_size=2, unique=True))
    queries, corpus = _queries(("q", query)), _passages(*passages)
    pairs = corpus.select("dataset", "doc_id", "text_hash", query_id=pl.lit("q"))
    kept, rejects = split_masked("mine", mask(hash_hits(pairs, queries, corpus), positives=_positives("q", *positives)))
    silent = {doc for doc, _, _ in positives}
    assert len(kept) + len(rejects) + len(silent) == len(passages)
    assert rejects["reason"].null_count() == rejects["detail"].null_count() == 0
    shown = {doc: normalise(show_passage(title, text)) for doc, title, text in passages}
    free = [shown[doc] for doc in kept["doc_id"]]
    assert len(set(free)) == len(free)
    assert not set(free) & ({shown[doc] for doc in silent} | {normalise(query)})
