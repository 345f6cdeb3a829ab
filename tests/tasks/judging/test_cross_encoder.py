"""A cross-encoder as a judge: one pair a call, its score the answer, no second attempt."""

from collections.abc import Sequence

import pytest

from tasks.judging import cross_encoder as cross_encoder_module
from tasks.judging.calls import Reading
from tasks.judging.config import JudgeConfig
from tasks.judging.cross_encoder import AsLLM, Scored, make_calls, read_answer
from tests.tasks.answers import make_question
from tests.tasks.records import mutable_records

CONFIG = JudgeConfig(judge="fake", protocol="cross_encoder")
QUESTION = make_question(["dough and yeast", "bricks and mortar"], "")
CALL = make_calls(CONFIG, [QUESTION], 1, 0)[0]


class Lengths:
    """Scores a pair by the length of its passage, in hundredths."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        assert {query for query, _ in pairs} == {"what is bread"}
        return [len(passage) / 100 for _, passage in pairs]


def test_each_passage_is_one_call_of_query_and_passage() -> None:
    calls = make_calls(CONFIG, [QUESTION], 1, 7)
    assert [call.ids for call in calls] == [{"": passage.hash} for passage in QUESTION.passages]
    assert [call.chat for call in calls] == [
        ({"role": "query", "content": "what is bread"}, {"role": "passage", "content": passage.text})
        for passage in QUESTION.passages
    ]
    assert {(call.attempt, call.order_seed, call.schema) for call in calls} == {(1, None, None)}


def test_a_second_attempt_would_give_the_same_score_and_is_not_made() -> None:
    assert make_calls(CONFIG, [QUESTION], 2, 0) == []


def test_neither_the_positives_nor_the_seed_name_a_call_but_model_and_lengths_do() -> None:
    other = make_question(["dough and yeast", "bricks and mortar"], "", positives=("another",))
    assert make_calls(CONFIG, [other], 1, 3)[0].call_id == CALL.call_id
    for changes in ({"judge": "other"}, {"query_chars": 3}, {"passage_chars": 3}):
        changed = make_calls(CONFIG.model_copy(update=changes), [QUESTION], 1, 0)[0]
        assert changed.call_id != CALL.call_id


def test_scores_are_answered_in_the_order_of_the_calls_and_read_back() -> None:
    calls = make_calls(CONFIG, [QUESTION], 1, 0)
    answers = AsLLM(Lengths()).answer(calls)
    assert [(answer.finish_reason, answer.prompt_tokens, answer.output_tokens) for answer in answers] == [
        ("stop", 0, 0)
    ] * 2
    assert [read_answer(CONFIG, *pair)[pair[0].ids[""]].score for pair in zip(calls, answers, strict=True)] == [
        len(passage.text) / 100 for passage in QUESTION.passages
    ]


@pytest.mark.parametrize(("text", "score"), [("0.25", 0.25), ("0", 0.0), ("1", 1.0)])
def test_a_score_from_0_to_1_is_read(text: str, score: float) -> None:
    assert read_answer(CONFIG, CALL, Scored(text)) == {CALL.ids[""]: Reading(score=score)}


@pytest.mark.parametrize("text", ["", "high", "null", "[0.5]", "NaN", "-0.001", "1.001", "Infinity"])
def test_anything_else_is_a_named_failure(text: str) -> None:
    assert read_answer(CONFIG, CALL, Scored(text)) == {CALL.ids[""]: Reading(failure="no_score")}


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(cross_encoder_module) == set()
