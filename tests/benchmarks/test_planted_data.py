"""The collections of the planted benchmark: splits, and what is hidden among the negatives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.planted_data import PICKED, RESERVE, Collection, _choose, describe, picked, plant, text_of
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
    assert planted.negatives.select(PAIR).unique().height == PICKED * collection.queries.height


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


def test_those_are_hidden_that_the_mining_model_ranks_first_and_one_negative_is_mined() -> None:
    rows = [(f"p{n}", f"g{n}", 2 if n == 0 else 1, False) for n in range(5)]
    frame = pl.DataFrame(rows, schema=["doc_id", "guard_hash", "relevance", "elsewhere"], orient="row")
    scores = {f"p{n}": n / 10 for n in range(5)}
    own, secret = _choose(frame, scores, 3, np.random.default_rng(0))
    assert (own, secret) == (["p0"], ["p4", "p3", "p2"])
    assert _choose(frame[:1], scores, 3, np.random.default_rng(0)) == (["p0"], [])


def test_nothing_is_hidden_that_a_query_of_another_fold_looks_for(tmp_path: Path) -> None:
    collection, before = toy(tmp_path)
    fold = dict(collection.groups.select("query_id", "fold").iter_rows())
    other = next(one for one in fold if fold[one] != fold["q0"])
    shared = before.hidden.filter(query_id="q0")["doc_id"][0]
    extra = pl.DataFrame([("toy", other, shared, 1)], schema=collection.qrels.schema, orient="row")
    more = replace(collection, qrels=pl.concat([collection.qrels, extra]))
    after = plant(more, np.ones((collection.queries.height, collection.passages.height), dtype=np.float32))
    assert shared not in set(after.hidden["doc_id"]) and after.hidden.height >= before.hidden.height - 2
    assert isinstance(more, Collection)


def test_each_row_has_its_number_of_negatives_and_a_reserve(tmp_path: Path) -> None:
    assert (picked("cranfield"), picked("mtrag"), RESERVE) == (7, 4, 25)
    collection, planted = toy(tmp_path)
    least = planted.reserve.group_by("query_id").len()["len"].to_numpy().min()
    assert least == RESERVE and collection.passages.height > PICKED + RESERVE


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
