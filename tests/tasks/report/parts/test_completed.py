"""Scores by both sets of labels stand side by side, with what the judges said and why to be careful."""

import json
from typing import Any

import polars as pl
import pytest

from tasks.evaluation.pool import JUDGED
from tasks.report.parts.completed import CAUTION, CompletedLabels, sum_up_completed
from tasks.schemas import SCORES, VERDICTS

PAIR = ("default", "relabel")


def scores(**of_model: dict[str, list[float]]) -> pl.DataFrame:
    rows = [
        (model, "d", measure, f"q{number}", value, 42)
        for model, measures in of_model.items()
        for measure, values in measures.items()
        for number, value in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row")


def decisions(**states: int) -> pl.DataFrame:
    names = [state for state, count in states.items() for _ in range(count)]
    columns = ("dataset", "query_id", "doc_id", "state")
    rows = [("d", f"q{number % 2}", f"p{number}", state) for number, state in enumerate(names)]
    return pl.DataFrame(rows, schema={name: VERDICTS.columns[name] for name in columns}, orient="row")


LABELLED = scores(
    default={"nDCG@10": [0.2, 0.4], JUDGED: [0.1, 0.1], "AP": [0.1, 0.1]},
    relabel={"nDCG@10": [0.3, 0.5], JUDGED: [0.1, 0.2], "AP": [0.1, 0.1]},
)
COMPLETED = scores(
    default={"nDCG@10": [0.4, 0.6], JUDGED: [0.9, 0.8], "AP": [0.1, 0.1]},
    relabel={"nDCG@10": [0.7, 0.9], JUDGED: [1.0, 0.9], "AP": [0.1, 0.1]},
)


def summed(**changes: Any) -> CompletedLabels:
    said = decisions(relevant=3, unsure=2, not_relevant=1)
    found = sum_up_completed(
        **{"labelled": LABELLED, "completed": COMPLETED, "decisions": said, **changes}, depth=20, pair=PAIR
    )
    assert found is not None
    return found


def test_both_means_of_each_model_and_both_differences_are_told() -> None:
    found = summed()
    assert [line.measure for line in found.lines] == ["nDCG@10", "AP", JUDGED]
    first = found.lines[0]
    assert first.means["default"] == pytest.approx((0.3, 0.5))
    assert first.means["relabel"] == pytest.approx((0.4, 0.8))
    assert first.labelled is not None
    assert first.completed is not None
    assert (first.labelled.difference, first.completed.difference) == pytest.approx((0.1, 0.3))
    assert (found.pairs, found.queries, found.depth) == (6, 2, 20)
    assert found.states == {"relevant": 3, "not_relevant": 1, "unsure": 2, "unparsed": 0}


def test_the_summary_has_both_sets_and_the_caution() -> None:
    told = json.loads(json.dumps(summed().as_json()))
    assert told["measures"][JUDGED]["relabel"] == pytest.approx({"labelled": 0.15, "completed": 0.95})
    assert told["comparisons"]["nDCG@10"]["completed"]["difference"] == pytest.approx(0.3)
    assert (told["pairs"], told["states"]["unsure"], told["caution"]) == (6, 2, CAUTION)
    assert "prove no gain" in CAUTION


def test_models_that_are_not_compared_still_have_their_means() -> None:
    alone = {"labelled": LABELLED.filter(model="default"), "completed": COMPLETED.filter(model="default")}
    found = summed(**alone)
    assert found.lines[0].labelled is None
    assert found.as_json()["comparisons"] == {}
    assert set(found.as_json()["measures"]["nDCG@10"]) == {"default"}


def test_nothing_is_told_where_judges_completed_nothing() -> None:
    assert sum_up_completed(None, COMPLETED, decisions(), depth=None, pair=PAIR) is None
    assert summed(decisions=decisions()).pairs == 0
