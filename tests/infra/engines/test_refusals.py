"""When equal faults mean that every request would fail, and which setting is named then."""

import doctest
from typing import Any

import pytest

from infra.engines import refusals
from infra.engines.refusals import EqualFaults, names_a_field, remedy
from infra.engines.specs import OpenAISpec


def counted(faults: EqualFaults, kind: str, *words: str, passing: bool = False) -> list[bool]:
    return [faults.add(kind, said, passing=passing) for said in words]


def test_eight_equal_faults_before_any_answer_are_enough_and_thirty_two_after_one() -> None:
    faults = EqualFaults()
    assert counted(faults, "400", *["the moon is full"] * 8) == [False] * 7 + [True]
    faults.note_answer()
    assert counted(faults, "400", *["the moon is full"] * 32) == [False] * 31 + [True]
    assert faults.answers == 1


def test_faults_that_may_pass_need_twice_as_many() -> None:
    assert counted(EqualFaults(), "body", *["a page came"] * 16, passing=True) == [False] * 15 + [True]


def test_an_answer_or_another_fault_between_them_begins_the_count_again() -> None:
    faults = EqualFaults()
    assert not any(counted(faults, "400", *["a"] * 7, "b", *["a"] * 7))
    assert not any(counted(faults, "422", *["a"] * 7))
    faults.note_answer()
    assert not any(counted(faults, "422", *["a"] * 31))


def test_faults_between_answers_may_come_again_in_a_row() -> None:
    faults = EqualFaults()
    faults.note_answer()
    for _ in range(10):
        assert not any(counted(faults, "400", "a"))
        faults.note_answer()
    assert counted(faults, "400", *["a"] * 72) == [False] * 71 + [True]


def test_numbers_and_ids_make_no_difference_between_faults() -> None:
    said = [f"request req_{number}f{number}: prompt of {number} tokens is odd" for number in range(8)]
    assert counted(EqualFaults(), "400", *said)[-1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("extra_forbidden: max_completion_tokens: Extra inputs are not permitted", True),
        ("Unrecognized request argument supplied: seed", True),
        ("Logprobs is not enabled for this model", True),
        ("top_logprobs must be <= 5", True),
        ("Invalid 'response_format' of type json_schema", True),
        ("'temperature' does not support 0.0 with this model", True),
        ("max_tokens must be at most 12, as the context holds no more", False),
        ("the text speaks of a seed", False),
        ("something is invalid", False),
    ],
)
def test_words_that_refuse_a_field_are_told_from_others(words: str, told: bool) -> None:
    assert names_a_field(words) is told


@pytest.mark.parametrize(
    ("kind", "words", "spec", "advice"),
    [
        ("422", "max_completion_tokens: Extra inputs", {}, "set `max_tokens_field: max_tokens` in the tier's `engine`"),
        ("400", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'",
         {"max_tokens_field": "max_tokens"}, "set `max_tokens_field: max_completion_tokens` in the tier's `engine`"),
        ("400", "max_tokens: expected a value >= 16", {}, "the endpoint gives no answer of a single token: set "
                                                          "`protocol: listwise` in the tier's `judge`"),
        ("400", "Unknown parameter: 'seed'", {}, "set `seed: null` in the tier's `engine`"),
        ("400", "temperature: only the default is supported", {}, "set `temperature: null` in the tier's `engine`"),
        ("400", "top_logprobs must be <= 5", {}, "set `top: 5` in the tier's `judge`"),
        ("400", "top_logprobs: 20 is not between 0 and 8", {}, "set `top: 8` in the tier's `judge`"),
        ("400", "top_logprobs is not supported", {}, "set `protocol: listwise` in the tier's `judge`"),
        ("400", "Logprobs is not enabled for this model", {},
         "the endpoint gives no log-probabilities for this model: set `protocol: listwise` in the tier's `judge`"),
        ("400", "response_format json_schema is not supported", {},
         "set `structured: json_object` or `structured: none` in the tier's `engine`"),
        ("400", "unknown response_format", {"structured": "json_object"},
         "set `structured: none` in the tier's `engine`"),
        ("400", "guided_json is unknown", {"extra_body": {"guided_json": {}}}, "correct `extra_body` in the tier's "
                                                                               "`engine`"),
        ("422", "top_k: not permitted", {"extra_body": {"top_k": 1}}, "correct `extra_body` in the tier's `engine`"),
        ("no_logprobs", "", {}, "set `protocol: listwise` in the tier's `judge`"),
        ("401", "wrong", {"api_key_env": "JUDGE_KEY"}, "check the key in the variable JUDGE_KEY"),
        ("403", "no", {}, "check that the key in the variable OPENAI_API_KEY may use this model at this address"),
        ("402", "pay", {}, "the account has nothing left: add to it, or run again once its limit is renewed"),
        ("404", "", {}, "check `base_url` (most end in /v1) and `model`"),
        ("307", "", {}, "check `base_url` (most end in /v1) and `model`"),
        ("400", "The model `m` does not exist", {}, "check `base_url` (most end in /v1) and `model`"),
        ("body", 'text/html ("Sign in") came', {},
         "check `base_url`: it should be the address of the interface, and not that of a page"),
        ("400", "the moon is full", {}, "check the model's name, base_url, the key and its quota, and the fields that "
                                        "the endpoint knows"),
    ],
)  # fmt: skip
def test_the_setting_to_change_is_named(kind: str, words: str, spec: dict[str, Any], advice: str) -> None:
    assert remedy(kind, words, OpenAISpec(model="m", **spec)) == advice


def test_every_setting_that_is_named_exists() -> None:
    assert {"max_tokens_field", "seed", "temperature", "structured", "extra_body"} <= set(OpenAISpec.model_fields)
    assert doctest.testmod(refusals).failed == 0
