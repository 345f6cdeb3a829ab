"""The id of a call: what decides an answer is in it, what is made of the answer is not."""

from dataclasses import replace

import pytest

from tasks.judging import calls as calls_module
from tasks.judging.calls import Call, Passage, Reading, call_key, name_call, narrow, unread
from tasks.judging.config import JudgeConfig
from tasks.judging.pointwise import make_calls
from tasks.texts import combine_hashes, hash_passage, hash_text
from tests.tasks.answers import make_question
from tests.tasks.records import mutable_records

CONFIG = JudgeConfig(judge="fake")


QUESTION = make_question(["dough and yeast", "bricks and mortar"], "yes_no", positives=("one", "two", "three"))


CALL = make_calls(CONFIG, [QUESTION], 1, 0)[0]


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


def test_a_question_is_narrowed_to_the_passages_asked_for_in_its_own_order() -> None:
    hashes = [passage.hash for passage in QUESTION.passages]
    assert narrow(QUESTION, hashes[::-1]) == QUESTION
    one = narrow(QUESTION, [hashes[1], "elsewhere"])
    assert [passage.hash for passage in one.passages] == [hashes[1]]
    assert replace(one, passages=QUESTION.passages) == QUESTION


def test_of_an_unread_call_every_passage_has_the_failure() -> None:
    assert unread(CALL, "length") == {CALL.ids[""]: Reading(failure="length")}


def test_every_text_shown_and_the_attempt_and_the_seed_name_a_call() -> None:
    passage = QUESTION.passages[:1]
    base = name_call(CONFIG, QUESTION, passage, 1, 0)
    others = [
        name_call(CONFIG, QUESTION, passage, 2, 0),
        name_call(CONFIG, QUESTION, passage, 1, 1),
        name_call(CONFIG, QUESTION, QUESTION.passages, 1, 0),
        name_call(CONFIG, QUESTION, [Passage(passage[0].hash, "a snippet")], 1, 0),
        name_call(CONFIG, replace(QUESTION, query="cut"), passage, 1, 0),
        name_call(CONFIG, replace(QUESTION, positives=("cut",)), passage, 1, 0),
    ]
    assert len({base, *others}) == 7


def test_a_call_asks_for_one_token_and_no_log_probabilities_unless_told_otherwise() -> None:
    call = Call("id", (), QUESTION, {}, 1)
    assert (call.max_tokens, call.top, call.schema, call.order_seed) == (1, 0, None, None)


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(calls_module) == set()
