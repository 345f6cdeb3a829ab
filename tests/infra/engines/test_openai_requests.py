"""Bodies of requests, and what responses of an OpenAI-compatible endpoint mean."""

import json
from typing import Any

import pytest

from infra.engines.answers import Answer
from infra.engines.openai_requests import Reply, Trouble, read_completion, read_status, request_body, wait_asked
from infra.engines.specs import OpenAISpec
from tests.infra.misbehaving import SCHEMA, Asked


def completion(**choice: Any) -> Reply:
    message = {"role": "assistant", "content": "Yes"} | choice.pop("message", {})
    return Reply(200, json.dumps({"model": "m", "choices": [{"finish_reason": "stop", "message": message, **choice}]}))


def test_the_request_says_what_the_spec_and_the_call_want_and_leaves_out_what_is_none() -> None:
    spec = OpenAISpec(model="m", seed=None, temperature=None, max_tokens_field="max_tokens", extra_body={"user": "u"})
    body = request_body(spec, Asked("hello", max_tokens=7, top=0))
    assert body == {"model": "m", "messages": Asked("hello").chat, "max_tokens": 7, "user": "u"}


def test_log_probabilities_are_asked_for_up_to_the_twenty_that_the_interface_allows() -> None:
    body = request_body(OpenAISpec(model="m"), Asked("hello", top=50))
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert (body["temperature"], body["seed"], body["max_completion_tokens"]) == (0.0, 0, 1)


@pytest.mark.parametrize(
    ("structured", "expected"),
    [
        ("json_schema", {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}),
        ("json_object", {"type": "json_object"}),
        ("none", None),
    ],
)
def test_a_schema_is_enforced_as_the_spec_says(structured: Any, expected: Any) -> None:
    spec = OpenAISpec(model="m", structured=structured)
    assert request_body(spec, Asked("x", schema=SCHEMA)).get("response_format") == expected
    assert "response_format" not in request_body(spec, Asked("x"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "9", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-reset-requests": "1h1m2.5s"}, 3662.5),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "6m0s",
          "x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "900"}, 0.12),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "2s",
          "x-ratelimit-remaining-requests": "5", "x-ratelimit-remaining-tokens": "7"}, 2.0),
        ({}, None),
    ],
)  # fmt: skip
def test_the_time_to_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_asked(headers) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (400, '{"error": {"code": "context_length_exceeded", "message": "m"}}', Trouble("too_long", "m")),
        (400, '{"message": "This model\'s maximum context length is 9", "code": 400}', "too_long"),
        (413, "", "too_long"),
        (400, '{"error": {"code": null, "innererror": {"code": "content_filter"}, "message": "m"}}', "refused"),
        (403, '{"error": {"message": "your input was flagged", "code": 403}}', "refused"),
        (529, "not json at all", Trouble("529", "not json at all", passing=True)),
        (418, '{"error": "a string"}', Trouble("418", "a string")),
        (404, '{"error": {"code": "model_not_found", "message": "m"}}', Trouble("404", "m", fatal=True)),
    ],
)
def test_an_error_status_is_read_by_its_code_or_its_words(status: int, text: str, expected: Trouble | str) -> None:
    trouble = read_status(Reply(status, text))
    assert trouble is not None
    assert trouble == expected if isinstance(expected, Trouble) else trouble.kind == expected


def test_a_reasoning_model_that_used_up_its_tokens_was_cut_and_not_refused() -> None:
    answer = read_completion(completion(finish_reason="length", message={"content": None}))
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish_reason) == ("", "length")


@pytest.mark.parametrize("message", [{"content": ["a", "list"]}, {"content": 3}])
def test_a_content_that_is_no_text_is_tried_again(message: dict[str, Any]) -> None:
    result = read_completion(completion(message=message))
    assert isinstance(result, Trouble)
    assert (result.kind, result.passing) == ("body", True)
