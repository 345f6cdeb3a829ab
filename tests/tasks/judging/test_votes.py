"""Several orders, one verdict: votes, the early stop, the majority and its score."""

from collections.abc import Sequence
from typing import Any

import pytest

from tasks.judging import votes as votes_module
from tasks.judging.calls import Call, Question, Reading
from tasks.judging.judge import judge
from tasks.judging.votes import Heard, Tally, best_of, score_of, state_of, state_of_reading
from tests.tasks.judging.parts import FakeAnswer, Listwise, Memory, config, frames, states
from tests.tasks.records import mutable_records

PAIRS = [("q1", f"d{n}", f"passage {n}") for n in range(6)]
TABLES = frames(PAIRS, {"q1": ["the known one"]})


def run(engine: Any, ledger: Memory | None = None, tables: Any = TABLES, **changes: Any) -> dict[str, Any]:
    return judge(config(**changes), **tables, engine=engine, ledger=ledger)


def test_a_settled_majority_is_not_asked_about_again() -> None:
    engine = Listwise(lambda call, text: "none")
    result = run(engine, votes=3)
    assert set(states(result).values()) == {"not_relevant"}
    assert [call.order_seed for call in engine.asked] == [0, 1]
    assert list(engine.asked[0].ids.values()) != list(engine.asked[1].ids.values())


def test_votes_that_differ_are_asked_a_third_time_and_the_majority_counts() -> None:
    def opinion(call: Call, text: str) -> str:
        return ["better", "none", "equal"][call.order_seed or 0] if text == "passage 3" else "none"

    engine = Listwise(opinion)
    result = run(engine, votes=3)
    assert states(result)["d3"] == "relevant"
    assert [len(call.ids) for call in engine.asked] == [6, 6, 1]
    scores = dict(result["verdicts"].select("doc_id", "score").iter_rows())
    assert scores["d3"] == pytest.approx((0.95 + 0.05 + 0.65) / 3)


def test_three_votes_for_three_states_are_unsure() -> None:
    def opinion(call: Call, text: str) -> str:
        return ["better", "none", "worse"][call.order_seed or 0]

    assert set(states(run(Listwise(opinion), votes=3)).values()) == {"unsure"}


def test_votes_that_could_not_be_read_do_not_count() -> None:
    def opinion(call: Call, text: str) -> str:
        return "" if (call.order_seed or 0) == 0 else "better"

    result = run(Listwise(opinion), votes=3, max_attempts=1)
    assert set(states(result).values()) == {"relevant"}
    assert result["facts"]["failures"] == {"missing_id": 6}


def test_pointwise_votes_with_one_positive_are_one_call() -> None:
    class YesNo:
        def __init__(self) -> None:
            self.asked = 0

        def answer(self, requests: Sequence[Any]) -> list[FakeAnswer]:
            self.asked += len(requests)
            return [FakeAnswer({"Yes": -0.1}, "length") for _ in requests]

    engine = YesNo()
    run(engine, protocol="yes_no", votes=3, flip_share=1.0)
    assert engine.asked == 6


def test_what_counts_as_relevant_scores_above_the_middle_and_nothing_else_does() -> None:
    engine = Listwise(lambda call, text: ["none", "worse", "equal", "better"][int(text[-1]) % 4])
    scores = dict(run(engine)["verdicts"].select("preference", "score").iter_rows())
    assert scores["none"] < scores["worse"] < 0.5 < scores["equal"] < scores["better"]
    strict = run(engine, relevant_preferences=["better"])
    assert dict(strict["verdicts"].select("preference", "score").iter_rows())["equal"] < 0.5
    generous = run(engine, relevant_preferences=["better", "equal", "worse"])
    assert dict(generous["verdicts"].select("preference", "score").iter_rows())["worse"] > 0.5


@pytest.mark.parametrize(
    ("reading", "state"),
    [
        (Reading(failure="length"), "unparsed"),
        (Reading(preference="none"), "not_relevant"),
        (Reading(preference="worse"), "unsure"),
        (Reading(preference="equal"), "relevant"),
        (Reading(score=0.9), "relevant"),
    ],
)
def test_a_reading_has_a_state(reading: Reading, state: str) -> None:
    assert state_of_reading(config(), reading) == state


def test_a_preference_that_does_not_count_as_relevant_is_unsure() -> None:
    assert state_of_reading(config(relevant_preferences=("better",)), Reading(preference="equal")) == "unsure"


def test_without_any_vote_read_there_is_no_score() -> None:
    tally = Tally(1)
    question = Question("p", "", "q", "p", "q", (), (), ())
    tally.add(config(), Heard(Reading(failure="error"), Call("id", (), question, {}, 1), "hash"))
    assert (tally.state, tally.score, tally.grade, tally.preference) == ("unparsed", None, None, None)


def heard(*readings: Reading) -> list[Heard]:
    call = Call("id", (), Question("p", "", "q", "p", "q", (), (), ()), {}, 1)
    return [Heard(reading, call, f"hash@{number}-{number + 1}") for number, reading in enumerate(readings)]


@pytest.mark.parametrize(
    ("readings", "counts"),
    [
        ([Reading(score=0.2), Reading(score=0.9), Reading(score=0.4)], 1),
        ([Reading(score=0.3), Reading(score=0.3)], 0),
        ([Reading(score=0.5, grade=1.2), Reading(score=0.5, grade=1.9)], 1),
        ([Reading(preference="worse"), Reading(preference="equal"), Reading(preference="none")], 1),
        ([Reading(preference="none"), Reading(preference="worse")], 1),
        ([Reading(score=0.9), Reading(failure="length")], 0),
        ([Reading(score=0.1), Reading(failure="length")], 1),
        ([Reading(failure="length"), Reading(failure="unavailable"), Reading(score=0.1)], 1),
        ([Reading(preference="none", score=None)], 0),
    ],
)
def test_the_best_window_counts_and_an_unread_one_unless_another_is_relevant(
    readings: list[Reading], counts: int
) -> None:
    windows = heard(*readings)
    assert best_of(config(), windows) == windows[counts]


def test_the_window_behind_a_verdict_is_that_of_a_vote_that_says_the_same() -> None:
    tally = Tally(3)
    for vote in heard(Reading(preference="none"), Reading(preference="equal"), Reading(preference="better")):
        tally.add(config(), vote)
    assert (tally.state, tally.decided_by) == ("relevant", "hash@1-2")
    alone = Tally(3)
    for vote in heard(Reading(preference="none"), Reading(preference="worse"), Reading(preference="better")):
        alone.add(config(), vote)
    assert (alone.state, alone.decided_by) == ("unsure", "hash@1-2")


@pytest.mark.parametrize(
    ("score", "state"),
    [(None, "unparsed"), (0.7, "relevant"), (0.69, "unsure"), (0.3, "unsure"), (0.29, "not_relevant")],
)
def test_thresholds_name_the_state(score: float | None, state: str) -> None:
    assert state_of(score, 0.7, 0.3) == state


def tally(of: int, *readings: Reading) -> Tally:
    question = Question("p", "", "q", "p", "q", (), (), ())
    votes = Tally(of)
    for number, reading in enumerate(readings):
        votes.add(config(), Heard(reading, Call(f"id{number}", (), question, {}, 1), "hash"))
    return votes


YES, NO, OPEN, LOST = (
    Reading(preference="better"), Reading(preference="none"), Reading(preference="worse"), Reading(failure="length"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("of", "readings", "settled"),
    [
        (1, [NO], True), (1, [LOST], False), (3, [NO], False), (3, [NO, NO], True), (3, [NO, YES], False),
        (5, [NO, NO], False), (5, [NO, NO, NO], True), (5, [NO, LOST, NO, LOST], False),
    ],
)  # fmt: skip
def test_a_vote_is_settled_by_more_than_half_of_all_there_may_be(
    of: int, readings: list[Reading], settled: bool
) -> None:
    assert tally(of, *readings).is_settled is settled


@pytest.mark.parametrize(
    ("readings", "state"),
    [
        ([NO, NO, YES], "not_relevant"), ([NO, YES], "unsure"), ([NO, YES, OPEN], "unsure"), ([YES, LOST], "relevant"),
        ([LOST], "unparsed"), ([], "unparsed"), ([YES, YES, NO, NO], "unsure"), ([OPEN, OPEN, NO], "unsure"),
    ],
)  # fmt: skip
def test_the_majority_is_of_the_votes_that_were_read(readings: list[Reading], state: str) -> None:
    assert tally(5, *readings).state == state


def test_scores_and_grades_are_means_over_the_votes_that_have_one() -> None:
    graded = tally(3, Reading(score=0.5, grade=1.0), Reading(score=1.0, grade=2.0), LOST)
    assert (graded.score, graded.grade, graded.preference) == (0.75, 1.5, None)
    assert tally(3, YES, NO).score == pytest.approx((0.95 + 0.05) / 2)
    assert tally(3, YES, NO).last.call_id == "id1"


def test_of_equally_frequent_preferences_the_one_nearer_to_none_is_named() -> None:
    assert tally(3, YES, NO, LOST).preference == "none"
    assert tally(3, YES, YES, NO).preference == "better"
    assert tally(3, OPEN, Reading(preference="equal")).preference == "worse"


def test_the_scores_of_preferences_are_these() -> None:
    words = ("none", "worse", "equal", "better")
    readings = [Reading(preference=word) for word in words]  # type: ignore[arg-type]
    everything = config(relevant_preferences=("better", "equal", "worse", "none"))
    nothing = config(relevant_preferences=())
    assert [score_of(everything, reading) for reading in readings] == [0.05, 0.55, 0.65, 0.95]
    assert [score_of(nothing, reading) for reading in readings] == [0.05, 0.35, 0.45, 0.48]
    assert score_of(nothing, Reading(score=0.3)) == 0.3
    assert score_of(nothing, LOST) is None


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(votes_module) == {"Tally"}
