"""The judges of the planted benchmark: who is asked, and how the tiers are added up."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.planted_data import Collection, Planted
from benchmarks.planted_judges import (
    ASKED_FROM,
    ASKED_TO,
    asked_of,
    by_similarity,
    choose_threshold,
    combine,
    measure,
    other_of,
    weigh,
    with_threshold,
)
from tasks.schemas import VERDICTS
from tests.benchmarks.planted_toy import TOPICS, WORDS, toy

PAIR = ["dataset", "query_id", "doc_id"]


class Encoder:
    """Encodes a text by the words that it has."""

    def encode(self, texts: Sequence[str], role: str) -> pl.Series:
        del role
        words = [*WORDS, *TOPICS]
        counts = np.array([[text.split().count(word) for word in words] for text in texts], dtype=np.float32)
        return pl.Series(counts / np.linalg.norm(counts, axis=1, keepdims=True), dtype=pl.Array(pl.Float32, len(words)))


@pytest.fixture
def case(tmp_path: Path) -> tuple[Collection, Planted, pl.DataFrame]:
    collection, planted = toy(tmp_path)
    return collection, planted, with_threshold(by_similarity(collection, planted, Encoder())["verdicts"], 0.5)


def answers(asked: pl.DataFrame, score: float) -> pl.DataFrame:
    said = asked.select(*PAIR, tier=pl.lit("llm"), judge=pl.lit("me"), state=pl.lit("relevant"), score=pl.lit(score))
    more = {name: pl.lit(None, dtype) for name, dtype in VERDICTS.columns.items() if name not in said.columns}
    return said.with_columns(**more).with_columns(attempt=pl.lit(1, pl.Int32)).select(*VERDICTS.columns)


def test_only_picked_pairs_near_the_thresholds_are_asked_about_and_no_more_than_allowed(
    case: tuple[Collection, Planted, pl.DataFrame],
) -> None:
    _, planted, verdicts = case
    asked = asked_of(planted, verdicts, 1000)
    scores = verdicts.join(asked, on=PAIR, how="semi")["score"]
    assert asked.height and scores.is_between(ASKED_FROM, ASKED_TO).all()
    assert asked.join(planted.negatives, on=PAIR, how="anti").is_empty()
    assert asked_of(planted, verdicts, 5).height <= asked.height


def test_the_tiers_are_added_where_the_language_model_was_asked_and_similarity_decides_elsewhere(
    case: tuple[Collection, Planted, pl.DataFrame],
) -> None:
    _, planted, verdicts = case
    asked = asked_of(planted, verdicts, 10)
    made = combine(planted, verdicts, answers(asked, 0.95), 0.5)
    assert made.decisions.height == planted.candidates.height and made.facts["asked"] == asked.height
    both = made.decisions.join(verdicts.select(*PAIR, first="score", before="state"), on=PAIR)
    rest = both.join(asked, on=PAIR, how="anti")
    assert (rest["score"] == rest["first"]).all() and (rest["state"] == rest["before"]).all()
    config = weigh(0.5)
    one = both.join(asked, on=PAIR, how="semi").row(0, named=True)
    odds = config.weights["similarity"] * np.log(one["first"] / (1 - one["first"]))
    odds += config.weights["llm"] * np.log(0.95 / 0.05) + config.bias
    assert one["score"] == pytest.approx(1 / (1 + np.exp(-odds)))


def test_the_threshold_is_the_one_with_the_best_f1(case: tuple[Collection, Planted, pl.DataFrame]) -> None:
    _, planted, verdicts = case
    chosen = choose_threshold(planted, verdicts)

    def f1(threshold: float) -> float:
        found = measure(planted, with_threshold(verdicts, threshold))
        recall, precision = found["recall_of_planted"], found["precision_on_planted"]
        return float(2 * recall * precision / max(recall + precision, 1e-9))

    assert f1(chosen - 1e-4) >= max(f1(one) for one in np.linspace(0.05, 0.95, 91)) - 1e-3
    assert other_of("cranfield") == "mtrag" and other_of("mtrag") == "cranfield"


def test_states_follow_the_threshold(case: tuple[Collection, Planted, pl.DataFrame]) -> None:
    _, _, verdicts = case
    said = with_threshold(verdicts, 0.6).select("score", "state").unique()
    bands = {"relevant": (0.6, 1.0), "unsure": (0.36, 0.6), "not_relevant": (0.0, 0.36)}
    assert said.height and all(bands[state][0] <= score <= bands[state][1] for score, state in said.iter_rows())


def test_nobody_need_be_asked(case: tuple[Collection, Planted, pl.DataFrame]) -> None:
    _, planted, verdicts = case
    made = combine(planted, verdicts, VERDICTS.empty(), 0.5)
    assert made.facts["asked"] == 0 and made.decisions["score"].to_list() == verdicts["score"].to_list()


def test_recall_and_precision_count_what_was_planted(case: tuple[Collection, Planted, pl.DataFrame]) -> None:
    _, planted, verdicts = case
    all_called = measure(planted, verdicts.with_columns(state=pl.lit("relevant")))
    assert all_called["recall_of_planted"] == 1
    assert all_called["precision_on_planted"] == pytest.approx(27 / 70, abs=1e-4)
    assert measure(planted, verdicts.with_columns(state=pl.lit("unsure")))["recall_of_planted"] == 0
