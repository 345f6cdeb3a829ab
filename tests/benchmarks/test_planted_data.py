"""The collections of the planted benchmark: splits, and what is hidden among the negatives."""

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.planted_data import PICKED, RESERVE, _choose, describe, picked, plant, read_collection, text_of
from tests.benchmarks.planted_toy import toy, write_toy

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
    rows = [(f"p{n}", f"g{n}", 2 if n == 0 else 1) for n in range(5)]
    frame = pl.DataFrame(rows, schema=["doc_id", "guard_hash", "relevance"], orient="row")
    scores = {f"p{n}": n / 10 for n in range(5)}
    own, secret = _choose(frame, scores, 3, np.random.default_rng(0))
    assert (own, secret) == (["p0"], ["p4", "p3", "p2"])
    assert _choose(frame[:1], scores, 3, np.random.default_rng(0)) == (["p0"], [])


def test_rows_are_made_of_passages_of_their_querys_fold_and_so_is_the_test(tmp_path: Path) -> None:
    collection, planted = toy(tmp_path)
    fold = collection.groups.select("query_id", "fold")
    for table in (planted.positives, planted.candidates, planted.hidden):
        homes = table.join(fold, on="query_id").join(collection.homes, on="doc_id", suffix="_home")
        assert homes.height == table.height and (homes["fold"] == homes["fold_home"]).all()
    part = collection.with_splits({2: "test"}).part("test")
    used = set(planted.candidates.join(fold.filter(pl.col("fold") != 2), on="query_id")["doc_id"])
    assert part["queries"].height == 2 and not used & set(part["passages"]["doc_id"])
    assert part["qrels"].join(part["passages"], on="doc_id", how="anti").is_empty()
    assert set(part["qrels"]["query_id"]) == set(part["queries"]["query_id"])


def test_another_deal_changes_the_folds_and_the_positives_that_stay(tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy")
    first, again, other = (read_collection(folder, seed) for seed in (20, 20, 21))
    scores = np.random.default_rng(0).random((first.queries.height, first.passages.height)).astype(np.float32)
    kept = [plant(one, scores).positives.select(PAIR).sort(PAIR) for one in (first, again, other)]
    assert first.groups.equals(again.groups) and kept[0].equals(kept[1])
    assert not first.groups.equals(other.groups) and not kept[0].equals(kept[2])


def test_a_label_between_folds_is_left_out(tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy")
    labels = (folder / "qrels" / "test.tsv").read_text()
    (folder / "qrels" / "test.tsv").write_text(labels + "".join(f"\nq{n}\tp0-3\t1" for n in range(1, 10)))
    found = read_collection(folder)
    assert found.left_out == 8 and found.qrels.filter(doc_id="p0-3")["query_id"].len() == 2
    assert found.queries.height == 10


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
