"""Several orders, one verdict: votes, early stop, flips; and the protocols that ask twice, through the whole judge."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tasks.judging.calls import Call, Question, Reading
from tasks.judging.config import JudgeConfig
from tasks.judging.judge import judge
from tasks.judging.votes import Tally, state_of_reading
from tests.tasks.test_judge import FakeAnswer, frames

PAIRS = [("q1", f"d{n}", f"passage {n}") for n in range(6)]
TABLES = frames(PAIRS, {"q1": ["the known one"]})
Opinion = Callable[[Call, str], str]


@dataclass
class Listwise:
    """A listwise judge: `opinion` says what it thinks of a passage's text in a call."""

    opinion: Opinion
    asked: list[Call] = field(default_factory=list)

    def answer(self, requests: Sequence[Any]) -> list[FakeAnswer]:
        self.asked += requests
        return [FakeAnswer({}, "stop", json.dumps({"verdicts": self._say(call)})) for call in requests]

    def _say(self, call: Call) -> dict[str, str]:
        texts = {passage.hash: passage.text for passage in call.question.passages}
        return {id_: said for id_, h in call.ids.items() if (said := self.opinion(call, texts[h]))}


class Memory:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {}
        self.subjects: list[Sequence[str]] = []

    def recall(self, judge: str, entries: Mapping[str, str]) -> Mapping[str, str]:
        return {entry: self.rows[judge][entry] for entry in entries if entry in self.rows.get(judge, {})}

    def remember(self, judge: str, rows: Sequence[tuple[str, Sequence[str], str]]) -> None:
        self.rows.setdefault(judge, {}).update({entry: payload for entry, _, payload in rows})
        self.subjects += [subjects for _, subjects, _ in rows]

    def flush(self) -> None:
        pass


def config(**changes: Any) -> JudgeConfig:
    return JudgeConfig.model_validate({"judge": "fake:0/1", "protocol": "listwise", **changes})


def run(engine: Any, ledger: Memory | None = None, tables: Any = TABLES, **changes: Any) -> dict[str, Any]:
    return judge(config(**changes), **tables, engine=engine, ledger=ledger)


def states(result: dict[str, Any]) -> dict[str, str]:
    return dict(result["verdicts"].select("doc_id", "state").iter_rows())


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


def test_flips_are_counted_on_a_sample_and_change_no_verdict() -> None:
    def opinion(call: Call, text: str) -> str:
        return "better" if call.order_seed == 1 and text == "passage 2" else "none"

    result = run(Listwise(opinion), flip_share=1.0)
    assert (result["facts"]["flip_pairs"], result["facts"]["flips"]) == (6, 1)
    assert set(states(result).values()) == {"not_relevant"}
    assert "flips" not in run(Listwise(opinion), flip_share=0.0)["facts"]


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


def test_a_flip_is_counted_only_where_something_was_asked_again() -> None:
    class YesNo:
        def answer(self, requests: Sequence[Any]) -> list[FakeAnswer]:
            return [FakeAnswer({"Yes": -0.1}, "length") for _ in requests]

    assert run(YesNo(), protocol="yes_no", flip_share=1.0)["facts"]["flip_pairs"] == 0
    two = frames(PAIRS, {"q1": ["the known one", "another known one"]})
    assert run(YesNo(), tables=two, protocol="yes_no", flip_share=1.0)["facts"]["flip_pairs"] == 6


def test_what_counts_as_relevant_scores_above_the_middle_and_nothing_else_does() -> None:
    engine = Listwise(lambda call, text: ["none", "worse", "equal", "better"][int(text[-1]) % 4])
    scores = dict(run(engine)["verdicts"].select("preference", "score").iter_rows())
    assert scores["none"] < scores["worse"] < 0.5 < scores["equal"] < scores["better"]
    strict = run(engine, relevant_preferences=["better"])
    assert dict(strict["verdicts"].select("preference", "score").iter_rows())["equal"] < 0.5
    generous = run(engine, relevant_preferences=["better", "equal", "worse"])
    assert dict(generous["verdicts"].select("preference", "score").iter_rows())["worse"] > 0.5


def test_a_missing_id_is_asked_again_alone_and_what_was_read_stands() -> None:
    def opinion(call: Call, text: str) -> str:
        return "" if text == "passage 4" and call.attempt == 1 else "worse"

    engine = Listwise(opinion)
    result = run(engine)
    assert set(states(result).values()) == {"unsure"}
    assert [len(call.ids) for call in engine.asked] == [6, 1]
    assert dict(result["verdicts"].select("doc_id", "attempt").iter_rows())["d4"] == 2


def test_the_ledger_knows_every_text_an_answer_speaks_of_and_answers_instead_of_the_engine() -> None:
    memory, engine = Memory(), Listwise(lambda call, text: "equal")
    first = run(engine, memory)
    again = run(Listwise(lambda call, text: pytest.fail("asked twice")), memory)
    assert again["verdicts"].equals(first["verdicts"])
    assert again["calls"].equals(first["calls"])
    assert (again["facts"]["calls"], again["facts"]["recalled"]) == (0, len(engine.asked))
    texts = set(TABLES["passages"]["text_hash"]) | set(TABLES["queries"]["text_hash"])
    assert set(memory.subjects[0]) == texts


def test_an_answer_of_which_nothing_could_be_read_is_not_remembered() -> None:
    memory = Memory()
    run(Listwise(lambda call, text: ""), memory)
    assert memory.rows == {}


def test_snippets_are_ranked_and_a_passage_without_one_is_not_relevant() -> None:
    class Snippets(Listwise):
        def answer(self, requests: Sequence[Any]) -> list[FakeAnswer]:
            if "verdicts" in (requests[0].schema or {})["properties"]:
                return super().answer(requests)
            self.asked += requests
            said = [call.question.passages[0].text for call in requests]
            texts = [{p.hash: p.text for p in call.question.passages}[call.ids[""]] for call in requests]
            assert said
            return [FakeAnswer({}, "stop", json.dumps({"snippet": None if "5" in t else t[-1:]})) for t in texts]

    engine = Snippets(lambda call, text: "better" if text == "2" else "worse")
    result = run(engine, protocol="snippet")
    assert states(result) == {
        "d0": "unsure", "d1": "unsure", "d2": "relevant", "d3": "unsure", "d4": "unsure", "d5": "not_relevant",
    }  # fmt: skip
    assert len(engine.asked) == 7


def test_a_cross_encoders_score_is_the_verdicts() -> None:
    class Scores:
        def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            assert all(query == "q1?" for query, _ in pairs)
            return [int(passage[-1]) / 10 for _, passage in pairs]

    memory = Memory()
    result = run(Scores(), memory, protocol="cross_encoder", relevant_from=0.5, not_relevant_below=0.2)
    assert states(result) == {
        "d0": "not_relevant", "d1": "not_relevant", "d2": "unsure", "d3": "unsure", "d4": "unsure", "d5": "relevant",
    }  # fmt: skip
    assert result["verdicts"]["score"].to_list() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert run(object(), memory, protocol="cross_encoder")["facts"]["recalled"] == 6


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
    tally.add(config(), Reading(failure="error"), Call("id", (), question, {}, 1))
    assert (tally.state, tally.score, tally.grade, tally.preference) == ("unparsed", None, None, None)
