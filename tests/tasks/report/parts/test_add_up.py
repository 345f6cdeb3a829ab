"""Counts of query parts, added up."""

from collections.abc import Iterator

import polars as pl
import pytest

from tasks.report.parts import add_up as add_up_module
from tasks.report.parts.add_up import Sums, add_up
from tasks.summaries import TALLIES
from tests.tasks.records import mutable_records
from tests.tasks.report.tables import empty_tables, rich_tables, summed, sums_of, toy_tables


def frames(number: int) -> Iterator[pl.DataFrame]:
    for n in range(number):
        yield pl.DataFrame([("s", str(n % 3), "", 1)], schema=TALLIES.columns, orient="row")


def test_equal_rows_are_added_up_whatever_the_frames_that_they_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = add_up(pl.concat(frames(10)), TALLIES, ("count",))
    assert whole.rows() == [("s", "0", "", 4), ("s", "1", "", 3), ("s", "2", "", 3)]
    assert add_up(frames(10), TALLIES, ("count",)).equals(whole)
    monkeypatch.setattr(add_up_module, "_WAITING", 2)
    assert add_up(frames(10), TALLIES, ("count",)).equals(whole)
    assert add_up([], TALLIES, ("count",)).equals(TALLIES.empty())


def test_sums_say_how_often_something_was_counted() -> None:
    sums = sums_of(toy_tables())
    assert (sums.count("queries"), sums.count("queries", "test"), sums.count("nothing")) == (3, 1, 0)
    assert sums.states("llm") == {"relevant": 1, "not_relevant": 0, "unsure": 0, "unparsed": 1}
    assert (sums.judged("llm"), sums.judged("similarity"), sums.judged("other")) == (2, 4, 0)
    assert (sums.decides("llm"), sums.decides("similarity")) == (True, False)
    assert sums.bins("similarity", "unsure") == {10: 4}
    assert sums.bins("llm", "unparsed") == {}


def test_the_calls_of_a_tier_are_those_of_its_judges() -> None:
    sums = sums_of(rich_tables(), tiers=("llm", "strong"))
    assert set(sums.judges.iter_rows()) == {("llm", "llm-judge"), ("strong", "strong-judge")}
    assert sums.calls_of("strong").rows() == [("strong-judge", 3, 309, 3)]
    assert sums.calls_of("similarity").is_empty()


def test_two_parts_are_twice_one() -> None:
    made = summed(rich_tables(), ("llm", "strong"))
    once = Sums.of({**made, "scores": made["verdict_scores"]})
    twice = Sums.of({name: [frame, frame] for name, frame in made.items()} | {"scores": [made["verdict_scores"]] * 2})
    assert twice.count("candidates") == 2 * once.count("candidates") > 0
    assert twice.relevant["queries"].sum() == 2 * once.relevant["queries"].sum() > 0
    assert twice.dots.height == 2 * once.dots.height > 0
    assert twice.errors.drop("queries").equals(once.errors.drop("queries"))


def test_of_nothing_the_sums_are_empty() -> None:
    sums = sums_of(empty_tables())
    assert sums.count("candidates") == sums.judged("llm") == 0
    assert sums.relevant.is_empty()


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(add_up_module) == set()
