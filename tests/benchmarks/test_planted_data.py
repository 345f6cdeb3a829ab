"""The collections of the planted benchmark: folds, and what is hidden among the negatives."""

from pathlib import Path

import polars as pl

from benchmarks.planted_data import FOLDS, MOST_HIDDEN, PICKED, deal, describe, text_of
from tests.benchmarks.planted_toy import toy

PAIR = ["query_id", "doc_id"]


def test_one_positive_stays_and_the_others_are_hidden_among_the_picked_negatives(tmp_path: Path) -> None:
    collection, planted = toy(tmp_path)
    per_query = planted.hidden.group_by("query_id").len()
    assert per_query.height == 9 and set(per_query["len"]) == {3}
    assert planted.positives.group_by("query_id").len()["len"].max() == 1
    assert planted.hidden.join(planted.negatives, on=PAIR, how="anti").is_empty()
    assert planted.hidden.join(collection.qrels, on=PAIR, how="anti").is_empty()
    assert planted.hidden.join(planted.positives, on=PAIR).is_empty()
    assert set(planted.negatives.group_by("query_id").len()["len"]) == {PICKED}
    assert MOST_HIDDEN < PICKED


def test_no_other_negative_is_relevant_or_of_unknown_relevance(tmp_path: Path) -> None:
    collection, planted = toy(tmp_path)
    others = planted.candidates.join(planted.hidden, on=PAIR, how="anti")
    assert others.join(collection.qrels, on=PAIR).is_empty()
    assert ("q0", "n0") not in others.select(PAIR).rows()
    assert "empty" not in set(collection.passages["doc_id"])


def test_the_positive_that_stays_is_of_the_highest_grade(tmp_path: Path) -> None:
    collection, planted = toy(tmp_path)
    grades = planted.positives.join(collection.qrels, on=PAIR)["relevance"]
    assert set(grades) == {2}


def test_a_conversation_is_in_one_fold_and_the_folds_are_of_equal_size() -> None:
    ids = [f"c{n}<::>{turn}" for n in range(10) for turn in range(n % 3 + 1)]
    dealt = deal(pl.Series(ids))
    assert dealt.group_by("group").agg(pl.col("fold").n_unique())["fold"].max() == 1
    sizes = dealt.group_by("fold").len()["len"]
    assert sizes.len() == FOLDS and int(sizes.max() or 0) - int(sizes.min() or 0) <= 1  # type: ignore[call-overload]


def test_splits_follow_the_folds(tmp_path: Path) -> None:
    collection, _ = toy(tmp_path)
    split = collection.with_splits({0: "test", 1: "dev"}).queries.join(collection.groups, on="query_id")
    assert set(split.filter(pl.col("fold") == 0)["split"]) == {"test"}
    assert set(split.filter(pl.col("fold") == 1)["split"]) == {"dev"}
    assert set(split.filter(pl.col("fold") > 1)["split"]) == {"train"}


def test_a_turn_that_does_not_stand_alone_has_the_turns_before_it() -> None:
    row = {"text": "and when?", "text_with_history": "who was it? and when?", "standalone_rewrite": False}
    assert text_of(row) == "who was it? and when?"
    assert text_of(row | {"standalone_rewrite": True}) == "and when?"


def test_the_description_counts_what_is_planted(tmp_path: Path) -> None:
    found = describe(*toy(tmp_path))
    assert (found["planted"], found["rows_with_planted"], found["negatives"]) == (27, 9, 70)
