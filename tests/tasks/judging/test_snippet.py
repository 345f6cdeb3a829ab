"""Protocol `snippet`: a snippet stands in its passage word for word, or there is none."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.judging import listwise
from tasks.judging.calls import Reading
from tasks.judging.config import JudgeConfig
from tasks.judging.snippet import make_calls, ranked_question, read_answer
from tests.tasks.answers import FakeAnswer, make_question

CONFIG = JudgeConfig(judge="fake", protocol="snippet")
PASSAGE = "Yeast is a fungus.\nIt makes  <b>dough</b> rise (within 2 h); heat kills it."
QUESTION = make_question([PASSAGE], "snippet")
CALL = make_calls(CONFIG, [QUESTION], 1, 0)[0]


def read(text: str, finish_reason: str = "stop") -> Reading:
    return read_answer(CONFIG, CALL, FakeAnswer(text, finish_reason=finish_reason))[CALL.ids[""]]


def said(snippet: object) -> str:
    return json.dumps({"snippet": snippet})


def test_one_call_per_passage_asks_for_a_snippet_or_null() -> None:
    assert (len(CALL.ids), CALL.max_tokens, CALL.top) == (1, 1024, 0)
    assert CALL.schema is not None
    assert CALL.schema["properties"] == {"snippet": {"type": ["string", "null"]}}
    assert "‹b>dough‹/b>" in CALL.chat[0]["content"]


def test_the_schema_compiles() -> None:
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string as accepts

    grammar = xgrammar.Grammar.from_json_schema(json.dumps(CALL.schema))
    assert accepts(grammar, said(None))
    assert accepts(grammar, said("Yeast is a fungus."))
    assert not accepts(grammar, said(5))


@pytest.mark.parametrize(
    ("snippet", "found"),
    [
        ("Yeast is a fungus.", "Yeast is a fungus."),
        ("yeast  IS a fungus. it makes", "Yeast is a fungus.\nIt makes"),
        ("<b>dough</b> rise", "‹b>dough‹/b> rise"),
        (" (within 2 h); ", "(within 2 h);"),
    ],
)
def test_a_snippet_is_given_as_it_stands_in_the_passage(snippet: str, found: str) -> None:
    assert read(said(snippet)) == Reading(snippet=found)


@pytest.mark.parametrize("text", [said(None), said("NO_ANSWER"), f"<think>hm</think>\n```json\n{said(None)}\n```"])
def test_no_answer_is_none(text: str) -> None:
    assert read(text) == Reading(preference="none")


@pytest.mark.parametrize(
    ("text", "finish_reason", "failure"),
    [
        (said("Yeast is not a fungus."), "stop", "not_verbatim"),
        (said("fungus. Yeast"), "stop", "not_verbatim"),
        (said(""), "stop", "not_verbatim"),
        (said(" ."), "stop", "not_verbatim"),
        (said("x" * 1_000_000), "stop", "not_verbatim"),
        (said("Yeast " * 1000), "stop", "not_verbatim"),
        (said(5), "stop", "bad_value"),
        (said(["Yeast"]), "stop", "bad_value"),
        ('{"snippet": null, "snippet": "Yeast"}', "stop", "bad_shape"),
        ('{"answer": null}', "stop", "bad_shape"),
        ("NO_ANSWER", "stop", "no_json"),
        ("null", "stop", "no_json"),
        ("", "stop", "empty"),
        (said(None), "length", "length"),
        (said(None), "refused", "refused"),
        (said(None), "error: lost", "error"),
    ],
)
def test_what_is_no_answer_to_the_question_is_a_named_failure_and_never_none(
    text: str, finish_reason: str, failure: str
) -> None:
    assert read(text, finish_reason) == Reading(failure=failure)


def test_the_second_pass_ranks_the_snippets_in_the_place_of_their_passages() -> None:
    question = make_question(["first text", "second text", "third text"], "snippet")
    first, second, third = (passage.hash for passage in question.passages)
    snippets = {first: Reading(snippet="a part"), second: Reading(preference="none"), third: Reading(failure="no_json")}
    ranked = ranked_question(question, snippets)
    assert ranked is not None
    assert [(passage.hash, passage.text) for passage in ranked.passages] == [(first, "a part")]
    (call,) = listwise.make_calls(CONFIG, [ranked], 1, 0)
    assert list(call.ids.values()) == [first]
    assert f'<snippet id="{next(iter(call.ids))}">\na part\n</snippet>' in call.chat[0]["content"]


def test_other_snippets_of_the_same_passages_make_another_call() -> None:
    question = make_question(["first text"], "snippet")
    calls = []
    for snippet in ("first", "text"):
        ranked = ranked_question(question, {question.passages[0].hash: Reading(snippet=snippet)})
        assert ranked is not None
        calls += listwise.make_calls(CONFIG, [ranked], 1, 0)
    assert calls[0].call_id != calls[1].call_id


def test_without_a_snippet_there_is_no_second_pass() -> None:
    assert ranked_question(QUESTION, {QUESTION.passages[0].hash: Reading(preference="none")}) is None


@given(st.text(max_size=400))
@settings(max_examples=500, deadline=None, derandomize=True, database=None)
def test_no_text_makes_the_reader_raise(text: str) -> None:
    assert len(read_answer(CONFIG, CALL, FakeAnswer(text))) == 1
