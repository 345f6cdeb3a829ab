"""Bodies of requests, and what responses of an OpenAI-compatible endpoint mean."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from infra.engines.answers import Answer, EndpointError
from infra.engines.openai_requests import (
    Reply,
    Trouble,
    estimate_tokens,
    read_completion,
    read_object,
    read_status,
    request_body,
    serialise,
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


def test_an_answer_that_a_prompt_begins_is_sent_as_the_endpoint_understands_it() -> None:
    chat = [*Asked("hello").chat, {"role": "assistant", "content": "It is"}]
    asked: Any = SimpleNamespace(chat=chat, max_tokens=1, top=5, schema=None)
    with pytest.raises(EndpointError, match="the prompt begins the answer; set the engine's `continues`"):
        request_body(OpenAISpec(model="m"), asked)
    bodies = {how: request_body(OpenAISpec(model="m", continues=how), asked) for how in ("message", "vllm", "prefix")}
    assert bodies["message"]["messages"] == bodies["vllm"]["messages"] == asked.chat
    assert bodies["vllm"]["continue_final_message"] is True
    assert bodies["vllm"]["add_generation_prompt"] is False
    assert "continue_final_message" not in bodies["message"]
    assert bodies["prefix"]["messages"][-1] == {"role": "assistant", "content": "It is", "prefix": True}


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
        ({"finish_reason": None}, "stop"),
        ({"finish_reason": None, "message": {"content": None}}, "error: no content"),
        ({"finish_reason": "eos"}, "stop"),
        ({"finish_reason": "eos_token"}, "stop"),
        ({"finish_reason": "STOP"}, "stop"),
        ({"finish_reason": "stop_sequence"}, "stop"),
        ({"finish_reason": "end_turn"}, "stop"),
        ({"finish_reason": "MAX_TOKENS"}, "length"),
        ({"finish_reason": "max_tokens", "message": {"content": None}}, "length"),
        ({"finish_reason": "SAFETY"}, "refused"),
        ({"finish_reason": "tool_calls"}, "error: finish_reason tool_calls"),
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


# ---- replies of other shapes ----


def first_token(*entries: dict[str, Any], **logprobs: Any) -> dict[str, float]:
    given = {"content": [{"top_logprobs": list(entries)}]} if entries else logprobs
    answer = read_completion(completion(logprobs=given))
    assert isinstance(answer, Answer)
    return dict(answer.logprobs)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"token": "\u0120Yes"}, " Yes"),
        ({"token": "\u2581Yes"}, " Yes"),
        ({"token": " yes", "bytes": None}, " yes"),
        ({"token": "<0x59>"}, "Y"),
        ({"token": "<0xE2>"}, "<0xE2>"),
        ({"token": "\\xe2", "bytes": [226]}, "\\xe2"),
        ({"token": "bytes:\\xc3\\xa9", "bytes": [195, 169]}, "\u00e9"),
        ({"bytes": [89, 101, 115]}, "Yes"),
        ({"token": "\u0120Yes", "bytes": [196, 160, 89, 101, 115]}, " Yes"),
        ({"token": "Yes", "bytes": "Yes"}, "Yes"),
    ],
)
def test_a_token_is_read_however_its_endpoint_spells_it(entry: dict[str, Any], text: str) -> None:
    assert first_token({"logprob": -0.5, **entry}) == {text: -0.5}


def test_log_probabilities_in_the_older_form_are_read() -> None:
    assert first_token(tokens=["Yes"], top_logprobs=[{"\u0120Yes": -0.5, "No": -1.0}]) == {" Yes": -0.5, "No": -1.0}
    assert first_token(top_logprobs=5) == {}


def stream(*events: Any, done: bool = True) -> Reply:
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}" for event in events]
    text = "\n\n".join([": a comment", *lines, *(["data: [DONE]"] if done else [])])
    return Reply(200, text, {"content-type": "text/event-stream"})


def chunk(delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, **choice}]}


def test_an_event_stream_is_put_together_where_it_is_complete() -> None:
    token = {"token": "Yes", "logprob": -0.1, "top_logprobs": [{"token": "Yes", "logprob": -0.1}]}
    parts = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Yes"}, logprobs={"content": [token]}),
        chunk({"content": " so"}, finish_reason="length"),
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
    ]
    answer = read_completion(stream(*parts))
    assert answer == Answer(
        text="Yes so", logprobs={"Yes": -0.1}, finish_reason="length", prompt_tokens=9, output_tokens=2, fingerprint="m"
    )
    assert isinstance(read_completion(stream(*parts, done=False)), Answer)
    whole = read_completion(stream(json.loads(completion().text), done=False))
    assert isinstance(whole, Answer)
    assert (whole.text, whole.finish_reason) == ("Yes", "stop")


@pytest.mark.parametrize(
    "reply",
    [
        stream(chunk({"content": "Ye"}), done=False),
        stream(chunk({"content": "Ye"}), '{"choices": [{"del'),
        stream('{"choices": [3]}'),
        stream(),
    ],
)
def test_a_stream_that_ends_early_is_asked_for_again(reply: Reply) -> None:
    found = read_completion(reply)
    assert isinstance(found, Trouble)
    assert (found.kind, found.passing) == ("body", True)
    assert "event stream" in found.text


def test_an_error_in_a_stream_is_one() -> None:
    found = read_completion(stream(chunk({"content": "Ye"}), {"error": {"message": "overloaded", "code": 503}}))
    assert found == Trouble("503", "overloaded", passing=True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "slow down", "code": 429}}, Trouble("429", "slow down", passing=True)),
        ({"error": {"message": "slow", "type": "rate_limit_error"}}, Trouble("429", "slow", passing=True)),
        ({"error": {"message": "5 a day", "code": "insufficient_quota"}}, Trouble("429", "5 a day", fatal=True)),
        ({"error": {"code": 429, "message": "limit of free-models-per-day"}},
         Trouble("429", "limit of free-models-per-day", fatal=True)),
        ({"object": "error", "message": "no such model", "code": 404}, Trouble("404", "no such model", fatal=True)),
        ({"error": {"message": "it is odd", "type": "invalid_request_error"}}, Trouble("400", "it is odd")),
        ({"error": {"message": "seed is not supported", "code": "400"}},
         Trouble("400", "seed is not supported", fatal=True)),
        ({"error": {"message": "flagged", "code": 403}}, Trouble("refused", "flagged")),
        ({"error": {"message": "maximum context length is 9", "code": 400}},
         Trouble("too_long", "maximum context length is 9")),
        ({"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required"}]},
         Trouble("error", "missing: model: Field required", passing=True)),
        ({"error": "it broke"}, Trouble("error", "it broke", passing=True)),
        ({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "bad gateway"}}]},
         Trouble("502", "bad gateway", passing=True)),
        ({"error": {"message": "no", "type": "authentication_error"}}, Trouble("401", "no", fatal=True)),
        ({"error": {"message": "busy", "type": "overloaded_error"}}, Trouble("503", "busy", passing=True)),
    ],
)  # fmt: skip
def test_an_error_in_a_body_of_status_200_is_read_by_its_code(body: Any, expected: Trouble) -> None:
    assert read_completion(Reply(200, json.dumps(body))) == expected


def test_an_empty_error_beside_an_answer_is_none() -> None:
    body = json.loads(completion().text)
    assert isinstance(read_completion(Reply(200, json.dumps({**body, "error": None}))), Answer)


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "x", 0], "msg": "not permitted", "input": "s"}]},
         "extra_forbidden: x.0: not permitted"),
        (422, {"message": {"detail": [{"loc": ["body", "y"], "msg": "a"}, {"loc": ["z"], "msg": "b"}]}}, "y: a; z: b"),
        (400, {"error": {"message": "[{'msg': 'bad', 'input': 'the whole prompt'}]"}}, "[{'msg': 'bad',"),
        (400, {"error": {"message": "x [type=extra, input_value='the prompt']"}}, "x [type=extra,"),
        (400, {"error": {"message": "Invalid 'input': maximum request size is 9"}},
         "Invalid 'input': maximum request size is 9"),
        (400, {"error": {"message": "Invalid 'input': 'the whole text' is odd"}}, "Invalid"),
        (400, {"error": {"message": "Invalid input: the whole text"}}, "Invalid"),
        (400, [{"error": {"message": "in a list", "code": 400}}], "in a list"),
        (418, {"title": "A teapot"}, "A teapot"),
        (418, {"errors": ["one", "two"]}, "one; two"),
        (418, {"message": {"message": {"message": "deep"}}}, "deep"),
        (418, {"code": 7}, '{"code": 7}'),
        (418, {"message": "\x1b[31mred\u202e\x00 text"}, "[31mred text"),
    ],
)  # fmt: skip
def test_the_words_of_an_error_are_found_in_every_form_and_repeat_nothing_that_was_sent(
    status: int, text: Any, words: str
) -> None:
    trouble = read_status(Reply(status, json.dumps(text)))
    assert trouble is not None
    assert trouble.text == words


@pytest.mark.parametrize(
    ("status", "text", "content_type", "words"),
    [
        (502, "<html><head><title>502 Bad\n Gateway</title></head></html>", "", 'text/html ("502 Bad Gateway")'),
        (404, "<!DOCTYPE html><body><h1 class='x'>Not here</h1>", "", 'text/html ("Not here")'),
        (418, "Sign in, please", "text/html; charset=utf-8", "text/html"),
        (418, "<xml>no page</xml>", "text/xml", "<xml>no page</xml>"),
    ],
)
def test_a_page_is_named_by_its_title(status: int, text: str, content_type: str, words: str) -> None:
    trouble = read_status(Reply(status, text, {"content-type": content_type}))
    assert trouble is not None
    assert trouble.text == words


def test_json_as_deep_as_no_answer_is_no_answer() -> None:
    found = read_object(Reply(200, "[" * 100_000))
    assert isinstance(found, Trouble)
    assert found.kind == "body"


@pytest.mark.parametrize(
    ("trouble", "all_of_them"),
    [
        (Trouble("400", "odd"), True),
        (Trouble("body", "a page", passing=True), True),
        (Trouble("error", "odd", passing=True), True),
        (Trouble("429", passing=True), False),
        (Trouble("503", passing=True), False),
        (Trouble("refused"), False),
        (Trouble("too_long"), False),
    ],
)
def test_faults_of_a_pair_and_outages_say_nothing_of_the_other_requests(trouble: Trouble, all_of_them: bool) -> None:
    assert trouble.concerns_all is all_of_them


@pytest.mark.parametrize(
    "words",
    [
        "`inputs` tokens + `max_new_tokens` must be <= 4096",
        "The input token count (9) exceeds the maximum number of tokens allowed (8)",
        "input length and `max_tokens` exceed context limit: 9 + 1 > 8",
        "'max_tokens' is too large: 5. This model's maximum context length is 8 tokens",
        "Please reduce the length of the messages",
    ],
)
def test_a_prompt_that_is_too_long_is_told_in_many_words(words: str) -> None:
    trouble = read_status(Reply(400, json.dumps({"error": {"message": words}})))
    assert trouble is not None
    assert trouble.kind == "too_long"


HOSTILE = "\x1b]0;title\x07\x1b[31m\ud800" + "x" * 10_000


def test_names_that_an_endpoint_gives_hold_few_characters_and_none_that_a_terminal_obeys() -> None:
    reply = json.dumps({"model": HOSTILE, "choices": [{"finish_reason": HOSTILE, "message": {"content": "Yes"}}]})
    answer = read_completion(Reply(200, reply))
    assert isinstance(answer, Answer)
    for text in (answer.fingerprint, answer.finish_reason):
        assert text.encode().decode().isprintable()
        assert len(text) < 400


@pytest.mark.parametrize("count", [-5, -(10**9), 10**30, 1e308])
def test_a_number_of_tokens_that_nobody_can_have_used_counts_as_not_given(count: float) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count, "prompt_tokens_details": {"cached_tokens": count}}
    reply = json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": "Yes"}}], "usage": usage})
    answer = read_completion(Reply(200, reply))
    assert isinstance(answer, Answer)
    assert (answer.prompt_tokens, answer.output_tokens, answer.cached_tokens) == (0, 0, 0)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "5000", "1e308"])
def test_a_number_that_is_no_log_probability_or_no_count_is_a_fault_of_that_reply_alone(value: str) -> None:
    top = f'{{"token": "Yes", "logprob": {value}}}'
    message = '"finish_reason": "stop", "message": {"content": "Yes"}'
    logprobs = f'{{"choices": [{{{message}, "logprobs": {{"content": [{{"top_logprobs": [{top}, {top}]}}]}}}}]}}'
    usage = f'{{"choices": [{{{message}}}], "usage": {{"prompt_tokens": Infinity}}}}'
    for text in (logprobs, usage):
        trouble = read_completion(Reply(200, text))
        assert isinstance(trouble, Trouble)
        assert (trouble.kind, trouble.passing) == ("body", True)
