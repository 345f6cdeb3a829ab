"""The reranker of the planted benchmark: its features, and that it tells what was planted elsewhere."""

from pathlib import Path

import polars as pl
import pytest

from benchmarks.planted_data import Collection, Planted
from benchmarks.planted_judges import by_similarity
from benchmarks.planted_teacher import fit, pairs_of, score
from tests.benchmarks.planted_toy import toy
from tests.benchmarks.test_planted_judges import Encoder

PAIR = ["dataset", "query_id", "doc_id"]
Case = tuple[Collection, Planted, pl.DataFrame]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    collection, planted = toy(tmp_path)
    features = by_similarity(collection, planted, Encoder())["features"]
    return collection, planted, pairs_of(collection, planted, features)


def test_candidates_and_positives_have_a_cosine_and_a_share_of_the_querys_words(case: Case) -> None:
    collection, planted, pairs = case
    assert pairs.height == planted.candidates.height + planted.positives.height
    assert pairs.null_count().sum_horizontal().item() == 0
    about = pairs.filter(query_id="q0").join(collection.passages.select("doc_id", "text"), on="doc_id")
    is_of_cats = about["text"].str.contains("cats")  # the only word of "what about cats" that a passage can have
    assert is_of_cats.any() and not is_of_cats.all()
    assert ((about["words"] > 0) == is_of_cats).all()
    assert pairs["words"].is_between(0, 1).all()


def test_it_gives_what_was_planted_higher_probabilities(case: Case) -> None:
    _, planted, pairs = case
    scored = score(fit(pairs, planted), pairs)
    assert scored.columns == ["dataset", "query_id", "doc_id", "score"] and scored["score"].is_between(0, 1).all()
    hidden = scored.join(planted.hidden, on=["query_id", "doc_id"], how="semi")
    others = scored.join(planted.negatives, on=PAIR, how="semi").join(planted.hidden, on=PAIR[1:], how="anti")
    assert hidden["score"].to_numpy().mean() > others["score"].to_numpy().mean() + 0.2
