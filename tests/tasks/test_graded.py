import math

import pytest

from tasks.judging.calls import Reading
from tasks.judging.config import JudgeConfig
from tasks.judging.pointwise import make_calls, read_grade
from tests.tasks.answers import FakeAnswer, make_question

CONFIG = JudgeConfig(judge="fake", protocol="graded")
CALL = make_calls(CONFIG, [make_question(["dough and yeast"], "graded")], 1, 0)[0]


def read(probabilities: dict[str, float], finish_reason: str = "length", relevant_grade: int = 2) -> Reading:
    logprobs = {token: math.log(share) for token, share in probabilities.items()}
    config = CONFIG.model_copy(update={"relevant_grade": relevant_grade})
    return read_grade(config, CALL, FakeAnswer("3", logprobs, finish_reason))[CALL.ids[""]]


def test_the_grade_is_the_mean_and_the_score_the_probability_of_a_relevant_grade() -> None:
    reading = read({"3": 0.4, " 2": 0.2, "0": 0.2, "The": 0.2})
    assert reading.grade == pytest.approx((3 * 0.4 + 2 * 0.2) / 0.8)
    assert reading.score == pytest.approx(0.75)
    assert read({"3": 0.4, " 2": 0.2, "0": 0.2}, relevant_grade=3).score == pytest.approx(0.5)


def test_a_call_asks_for_one_digit_with_the_scale_and_the_positives_shown() -> None:
    content = CALL.chat[0]["content"]
    assert (CALL.max_tokens, CALL.top, CALL.schema) == (1, 20, None)
    assert "<known_relevant>\nBread is baked dough.\n</known_relevant>" in content
    assert [content.index(f"\n{grade}:") for grade in range(4)] == sorted(content.index(f"\n{g}:") for g in range(4))
    assert "UMBRELA" not in content


@pytest.mark.parametrize(
    ("probabilities", "finish_reason", "failure"),
    [
        ({}, "length", "no_logprobs"),
        ({"The": 0.9, "3": 0.1}, "length", "neither"),
        ({"4": 1.0}, "length", "neither"),
        ({"0": 1.0}, "refused", "refused"),
        ({"0": 1.0}, "too_long", "too_long"),
        ({"0": 1.0}, "error: lost", "error"),
    ],
)
def test_paper_7_1_an_answer_without_a_grade_is_a_named_failure_and_never_grade_0(
    probabilities: dict[str, float], finish_reason: str, failure: str
) -> None:
    assert read(probabilities, finish_reason) == Reading(failure=failure)


def test_a_second_attempt_asks_in_other_words() -> None:
    again = make_calls(CONFIG, [make_question(["dough and yeast"], "graded")], 2, 0)[0]
    assert again.chat != CALL.chat
    assert again.call_id != CALL.call_id
