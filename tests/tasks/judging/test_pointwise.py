"""Protocols `yes_no` and `graded`: one passage, one token, and the probability read from it."""

import math
import random

import pytest

from tasks.judging import pointwise
from tasks.judging import pointwise as pointwise_module
from tasks.judging.calls import Reading
from tasks.judging.config import JudgeConfig
from tasks.judging.pointwise import WHOLE_TEXT, failure_of, make_calls, read_grade, read_object, read_yes_no
from tasks.prompts.prompt import load_prompt
from tasks.texts import show_passage
from tests.tasks.answers import (
    FakeAnswer,
    draw_logprobs,
    make_question,
)
from tests.tasks.records import mutable_records

CONFIG = JudgeConfig(judge="fake")
QUESTION = make_question(["dough and yeast", "bricks and mortar"], "yes_no", positives=("one", "two", "three"))
CALL = make_calls(CONFIG, [QUESTION], 1, 0)[0]


def says(finish_reason: str = "length", **probabilities: float) -> FakeAnswer:
    return FakeAnswer("Yes", {token: math.log(share) for token, share in probabilities.items()}, finish_reason)


def read(answer: FakeAnswer) -> Reading:
    readings = read_yes_no(CONFIG, CALL, answer)
    assert list(readings) == list(CALL.ids.values())
    return readings[CALL.ids[""]]


def content(call: object) -> str:
    return str(call.chat[0]["content"])  # type: ignore[attr-defined]


def test_one_call_per_passage_asks_for_one_token_and_its_log_probabilities() -> None:
    calls = make_calls(CONFIG, [QUESTION], 1, 0)
    assert [call.ids for call in calls] == [{"": passage.hash} for passage in QUESTION.passages]
    assert {(call.max_tokens, call.top, call.schema, call.order_seed, call.attempt) for call in calls} == {
        (1, 20, None, 0, 1)
    }


def test_a_prompt_file_may_have_a_system_message_and_begin_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_prompt("yes_no")
    begun = plain.model_copy(update={"system": "Judge.", "assistant": "<think>\n\n</think>\n\n"})
    monkeypatch.setattr(pointwise_module, "load_prompt", lambda name: begun)
    (call, _) = make_calls(CONFIG, [QUESTION], 1, 0)
    assert [turn["role"] for turn in call.chat] == ["system", "user", "assistant"]
    assert call.chat[1]["content"] == content(CALL)
    assert call.chat[2]["content"] == begun.assistant


def test_prompts_of_one_query_share_everything_before_the_passage() -> None:
    first, second = (content(call) for call in make_calls(CONFIG, [QUESTION], 1, 0))
    shared = first[: first.index("<passage>")]
    assert second.startswith(shared)
    assert "what is bread" in shared
    assert "<known_relevant>\nthree\n</known_relevant>" in shared


def test_titles_are_shown_and_a_cut_is_marked() -> None:
    titled = make_question([show_passage("Sourdough", "x" * 2000)], "yes_no")
    assert f"<passage>\nSourdough {'x' * 890} […]\n</passage>" in content(make_calls(CONFIG, [titled], 1, 0)[0])


def test_a_second_attempt_asks_in_other_words_and_a_third_in_the_last_ones() -> None:
    first, second, third = (make_calls(CONFIG, [QUESTION], attempt, 0)[0] for attempt in (1, 2, 3))
    assert "exactly one word" not in content(first)
    assert "exactly one word" in content(second)
    assert content(third) == content(second)
    assert len({first.call_id, second.call_id, third.call_id}) == 3


def test_the_seed_orders_the_positives_and_seed_0_leaves_them() -> None:
    def order(seed: int) -> list[str]:
        text = content(make_calls(CONFIG, [QUESTION], 1, seed)[0])
        return sorted(QUESTION.positives, key=text.index)

    assert order(0) == ["one", "two", "three"]
    assert order(5) == order(5)
    assert {tuple(order(seed)) for seed in range(1, 30)} > {("one", "two", "three")}
    assert make_calls(CONFIG, [QUESTION], 1, 5)[0].order_seed == 5


def test_an_empty_list_of_questions_makes_no_calls() -> None:
    assert make_calls(CONFIG, [], 1, 0) == []


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (says(The=0.9, Yes=0.05), "neither"),
        (says(The=1.0), "neither"),
        (FakeAnswer("Yes", {"Yes": -math.inf, "No": -math.inf}), "neither"),
        (says("too_long", Yes=0.9), "too_long"),
        (says("refused", No=0.9), "refused"),
        (says("error: out of memory", No=0.9), "error"),
        (says("content_filter", No=0.9), "error"),
        (says("", No=0.9), "error"),
        (FakeAnswer("I cannot answer that."), "no_logprobs"),
        (FakeAnswer("Yes", {"Yes": math.nan, "No": -0.1}), "no_logprobs"),
        (FakeAnswer("Yes", {"No": -0.1, "odd": math.nan}), "no_logprobs"),
        (FakeAnswer("Yes", {"Yes": math.inf}), "no_logprobs"),
        (FakeAnswer("Yes", {"Yes": 1000.0}), "no_logprobs"),
    ],
)
def test_paper_7_1_an_answer_that_is_no_answer_is_a_named_failure(answer: FakeAnswer, failure: str) -> None:
    assert read(answer) == Reading(failure=failure)


def test_paper_7_2_the_text_of_an_answer_is_never_parsed() -> None:
    prose = FakeAnswer("[] (Doc (4) was considered but rejected)", {"Yes": math.log(0.9)})
    assert read(prose).score == 1.0


def test_the_score_is_the_share_of_yes_over_all_its_spellings() -> None:
    logs = {
        "Yes": math.log(0.3),
        " yes": math.log(0.1),
        "YES": math.log(0.2),
        "no": math.log(0.2),
        "The": math.log(0.2),
    }
    assert read(FakeAnswer("Yes", logs)).score == pytest.approx(0.75)
    assert read(says("stop", Yes=0.5)) == read(says("length", Yes=0.5)) == Reading(score=1.0)


GRADED = JudgeConfig(judge="fake", protocol="graded")


GRADED_CALL = make_calls(GRADED, [make_question(["dough and yeast"], "graded")], 1, 0)[0]


def read_graded(probabilities: dict[str, float], finish_reason: str = "length", relevant_grade: int = 2) -> Reading:
    logprobs = {token: math.log(share) for token, share in probabilities.items()}
    config = GRADED.model_copy(update={"relevant_grade": relevant_grade})
    return read_grade(config, GRADED_CALL, FakeAnswer("3", logprobs, finish_reason))[GRADED_CALL.ids[""]]


def test_the_grade_is_the_mean_and_the_score_the_probability_of_a_relevant_grade() -> None:
    reading = read_graded({"3": 0.4, " 2": 0.2, "0": 0.2, "The": 0.2})
    assert reading.grade == pytest.approx((3 * 0.4 + 2 * 0.2) / 0.8)
    assert reading.score == pytest.approx(0.75)
    assert read_graded({"3": 0.4, " 2": 0.2, "0": 0.2}, relevant_grade=3).score == pytest.approx(0.5)


def test_a_call_asks_for_one_digit_with_the_scale_and_the_positives_shown() -> None:
    content = GRADED_CALL.chat[0]["content"]
    assert (GRADED_CALL.max_tokens, GRADED_CALL.top, GRADED_CALL.schema) == (1, 20, None)
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
    assert read_graded(probabilities, finish_reason) == Reading(failure=failure)


def test_a_second_attempt_at_a_grade_asks_in_other_words() -> None:
    again = make_calls(GRADED, [make_question(["dough and yeast"], "graded")], 2, 0)[0]
    assert again.chat != GRADED_CALL.chat
    assert again.call_id != GRADED_CALL.call_id


MANY = 20_000


def test_log_probabilities_of_any_kind_give_a_share_or_a_named_failure() -> None:
    protocols = [
        (pointwise.read_yes_no, JudgeConfig(judge="fake", protocol="yes_no"), "yes_no"),
        (pointwise.read_grade, JudgeConfig(judge="fake", protocol="graded"), "graded"),
    ]
    for read, config, prompt in protocols:
        call = pointwise.make_calls(config, [make_question(["a passage"], prompt)], 1, 0)[0]
        (passage,) = call.ids.values()
        parsed = 0
        for seed in range(MANY // 2):
            draw = random.Random(seed)
            logprobs = draw_logprobs(draw)
            reason = draw.choice(["stop", "length", "length", "refused", "error: x", "odd"])
            reading = read(config, call, FakeAnswer("No", logprobs, reason))[passage]
            assert (reading.score is None) == (reading.failure is not None)
            if reading.score is not None:
                assert reason in ("stop", "length")
                assert 0 <= reading.score <= 1
                assert reading.grade is None or 0 <= reading.grade <= 3
                assert not any(math.isnan(value) or value > 0.01 for value in logprobs.values())
                parsed += 1
        assert parsed > 500


def test_labels_that_hold_exactly_the_least_mass_are_read() -> None:
    assert read(says(Yes=0.25, No=0.25, The=0.5)).score == pytest.approx(0.5)
    config = CONFIG.model_copy(update={"min_mass": 0.5})
    logs = {"Yes": math.log(0.25), "No": math.log(0.25)}
    assert read_yes_no(config, CALL, FakeAnswer("", logs))[CALL.ids[""]].failure is None
    over = CONFIG.model_copy(update={"min_mass": 0.51})
    assert read_yes_no(over, CALL, FakeAnswer("", logs))[CALL.ids[""]] == Reading(failure="neither")


def test_a_log_probability_a_little_above_zero_is_rounding() -> None:
    assert read(FakeAnswer("", {"Yes": 0.01})).score == 1.0
    assert read(FakeAnswer("", {"Yes": 0.011})) == Reading(failure="no_logprobs")


def test_an_engine_that_could_not_answer_now_is_told_from_other_failures() -> None:
    assert read(says("unavailable: status 503", Yes=0.9)) == Reading(failure="unavailable")
    assert failure_of(FakeAnswer(finish_reason="length"), WHOLE_TEXT) == "length"
    assert failure_of(FakeAnswer(finish_reason="stop"), WHOLE_TEXT) is None


def test_one_positive_has_one_order_and_one_call_for_all_seeds() -> None:
    question = make_question(["a"], "yes_no", positives=("one",))
    first, second = (make_calls(CONFIG, [question], 1, seed)[0] for seed in (0, 7))
    assert first == second
    assert first.order_seed == 0


def test_an_object_is_read_only_of_a_whole_answer_that_is_not_empty() -> None:
    assert read_object(FakeAnswer('{"a": 1}', finish_reason="length")) == "length"
    assert read_object(FakeAnswer(" \n")) == "empty"
    assert read_object(FakeAnswer("prose")) == "no_json"
    assert read_object(FakeAnswer('{"a": 1}')) == [("a", 1.0)]


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(pointwise_module) == set()


@pytest.mark.parametrize(
    "token",
    [
        "Yes",
        " Yes",
        "YES",
        "\u2581Yes",
        "\u0120Yes",
        "\u0120yes",
        "Yes.",
        '"Yes',
        "**Yes",
        "\uff39\uff45\uff53",
        "yEs",
        "\nYes",
    ],
)
def test_a_label_is_read_in_every_form_of_its_token(token: str) -> None:
    assert read(says(**{token: 0.6, "No": 0.2})).score == pytest.approx(0.75)


@pytest.mark.parametrize("token", ["Yesterday", "Ja", "是", "Y", "", "\u2581", "Not", "نعم"])
def test_another_word_is_no_label(token: str) -> None:
    assert read(says(**{token: 0.6, "No": 0.2})).score == 0.0


@pytest.mark.parametrize("token", ["2", " 2", "\u25812", "\uff12", "\u0662", "\u0968", "\u0e52", "2.", "(2"])
def test_a_grade_is_read_in_the_digits_of_every_script(token: str) -> None:
    assert read_graded({token: 0.5, "0": 0.5}) == Reading(score=0.5, grade=1.0)


def test_the_prompt_of_steps_asks_for_intent_and_trust_and_for_one_digit() -> None:
    (call,) = make_calls(GRADED, [make_question(["dough"], "umbrela")], 1, 0)
    asked = content(call)
    assert asked.index("Intent:") < asked.index("Match:") < asked.index("Trust:") < asked.index("one digit")
    assert "in different languages" in asked
    assert (call.max_tokens, call.top) == (1, 20)
