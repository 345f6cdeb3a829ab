"""What would be sent to a judge, counted without sending anything."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.planning import expected_calls
from flows.planning.expected_calls import Census, take_census
from flows.planning.expected_pairs import Asked, Texts
from flows.planning.passage_texts import PassageTexts
from infra.ledger.ledger import Ledger
from infra.storage.store import Store
from tasks.judging.calls import Call, Passage, Question
from tasks.judging.config import JudgeConfig
from tests.flows.ahead import Place
from tests.flows.animals import tier, write_source

QUESTION = Question("yes_no", "", "q", "p", "query", (), (), (Passage("a", "about otters"), Passage("b", "eels")))


def call(call_id: str, text: str, **changes: Any) -> Call:
    made: dict[str, Any] = {"call_id": call_id, "chat": ({"role": "user", "content": text},), "question": QUESTION}
    return Call(**{**made, "ids": {"": "a"}, "attempt": 1, **changes})


def test_calls_are_counted_by_number_and_length_and_answered_with_nothing() -> None:
    census = Census()
    answers = census.answer([call("2", "four"), call("1", "seventy")])
    census.answer([call("3", "x")])
    assert (census.calls, census.characters) == (3, 4 + 7 + 1)
    assert [(answer.text, answer.finish_reason) for answer in answers] == [("", "error: only planned")] * 2
    assert {answer.prompt_tokens + answer.output_tokens + answer.cached_tokens for answer in answers} == {0}


def test_the_sample_is_of_the_lowest_ids_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected_calls, "SAMPLE", 2)
    census = Census()
    census.answer([call("4", "dddd"), call("2", "bb")])
    census.answer([call("1", "a"), call("3", "ccc")])
    assert [one.call_id for one in census.sample] == ["1", "2"]
    # Three characters of ten are in the sample: its 6 tokens stand for 20.
    assert census.scale_up([1, 5]) == 20.0
    assert Census().scale_up([]) == 0.0


def test_pairs_for_a_cross_encoder_are_counted_and_scored_with_nothing() -> None:
    census = Census()
    scores = census.score([("query", "one"), ("query", "two")])
    assert census.calls == 2
    assert [0 <= score <= 1 for score in scores] == [False, False]


def test_a_snippet_is_answered_with_the_whole_passage_so_that_the_next_question_is_as_long_as_it_can_be() -> None:
    schema = {"properties": {"snippet": {"type": "string"}}}
    (answer,) = Census().answer([call("1", "x", schema=schema, ids={"": "b"})])
    assert (answer.text, answer.finish_reason) == ('{"snippet": "eels"}', "stop")
    (other,) = Census().answer([call("1", "x", schema={"properties": {"verdicts": {}}})])
    assert other.text == ""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A store in which one tier has judged everything."""
    folder = tmp_path_factory.mktemp("judged")
    return Place(folder, write_source(folder / "animals")).run()


def counted(place: Place, judge: JudgeConfig, **changes: Any) -> Census:
    ahead = place.ahead()
    pairs = ahead.asked(0).pairs
    return take_census(judge, Asked(pairs, pairs, **{"basis": "exact", **changes}), ahead.texts, Ledger(place.store))


def judge_of(place: Place, **changes: Any) -> JudgeConfig:
    judge: JudgeConfig = place.setup(tiers=[tier(judge=changes)]).tiers[0].judge
    return judge


def test_what_the_ledger_remembers_is_known_and_the_rest_is_counted_once(place: Place) -> None:
    before = place.store.list("")
    census = counted(place, judge_of(place))
    assert census.known + census.calls == 54
    assert census.known > 40  # the fake judge cannot be read for one prompt in sixteen
    other = counted(place, judge_of(place, definition="It names a place."))
    assert (other.known, other.calls, len(other.sample)) == (0, 54, 54)
    assert other.characters == sum(len(m["content"]) for one in other.sample for m in one.chat)
    assert place.store.list("") == before


def test_pairs_that_are_only_assumed_are_not_looked_up(place: Place) -> None:
    census = counted(place, judge_of(place), basis="estimated")
    assert (census.known, census.calls) == (0, 54)


def test_only_the_first_attempt_is_counted(place: Place) -> None:
    patient = judge_of(place, definition="It names a place.", max_attempts=2)
    assert counted(place, patient).calls == 54


@pytest.mark.parametrize(("protocol", "calls"), [("yes_no", 2 * 54), ("listwise", 2 * 9), ("cross_encoder", 2 * 54)])
def test_every_window_of_a_long_passage_is_counted(place: Place, protocol: str, calls: int) -> None:
    judge = judge_of(place).model_copy(update={"passage_chars": 60, "protocol": protocol})
    assert counted(place, judge).calls == calls


def test_pairs_are_put_through_in_shares_that_hold_whole_queries(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected_calls, "_PAIRS_AT_ONCE", 10)
    monkeypatch.setattr(expected_calls, "_TEXTS_AT_ONCE", 30)
    listwise = judge_of(place, protocol="listwise", per_call=6)
    assert counted(place, listwise).calls == 9  # one for each query: none is cut in two


def test_nothing_to_ask_costs_nothing(tmp_path: Path) -> None:
    nothing = pl.DataFrame(schema={"query_hash": pl.String})
    asked = Asked(nothing, nothing, "exact")
    texts = Texts(nothing, nothing, nothing, PassageTexts(lambda: iter([])))
    census = take_census(JudgeConfig(judge="j"), asked, texts, Ledger(Store.open(str(tmp_path / "store"))))
    assert (census.calls, census.known, census.sample) == (0, 0, [])
