"""A cross-encoder as a judge: one pair a call, its score the answer, no second attempt."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tasks.judging import cross_encoder as cross_encoder_module
from tasks.judging.calls import Reading
from tasks.judging.config import JudgeConfig
from tasks.judging.cross_encoder import AsLLM, Scored, make_calls, read_answer
from tasks.judging.judge import judge
from tests.tasks.answers import make_question
from tests.tasks.judging.parts import frames
from tests.tasks.records import mutable_records

CONFIG = JudgeConfig(judge="fake", protocol="cross_encoder")
QUESTION = make_question(["dough and yeast", "bricks and mortar"], "")
CALL = make_calls(CONFIG, [QUESTION], 1, 0)[0]
OLD_ID = "e51f95a6dbf624c019a71cb88a350a8b"  # as it was before there were instructions


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


class Instructed(Lengths):
    """Scores by the length of the instruction."""

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[float]:
        return [len(text) / 100 for _, text in zip(pairs, instructions, strict=True)]


def test_an_instruction_is_asked_with_and_names_the_call() -> None:
    instructed = CONFIG.model_copy(update={"instructed": True})
    (first, second) = make_calls(instructed, [replace(QUESTION, definition="Find the proof.\n")], 1, 0)
    assert first.chat[2] == {"role": "instruction", "content": "Find the proof."}
    assert [answer.text for answer in AsLLM(Instructed()).answer([first, second])] == ["0.15", "0.15"]
    ids = {
        make_calls(config, [replace(QUESTION, definition=text)], 1, 0)[0].call_id
        for config, text in (
            (instructed, ""),
            (instructed, "Find the proof."),
            (instructed, "Find more."),
            (CONFIG, ""),
        )
    }
    assert len(ids) == 4
    assert make_calls(CONFIG, [replace(QUESTION, definition="other")], 1, 0)[0].call_id == CALL.call_id


def test_a_call_without_an_instruction_has_the_id_it_had() -> None:
    assert CALL.call_id == OLD_ID


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


def test_a_pair_that_is_too_long_is_scored_with_less_of_its_query_or_passage() -> None:
    class Narrow:
        """Reads 600 characters of a pair and gives no number for a longer one."""

        def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return [0.9 if len(query + passage) <= 600 else math.nan for query, passage in pairs]

    texts = ["The loaf bakes for forty minutes.", "The dough rests for an hour. " * 30]
    tables = frames([("q", f"d{number}", text) for number, text in enumerate(texts)], {"q": ["bread"]})
    result = judge(CONFIG, **tables, engine=Narrow(), ledger=None)
    assert set(result["verdicts"]["score"]) == {0.9}
    assert result["facts"]["failures"] == {"too_long": 1}


def test_where_a_text_is_cut_what_is_shown_names_the_call() -> None:
    window = replace(QUESTION.passages[0], mark="@0-5")
    cut, other = (replace(QUESTION, passages=(replace(window, text=text),)) for text in ("dough", "yeast"))
    ids = {make_calls(CONFIG, [question], 1, 0)[0].call_id for question in (QUESTION, cut, other)}
    assert len(ids) == 3
    long = replace(QUESTION, query="what is bread" * 50)
    assert make_calls(CONFIG, [long], 1, 0)[0].call_id not in ids
