"""Bodies of requests, and what responses of an OpenAI-compatible endpoint mean."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from infra.engines.answers import Answer
from infra.engines.openai_requests import (
    Reply,
    Trouble,
    estimate_tokens,
    read_completion,
    read_object,
    read_status,
    request_body,
    serialise,
    wait_asked,
)
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


@pytest.mark.parametrize(
    ("statuses", "passing", "fatal"),
    [
        ((300, 307, 399, 401, 402, 403, 404, 405), False, True),
        ((408, 409, 425, 429, 500, 503, 599), True, False),
        ((400, 406, 410, 418, 422, 424, 499), False, False),
    ],
    ids=["no request can succeed", "another try may", "this request cannot"],
)
def test_what_a_status_without_words_means(statuses: tuple[int, ...], passing: bool, fatal: bool) -> None:
    found = {status: read_status(Reply(status, "")) for status in statuses}
    assert found == {status: Trouble(str(status), "", passing=passing, fatal=fatal) for status in statuses}


@pytest.mark.parametrize("status", [200, 201, 299])
def test_every_success_is_one(status: int) -> None:
    assert read_status(Reply(status, "")) is None


@pytest.mark.parametrize(
    ("status", "code", "fatal"),
    [
        (400, "unsupported_parameter", True),
        (400, "unsupported_value", True),
        (400, "unknown_parameter", True),
        (422, "model_not_found", True),
        (429, "insufficient_quota", True),
        (429, "billing_hard_limit_reached", True),
        (429, "billing_not_active", True),
        (429, "rate_limit_exceeded", False),
        (500, "insufficient_quota", False),
    ],
)
def test_a_code_tells_that_no_request_can_succeed(status: int, code: str, fatal: bool) -> None:
    trouble = read_status(Reply(status, json.dumps({"error": {"type": code, "message": "m"}})))
    assert trouble is not None
    assert (trouble.fatal, trouble.passing) == (fatal, not fatal)


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (403, "flagged by moderation", "refused"),
        (422, "content_policy_violation", "refused"),
        (429, "flagged by moderation", "429"),
        (422, "the input is too long", "too_long"),
        (403, "the input is too long", "403"),
        (413, "", "too_long"),
    ],
)
def test_words_are_read_only_where_the_status_allows_them(status: int, words: str, kind: str) -> None:
    trouble = read_status(Reply(status, json.dumps({"error": {"message": words}})))
    assert trouble is not None
    assert trouble.kind == kind


def test_only_a_trouble_that_passes_is_waited_for_as_the_headers_say() -> None:
    headers = {"retry-after": "3"}
    assert read_status(Reply(429, "", headers)) == Trouble("429", "", passing=True, wait=3.0)
    assert read_status(Reply(418, "", headers)) == Trouble("418", "")


def test_a_body_is_written_with_sorted_keys_and_letters_as_they_are() -> None:
    assert serialise({"b": 1, "a": "ü"}) == '{"a": "ü", "b": 1}'
    trouble = serialise({"a": {1, 2}})
    assert trouble == Trouble("request", "cannot be written as JSON: TypeError")


def test_tokens_are_estimated_by_four_characters_of_every_message_and_the_answers_limit() -> None:
    request = Asked("x" * 30, max_tokens=7)  # beside "You judge." of ten letters
    assert estimate_tokens(request) == 40 // 4 + 7


def test_an_answer_without_usage_counts_nothing_and_one_with_usage_what_it_says() -> None:
    plain = read_completion(completion())
    assert isinstance(plain, Answer)
    assert (plain.prompt_tokens, plain.cached_tokens, plain.output_tokens, plain.fingerprint) == (0, 0, 0, "m")
    body = json.loads(completion().text)
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    full = read_completion(Reply(200, json.dumps({**body, "usage": usage, "system_fingerprint": "fp"})))
    assert isinstance(full, Answer)
    assert (full.prompt_tokens, full.cached_tokens, full.output_tokens, full.fingerprint) == (9, 4, 2, "m fp")


@pytest.mark.parametrize(("text", "told"), [("", "nothing"), ("[1]\n  x", "[1] x"), ("y" * 400, "y" * 300)])
def test_a_reply_that_is_no_object_is_asked_for_again_and_shown_in_short(text: str, told: str) -> None:
    assert read_object(Reply(200, text)) == Trouble("body", f"a JSON object expected, got {told}", passing=True)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"finish_reason": "content_filter"}, "refused"),
        ({"message": {"refusal": "no"}}, "refused"),
        ({"message": {"content": None}}, "error: no content"),
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": None}, "error: finish_reason None"),
    ],
)
def test_how_an_answer_ended_is_told(choice: dict[str, Any], reason: str) -> None:
    answer = read_completion(completion(**choice))
    assert isinstance(answer, Answer)
    assert answer.finish_reason == reason


def test_the_log_probabilities_are_those_of_the_first_token() -> None:
    def token(*likely: tuple[str, float]) -> dict[str, Any]:
        return {"top_logprobs": [{"token": text, "logprob": value} for text, value in likely]}

    logprobs = {"content": [token(("Yes", -0.5), ("No", -1.0)), token(("other", -0.1))]}
    answer = read_completion(completion(logprobs=logprobs))
    assert isinstance(answer, Answer)
    assert answer.logprobs == {"Yes": -0.5, "No": -1.0}
    without = read_completion(completion(logprobs={"content": [{"top_logprobs": None}]}))
    assert isinstance(without, Answer)
    assert without.logprobs == {}


@pytest.mark.parametrize("text", ['{"choices": []}', '{"choices": [{"message": null}]}', '{"choices": 3}'])
def test_a_completion_without_a_message_is_asked_for_again(text: str) -> None:
    result = read_completion(Reply(200, text))
    assert isinstance(result, Trouble)
    assert (result.kind, result.passing, result.text[:20]) == ("body", True, "no chat completion: ")


@pytest.mark.parametrize(
    ("trouble", "said", "answer"),
    [
        (Trouble("429", "slow down", passing=True), "status 429: slow down", "unavailable: status 429"),
        (Trouble("timeout", passing=True), "timeout", "unavailable: timeout"),
        (Trouble("400", "odd"), "status 400: odd", "error: status 400: odd"),
        (Trouble("refused", "flagged"), "refused: flagged", "refused"),
        (Trouble("too_long", "m"), "too_long: m", "too_long"),
    ],
)
def test_a_trouble_says_its_kind_and_the_endpoints_words(trouble: Trouble, said: str, answer: str) -> None:
    assert (str(trouble), trouble.as_answer()) == (said, Answer(finish_reason=answer))
    assert (Trouble("x").passing, Trouble("x").fatal, Trouble("x").wait) == (False, False, None)


@pytest.mark.parametrize(("top", "asked"), [(0, None), (1, 1), (20, 20), (21, 20)])
def test_as_many_log_probabilities_are_asked_for_as_are_wanted(top: int, asked: int | None) -> None:
    body = request_body(OpenAISpec(model="m"), Asked("x", top=top))
    assert (body.get("top_logprobs"), body.get("logprobs")) == (asked, asked and True)


def test_a_date_without_a_zone_is_taken_for_utc() -> None:
    later = datetime.now(UTC) + timedelta(seconds=600)
    for text in (format_datetime(later), later.strftime("%a, %d %b %Y %H:%M:%S -0000")):
        assert wait_asked({"retry-after": text}) == pytest.approx(600, abs=60)
    assert wait_asked({"retry-after": "-5"}) == 0.0
