import math

import pytest

from tasks.judging.calls import Reading, call_key
from tasks.judging.config import JudgeConfig
from tasks.judging.pointwise import make_calls, read_yes_no
from tasks.texts import combine_hashes, hash_passage, hash_text, show_passage
from tests.tasks.answers import FakeAnswer, make_question

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


def test_a_call_is_named_by_its_key_its_texts_its_attempt_and_its_order() -> None:
    passage = QUESTION.passages[0]
    expected = [call_key(CONFIG, QUESTION), QUESTION.query_hash, QUESTION.positives_hash]
    shown = [passage.text, QUESTION.query, *QUESTION.positives]
    expected += [passage.hash, *map(hash_text, shown), "1", "0"]
    assert CALL.call_id == combine_hashes(expected)
    assert passage.hash in {hash_passage("", text) for text in ("dough and yeast", "bricks and mortar")}


@pytest.mark.parametrize(
    "changes",
    [
        {"judge": "other"},
        {"passage_chars": 2},
        {"query_chars": 2},
        {"positive_chars": 2},
        {"max_positives": 2},
        {"top": 5},
    ],
)
def test_what_decides_an_answer_is_in_the_key(changes: dict[str, object]) -> None:
    assert call_key(CONFIG.model_copy(update=changes), QUESTION) != call_key(CONFIG, QUESTION)


def test_prompt_definition_and_protocol_are_in_the_key() -> None:
    keys = {
        call_key(CONFIG, QUESTION),
        call_key(CONFIG, make_question([], "graded")),
        call_key(CONFIG, make_question([], "yes_no", definition="A recipe is correct.\n")),
        call_key(CONFIG.model_copy(update={"protocol": "graded"}), QUESTION),
    }
    assert len(keys) == 4


def test_what_is_made_of_an_answer_and_the_datasets_names_are_not_in_the_key() -> None:
    other = JudgeConfig.model_validate(
        {
            "judge": "fake",
            "relevant_from": 0.9,
            "votes": 3,
            "batch_size": 2,
            "per_call": 3,
            "relevant_grade": 3,
            "relevant_preferences": ["better"],
            "reasoning": True,
            "max_output_tokens": 7,
            "policies": {"some-data": {"skip": True}},
        }
    )
    assert call_key(other, QUESTION) == call_key(CONFIG, QUESTION)


def test_the_longest_answer_and_the_reasons_are_in_the_key_of_a_judge_that_writes() -> None:
    question = make_question([], "listwise")
    configs = [
        JudgeConfig.model_validate({"judge": "fake", "protocol": "listwise"} | changes)
        for changes in ({}, {"reasoning": True}, {"max_output_tokens": 7})
    ]
    assert len({call_key(config, question) for config in configs}) == 3
