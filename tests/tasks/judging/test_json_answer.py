"""The JSON object of an answer: found in prose, read once, and never guessed at."""

import time

import pytest

from tasks.judging.json_answer import Pairs, final_object


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 2}',
        ' \n{"a": 2}\n ',
        '```json\n{"a": 2}\n```',
        'Because x > 1: {"a": 2}',
        'A set {1, 2} is no object: {"a": 2}',
        '<think>{"a": 1}?</think> So: {"a": 2}',
        'maybe {"a": 1}</think>{"a": 2}',
        '```json\n{"a": 2}\n```\nHope this helps!',
        '<answer>{"a": 2}</answer>',
        '<think>one? {"a": 1}</think>{"a": 2} is my answer.',
        '{"a": 2,}',
        "{'a': 2}",
        "So: {'a': 2, } as asked.",
    ],
    ids=[
        "bare", "spaced", "fenced", "prose", "brace_in_prose", "thoughts", "thoughts_unopened", "word_after_the_fence",
        "tagged", "thoughts_and_prose", "comma", "single_quotes", "all_of_it",
    ],
)  # fmt: skip
def test_the_only_object_of_an_answer_is_read(text: str) -> None:
    assert final_object(text) == [("a", 2.0)]


def test_commas_and_quotes_inside_of_strings_stay_as_they_are() -> None:
    assert final_object('{"a": ["x,}", "it\'s",], "b": {"c": "}",},}') == [
        ("a", ["x,}", "it's"]), ("b", [("c", "}")]),
    ]  # fmt: skip
    assert final_object("{'a': None, 'b': [True, False], 'c': 'x, y}'}") == [
        ("a", None), ("b", [True, False]), ("c", "x, y}"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no object",
        '{"a": 1} or rather {"a": 2}',
        '{"a": 1} and so on}',
        '{"a": 1}, and so on',
        '{"a": 1} I meant</think> nothing',
        '<think>{"a": 1} or',
        "<think>{'a': 1}</think> nothing",
        "{'a': 1} or {'a': 2}",
        "{'a': 'it's 1'}",
        "{'a': \"1\"}",
        '{"a": 1,,}',
        "{'a': 1",
        "[{'a': 1}]",
        '{"final": {"a": 1}',
        '[{"a": 1}',
        '[1, {"a": 1}]',
        '{"a": 1}}',
        '{"a": 1}</think>{"a": 2}',
        '```{"a": 1}</think>{"a": 2}',
        '<think>{"a": 1}</think> {1}',
        '</think>{"a": 1} {"a": 2}',
    ],
)
def test_where_it_is_not_the_only_object_nothing_is_read(text: str) -> None:
    assert final_object(text) is None


def test_a_key_that_comes_twice_has_no_value_and_stays_in_the_list() -> None:
    found = final_object('{"a": 1, "a": 2, "b": {"c": null}}')
    assert found == [("a", 1.0), ("a", 2.0), ("b", [("c", None)])]
    assert (found.only("a"), found.only("missing"), found.only("b")) == (None, None, [("c", None)])
    assert isinstance(found.only("b"), Pairs)


def test_raw_line_breaks_and_numbers_of_any_size_are_let_through() -> None:
    assert final_object('{"a": "one\ntwo", "b": ' + "9" * 5000 + ', "c": NaN}') is not None
    assert final_object('{"a": "one\ntwo"}') == [("a", "one\ntwo")]


def test_a_megabyte_of_nonsense_is_refused_within_a_second() -> None:
    started = time.process_time()
    for part in ("{", '{"', '{"a":', '{"verdicts":{', "[", '{ "', "</think>{", '"'):
        assert final_object(part * (1_000_000 // len(part)) + "}") is None
    assert time.process_time() - started < 8
