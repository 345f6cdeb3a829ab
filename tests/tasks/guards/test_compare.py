"""Pairs of texts are compared exactly."""

import polars as pl
import pytest

from tasks.guards.compare import compare_texts
from tasks.guards.config import NearConfig
from tasks.guards.tables import LINKS, NEAR, NEAR_CANDIDATES
from tests.tasks.guards.tables import passages_of

NEAR_TEXTS = {"a": "the otter sleeps in the river", "b": "The otter sleeps in the river!", "c": "a heron eats fish"}


def pairs_of(texts: dict[str, str], *pairs: tuple[str, str]) -> pl.DataFrame:
    hashes = dict(passages_of(texts).select("doc_id", "text_hash").iter_rows())
    ordered = [sorted(pair, key=hashes.__getitem__) for pair in pairs]
    rows = [(*("d", left, hashes[left]), *("d", right, hashes[right])) for left, right in ordered]
    return pl.DataFrame(rows, schema=NEAR_CANDIDATES.columns, orient="row")


def test_near_pairs_stay_each_once_with_their_similarity() -> None:
    pairs = pairs_of(NEAR_TEXTS, ("a", "b"), ("a", "c"), ("a", "b"))
    texts = passages_of(NEAR_TEXTS)
    made = compare_texts(NearConfig(similarity=0.6), pairs=pairs, texts=pl.concat([texts, texts]))
    assert made["near"].schema == NEAR.empty().schema
    assert {*made["near"].select("left_doc_id", "right_doc_id").row(0)} == {"a", "b"}
    assert made["near"]["similarity"].to_list() == [1.0]
    hashes = made["near"].select("left_hash", "right_hash").row(0)
    assert made["links"].rows() == [tuple(int(text[:15], 16) for text in hashes)]


def test_without_pairs_there_is_nothing() -> None:
    made = compare_texts(NearConfig(), pairs=NEAR_CANDIDATES.empty(), texts=passages_of({}))
    assert made["near"].equals(NEAR.empty())
    assert made["links"].schema == LINKS.empty().schema


def test_a_missing_text_is_an_error() -> None:
    pairs = pairs_of(NEAR_TEXTS, ("a", "b"))
    with pytest.raises(ValueError, match="its passage did not come"):
        compare_texts(NearConfig(), pairs=pairs, texts=passages_of({"a": NEAR_TEXTS["a"]}))
