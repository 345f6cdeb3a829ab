"""Candidates that nearly repeat a positive of their query are found, and taken out if that is wanted."""

import polars as pl
import pytest

from tasks import schemas
from tasks.guards.config import RepeatsConfig
from tasks.guards.repeats import fill_up, find_repeats, guard_positives
from tasks.guards.tables import REPEATS
from tasks.rejects import REASONS
from tasks.schemas import BY_PEOPLE
from tests.tasks.guards.edits import edited, generated
from tests.tasks.guards.tables import candidates_of, negatives_of, passages_of, positives_of

POSITIVE, *OTHERS = generated(8, seed=3)
TEXTS = {
    "pos": POSITIVE,
    "near": edited(POSITIVE, 0.05, 1),
    "nearer": POSITIVE.upper(),
    **{f"x{n}": text for n, text in enumerate(OTHERS)},
}
PAIRS = [("q1", doc_id, TEXTS[doc_id]) for doc_id in ("near", "x0", "nearer", "x1", "x2")]
CANDIDATES = candidates_of([*PAIRS, ("q2", "near", TEXTS["near"]), ("q2", "x3", TEXTS["x3"])])
POSITIVES = positives_of([("q1", "pos", POSITIVE), ("q1", "x5", TEXTS["x5"]), ("q2", "x4", TEXTS["x4"])])


def guarded(*, drop: bool, candidates: pl.DataFrame = CANDIDATES) -> dict[str, pl.DataFrame]:
    of_q1 = candidates.filter(pl.col("query_id") == "q1")
    return guard_positives(
        RepeatsConfig(drop=drop),
        candidates=candidates,
        negatives=negatives_of(of_q1, "near", "x0"),
        reserve=negatives_of(of_q1, "nearer", "x1", "x2"),
        positives=POSITIVES,
        texts=passages_of(TEXTS),
    )


def test_a_candidate_near_a_positive_of_its_own_query_is_reported_and_stays() -> None:
    made = guarded(drop=False)
    assert made["repeats"].select("query_id", "doc_id", "positive").rows() == [
        ("q1", "near", "pos"),
        ("q1", "nearer", "pos"),
    ]
    assert made["repeats"]["similarity"][1] == 1.0
    assert made["candidates"].height == CANDIDATES.height
    assert made["negatives"]["doc_id"].to_list() == ["near", "x0"]
    assert made["rejects"]["reason"].to_list() == ["near_positive_kept"] * 2
    assert {REASONS[name].kind for name in ("near_positive", "near_positive_kept")} == {"choice", "note"}


def test_dropped_ones_leave_the_pool_and_negatives_are_filled_up_from_the_reserve() -> None:
    made = guarded(drop=True)
    assert made["candidates"]["doc_id"].to_list() == ["x0", "x1", "x2", "near", "x3"]  # `near` is of another query
    assert made["negatives"].select("doc_id", "rank").rows() == [("x0", 1), ("x1", 2)]
    assert made["reserve"].select("doc_id", "rank").rows() == [("x2", 1)]
    assert made["rejects"].select("key", "reason").rows() == [
        ("d/q1/near", "near_positive"),
        ("d/q1/nearer", "near_positive"),
    ]
    counts = dict(made["figures"].filter(pl.col("measure") != "example").select("measure", "value").iter_rows())
    assert counts == {"candidates": 7, "found": 2, "queries": 1, "dropped": 2}
    for name, schema in (("candidates", schemas.CANDIDATES), ("negatives", schemas.NEGATIVES), ("repeats", REPEATS)):
        assert made[name].schema == schema.empty().schema


def test_what_people_called_irrelevant_is_never_dropped() -> None:
    made = guarded(drop=True, candidates=CANDIDATES.with_columns(retriever=pl.lit(BY_PEOPLE)))
    assert made["repeats"].height == 2
    assert made["candidates"].height == CANDIDATES.height


def test_empty_tables_give_empty_tables_and_a_missing_text_is_an_error() -> None:
    assert find_repeats(0.6, CANDIDATES.clear(), POSITIVES, passages_of({})).equals(REPEATS.empty())
    with pytest.raises(ValueError, match="did not come"):
        find_repeats(0.6, CANDIDATES, POSITIVES, passages_of({"pos": POSITIVE}))


def test_one_word_texts_and_chinese_ones_are_compared() -> None:
    words = {"p": "Otter", "a": "otter!", "b": "heron", "c": "水獭", "d": "水獭。"}
    candidates = candidates_of([("q", name, words[name]) for name in ("a", "b", "d")])
    positives = positives_of([("q", "p", words["p"]), ("q", "c", words["c"])])
    found = find_repeats(0.6, candidates, positives, passages_of(words))
    assert found.select("doc_id", "positive").rows() == [("a", "p"), ("d", "c")]


def test_nothing_is_filled_up_beyond_what_there_was() -> None:
    candidates = candidates_of([("q1", name, name) for name in "abcd"])
    before = negatives_of(candidates, "a", "b")
    first, rest = fill_up(before, before.clear(), negatives_of(candidates, "c"))
    assert (first["doc_id"].to_list(), rest.height) == (["c"], 0)
