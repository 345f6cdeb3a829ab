"""The engine of an OpenAI-compatible endpoint against a server that misbehaves on purpose."""

import gzip
import itertools
import json
import logging
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

import infra.engines.openai_endpoint
import infra.engines.openai_requests
from infra.engines.answers import Answer, EndpointError
from infra.engines.openai_endpoint import Endpoint, OpenAIEngine
from infra.engines.openai_requests import Reply, read_status
from infra.engines.specs import OpenAISpec
from tests.conftest import free_port
from tests.infra.misbehaving import _REFUSALS, SCHEMA, SECRET, Asked, MisbehavingServer, answer_by_hash, as_json


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setattr(infra.engines.openai_endpoint, "_FIRST_DELAY", 0.01)


@pytest.fixture
def engine_of() -> Iterator[Callable[..., OpenAIEngine]]:
    engines = []

    def make(server: MisbehavingServer | str, **changes: Any) -> OpenAIEngine:
        url = server if isinstance(server, str) else server.url
        engines.append(OpenAIEngine(OpenAISpec(**{"model": "judge-1", "base_url": url, "timeout": 60.0, **changes})))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def ask(engine: OpenAIEngine, *contents: str) -> list[Answer]:
    return list(engine.answer([Asked(content) for content in contents]))


# ---- what is sent ----


def test_requests_with_different_limits_go_out_as_they_are(engine_of: Callable[..., OpenAIEngine]) -> None:
    with MisbehavingServer() as server:
        requests = [Asked("a", 1, 5), Asked("b", 64, 0, SCHEMA), Asked("c", 9, 20)]
        answers = engine_of(server).answer(requests)
        sent = {call.body["messages"][-1]["content"]: call.body for call in server.calls}
        expected = {r.content: (r.max_tokens, r.top > 0, r.schema is not None) for r in requests}
        assert {
            content: (body["max_completion_tokens"], "logprobs" in body, "response_format" in body)
            for content, body in sent.items()
        } == expected
        assert answers[1].logprobs == {}
        assert answers[1].text in ('{"verdict": "yes"}', '{"verdict": "no"}')


# ---- what comes back ----


def test_answers_come_in_the_requests_order_with_everything_the_endpoint_said(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    contents = [f"passage {number}" for number in range(40)]
    with MisbehavingServer() as server:
        answers = ask(engine_of(server, concurrency=8), *contents)
    for content, answer in zip(contents, answers, strict=True):
        text, logprobs = answer_by_hash({"messages": [{"content": content}]})
        assert answer == Answer(
            text=text,
            logprobs=logprobs,
            finish_reason="stop",
            prompt_tokens=len(content) // 4 + 1,
            cached_tokens=len(content) // 8,
            output_tokens=1,
            fingerprint="judge-1-dated fp_1",
        )


def test_no_requests_send_nothing(engine_of: Callable[..., OpenAIEngine]) -> None:
    with MisbehavingServer() as server:
        assert list(engine_of(server).answer([])) == []
        assert server.calls == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("truncated", "length"),
        ("refusal", "refused"),
        ("content_filter", "refused"),
        ("filtered", "refused"),
        ("too_long", "too_long"),
        ("garbage", "stop"),
        ("null_content", "error: no content"),
        ("tool_calls", "error: finish_reason tool_calls"),
        ("bad_request", "error: status 400: something is odd about this one"),
    ],
)
def test_what_cannot_be_answered_says_why_is_asked_once_and_harms_no_other(
    engine_of: Callable[..., OpenAIEngine], kind: str, expected: str
) -> None:
    with MisbehavingServer() as server:
        answers = ask(engine_of(server), "first", f"[[{kind}]]", "last")
        assert [answer.finish_reason for answer in answers] == ["stop", expected, "stop"]
        assert server.counts == {"answered": 2, kind: 1}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("429", "429"),
        ("500", "500"),
        ("503", "503"),
        ("hang", "timeout"),
        ("reset", "connection"),
        ("bad_json", "body"),
        ("empty", "body"),
        ("no_choices", "body"),
    ],
)
def test_what_may_pass_is_tried_again_and_given_up_after_max_retries(
    engine_of: Callable[..., OpenAIEngine], kind: str, reason: str
) -> None:
    with MisbehavingServer(hang=3.0) as server:
        engine = engine_of(server, max_retries=2, timeout=1.0 if kind == "hang" else 60.0)
        answers = ask(engine, "fine", f"passes [[{kind}*2]]", f"lasts [[{kind}]]")
        assert [answer.finish_reason for answer in answers[:2]] == ["stop", "stop"]
        status = f"status {reason}" if reason.isdigit() else reason
        assert answers[2] == Answer(finish_reason=f"unavailable: {status}")
        assert server.counts == {"answered": 2, kind: 5}
        assert engine.counts == {f"retry_{reason}": 4, f"failed_{reason}": 1}


def test_five_hundred_requests_under_every_trouble_are_each_answered_once_and_the_counts_agree(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    passing = {"429": 0.05, "500": 0.05, "503": 0.03, "reset": 0.04, "bad_json": 0.03, "empty": 0.02, "hang": 0.01}
    lasting = {"truncated": 0.05, "refusal": 0.03, "content_filter": 0.03, "garbage": 0.03, "too_long": 0.02}
    contents = [f"passage {number}" for number in range(500)]
    with MisbehavingServer(passing | lasting, seed=3, hang=0.3) as server:
        engine = engine_of(server, concurrency=24, max_retries=8, timeout=30.0)  # what hangs is dropped before that
        answers = ask(engine, *contents)
    reasons = Counter(answer.finish_reason for answer in answers)
    assert reasons["refused"] == server.counts["refusal"] + server.counts["content_filter"]
    assert reasons["length"] == server.counts["truncated"]
    assert reasons["too_long"] == server.counts["too_long"]
    assert reasons["stop"] == server.counts["answered"] + server.counts["garbage"]
    assert sum(reasons.values()) == 500
    assert all(server.counts[kind] for kind in passing | lasting)
    retries = {kind: engine.counts[f"retry_{kind}"] for kind in ("429", "500", "503", "connection", "body", "timeout")}
    assert retries == {
        "429": server.counts["429"],
        "500": server.counts["500"],
        "503": server.counts["503"],
        "connection": server.counts["reset"] + server.counts["hang"],
        "body": server.counts["bad_json"] + server.counts["empty"],
        "timeout": 0,
    }
    assert max(server.paid.values()) == 1
    unspoiled = [(c, a) for c, a in zip(contents, answers, strict=True) if a.finish_reason == "stop" and a.logprobs]
    assert all(answer.logprobs == answer_by_hash({"messages": [{"content": c}]})[1] for c, answer in unspoiled)


def test_a_text_that_is_no_text_is_answered_with_an_error_and_harms_no_other(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    with MisbehavingServer() as server:
        answers = ask(engine_of(server), "fine", "half a character: \ud800")
    assert [a.finish_reason for a in answers] == [
        "stop", "error: request: cannot be written as JSON: UnicodeEncodeError",
    ]  # fmt: skip


# ---- when the engine as a whole cannot work ----


@pytest.mark.parametrize(
    ("kind", "message"),
    [("quota", "429.*quota"), ("unsupported", "400.*Unsupported parameter")],
)
def test_a_refusal_that_concerns_every_request_is_raised_at_once(
    engine_of: Callable[..., OpenAIEngine], kind: str, message: str
) -> None:
    with MisbehavingServer() as server, pytest.raises(EndpointError, match=f"(?s){message}.*judge-1.*OPENAI_API_KEY"):
        ask(engine_of(server), f"[[{kind}]]")
    assert server.counts == {kind: 1}


UNKNOWN_FIELD = {
    "object": "error",
    "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"],
                            "msg": "Extra inputs are not permitted", "input": 1}]},
    "type": "invalid_request_error",
    "code": None,
}  # fmt: skip


def completion(**choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Yes"}
    return {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "length", **choice}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 1}}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "words", "advice"),
    [
        (UNKNOWN_FIELD, 422, "status 422: extra_forbidden: max_completion_tokens: Extra inputs are not permitted",
         "set `max_tokens_field: max_tokens` in the tier's `engine`"),
        ({"detail": UNKNOWN_FIELD["message"]["detail"]}, 422, "extra_forbidden: max_completion_tokens",
         "`max_tokens_field: max_tokens`"),
        ({"error": {"message": "top_logprobs must be <= 5"}}, 400, "status 400: top_logprobs must be <= 5",
         "set `top: 5` in the tier's `judge`"),
        ({"error": {"message": "Logprobs is not enabled for this model"}}, 400, "status 400: Logprobs is not enabled",
         "set `protocol: listwise` in the tier's `judge`"),
        ({"message": "'seed' is not supported"}, 400, "status 400: 'seed' is not supported", "set `seed: null`"),
        ({"error": {"message": "the moon is full"}}, 400, "status 400: the moon is full", "check the model's name"),
        ({"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429}}, 200,
         "status 429: Rate limit exceeded: free-models-per-day", "run again once its limit is renewed"),
        ({"error": {"message": "No such key", "type": "authentication_error"}}, 200, "status 401: No such key",
         "check the key in the variable OPENAI_API_KEY"),
        (completion(logprobs=None), 200, "the endpoint gives no log-probabilities", "set `protocol: listwise`"),
    ],
    ids=["extra_field", "fastapi", "top", "logprobs_off", "seed", "unknown", "spent_in_200", "key_in_200", "logprobs"],
)  # fmt: skip
def test_a_fault_of_every_request_is_met_at_most_eight_times_and_told_with_the_endpoints_words_and_the_remedy(
    engine_of: Callable[..., OpenAIEngine], body: dict[str, Any], status: int, words: str, advice: str
) -> None:
    with MisbehavingServer(raw=lambda asked: as_json(body, status)) as server:
        engine = engine_of(server)
        for _ in range(2):  # another part, or another attempt, asks nothing
            with pytest.raises(EndpointError) as caught:
                ask(engine, *(f"pair {number}" for number in range(40)))
            assert words in str(caught.value)
            assert advice in str(caught.value)
            assert len(str(caught.value)) < 500
        assert 1 <= server.counts["raw"] <= 8
    assert caught.value.of_every_part


def test_a_page_in_place_of_json_is_asked_for_once_more_and_then_named_by_its_title(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    page = b"<!doctype html><html><head><title>Sign in \x1b[31m&amp; out</title></head></html>"
    with MisbehavingServer(raw=lambda asked: (200, "text/html; charset=utf-8", page)) as server:
        with pytest.raises(EndpointError) as caught:
            ask(engine_of(server), *(f"pair {number}" for number in range(40)))
        assert 16 <= server.counts["raw"] < 16 + 8  # those on their way when the sixteenth came
    assert 'a JSON object expected, text/html ("Sign in [31m& out") came; is base_url right?' in str(caught.value)
    assert "check `base_url`" in str(caught.value)


def test_an_endpoint_that_is_busy_all_the_time_is_asked_by_the_first_requests_alone_and_may_be_asked_again(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    said = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    with MisbehavingServer(raw=lambda asked: as_json(said)) as server:
        engine = engine_of(server, max_retries=1)
        with pytest.raises(ConnectionError, match=r"no answer to the first 8 requests.*status 429; slow down"):
            ask(engine, *(f"pair {number}" for number in range(40)))
        assert server.counts == {"raw": 16}
        server.raw = None
        assert {answer.finish_reason for answer in ask(engine, "x", "y")} == {"stop"}


def test_an_endpoint_that_begins_to_refuse_keeps_what_was_answered_and_is_not_asked_again(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    numbers = itertools.count()

    def refuse_after_ten(asked: Mapping[str, Any]) -> tuple[int, str, bytes] | None:
        return as_json({"error": {"message": "the moon is full"}}, 400) if next(numbers) >= 10 else None

    contents = [f"pair {number}" for number in range(100)]
    with MisbehavingServer(raw=refuse_after_ten) as server:
        engine = engine_of(server, concurrency=4)
        answers = ask(engine, *contents)
        reasons = Counter(answer.finish_reason for answer in answers)
        assert reasons["stop"] == 10
        refused = server.counts["raw"]
        assert (
            32 <= refused <= 32 + 2 * 3
        )  # up to three overtake the last answer, and three are on their way at the end
        assert reasons["unavailable: not asked: the endpoint refuses all requests"] >= 100 - 10 - refused
        with pytest.raises(EndpointError, match="the moon is full"):
            ask(engine, *contents)
        assert len(server.calls) == 10 + refused


def test_a_mixture_of_answers_and_equal_faults_goes_on(engine_of: Callable[..., OpenAIEngine]) -> None:
    def refuse_half(asked: Mapping[str, Any]) -> tuple[int, str, bytes] | None:
        odd = int(asked["messages"][-1]["content"].split()[-1]) % 2
        return as_json({"error": {"message": "the moon is full"}}, 400) if odd else None

    with MisbehavingServer(raw=refuse_half) as server:
        answers = ask(engine_of(server, concurrency=4), *(f"pair {number}" for number in range(200)))
        assert server.counts == {"raw": 100, "answered": 100}
    assert Counter(a.finish_reason for a in answers) == {"stop": 100, "error: status 400: the moon is full": 100}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b"<html><head><title>Attention Required!</title></head></html>"),
        (403, b'{"message": "Forbidden"}'),
        (404, b'{"error": {"message": "No endpoints found that can handle this request", "code": 404}}'),
        (400, b'{"error": {"message": "\'seed 7 is not supported\' cannot be read"}}'),
        (
            422,
            b'{"detail": [{"type": "value_error", "loc": ["body", "messages", 1], "msg": "unexpected temperature"}]}',
        ),
    ],
    ids=["page_of_a_firewall", "firewall", "router", "400_with_the_name_of_a_field", "422_with_the_name_of_a_field"],
)
def test_a_text_that_is_refused_while_others_are_answered_stops_nothing(
    engine_of: Callable[..., OpenAIEngine], status: int, body: bytes
) -> None:
    def refuse_one(asked: Mapping[str, Any]) -> tuple[int, str, bytes] | None:
        kind = "text/html" if body.startswith(b"<") else "application/json"
        return (status, kind, body) if asked["messages"][-1]["content"] == "pair 20" else None

    with MisbehavingServer(raw=refuse_one) as server:
        engine = engine_of(server)
        answers = ask(engine, *(f"pair {number}" for number in range(40)))
        again = ask(engine, "pair 20", "fine")
    assert Counter(a.finish_reason.partition(":")[0] for a in answers) == {"stop": 39, "error": 1}
    assert [a.finish_reason.partition(":")[0] for a in again] == ["error", "stop"]


def test_a_key_that_may_use_nothing_is_met_by_eight_requests(engine_of: Callable[..., OpenAIEngine]) -> None:
    with MisbehavingServer() as server:
        with pytest.raises(EndpointError, match=r"(?s)403.*not for you.*judge-1.*OPENAI_API_KEY may use this model"):
            ask(engine_of(server), *(f"[[forbidden]] {number}" for number in range(40)))
        assert server.counts == {"forbidden": 8}


def test_a_text_that_is_forbidden_is_no_fault_of_every_request_also_where_it_is_asked_about_first(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    with MisbehavingServer() as server:
        engine = engine_of(server)
        assert [a.finish_reason.partition(":")[0] for a in ask(engine, "[[forbidden]] a")] == ["error"]
        assert [a.finish_reason for a in ask(engine, "fine")] == ["stop"]


def test_texts_that_are_asked_about_again_one_after_the_other_stop_nothing(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    def refuse_some(asked: Mapping[str, Any]) -> tuple[int, str, bytes] | None:
        odd = int(asked["messages"][-1]["content"].split()[-1]) % 5 == 4
        return as_json({"error": {"message": "Content Exists Risk"}}, 400) if odd else None

    with MisbehavingServer(raw=refuse_some) as server:
        engine = engine_of(server)
        answers = ask(engine, *(f"pair {number}" for number in range(300)))
        again = ask(engine, *(f"pair {number}" for number in range(300) if number % 5 == 4))
        assert server.counts == {"raw": 120, "answered": 240}
    told = {"error: status 400: Content Exists Risk"}
    assert {answer.finish_reason for answer in answers} == {"stop"} | told
    assert {answer.finish_reason for answer in again} == told


def test_pairs_that_are_too_long_or_filtered_stop_nothing(engine_of: Callable[..., OpenAIEngine]) -> None:
    with MisbehavingServer() as server:
        contents = [f"[[{kind}]] {number}" for kind in ("too_long", "content_filter") for number in range(20)]
        answers = ask(engine_of(server), *contents, "fine")
        assert Counter(a.finish_reason for a in answers) == {"too_long": 20, "refused": 20, "stop": 1}
        assert len(server.calls) == 41


def test_few_requests_with_an_unknown_fault_are_told_apart_only_by_the_next_ones(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    with MisbehavingServer(raw=lambda asked: as_json({"error": "the moon is full"}, 400)) as server:
        engine = engine_of(server)
        for _ in range(2):
            reasons = {answer.finish_reason for answer in ask(engine, "a", "b", "c")}
            assert reasons == {"error: status 400: the moon is full"}
        with pytest.raises(EndpointError, match="the moon is full"):
            ask(engine, "a", "b")
        assert server.counts == {"raw": 8}


@pytest.mark.parametrize("status", [200, 500])
def test_a_body_without_an_end_is_not_read_to_its_end(
    engine_of: Callable[..., OpenAIEngine], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(infra.engines.openai_requests, "_MOST_BYTES", 2**20)
    body = b'{"choices": [' + b" " * 2**24
    with MisbehavingServer(raw=lambda asked: (status, "application/json", body)) as server:
        answer = ask(engine_of(server), "x")[0]
        assert answer.finish_reason == "error: body: a reply of at most 1 MiB expected, more came"
        assert server.counts == {"raw": 1}


def test_a_packed_body_is_bounded_by_its_unpacked_size(
    engine_of: Callable[..., OpenAIEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.engines.openai_requests, "_MOST_BYTES", 2**20)
    packed = [gzip.compress(b" " * 2**24), gzip.compress(json.dumps(completion(finish_reason="stop")).encode())]

    with MisbehavingServer(
        raw=lambda asked: (200, "application/json\r\ncontent-encoding: gzip", packed.pop(0))
    ) as server:
        engine = engine_of(server)
        assert "at most 1 MiB" in engine.answer([Asked("x", top=0)])[0].finish_reason
        assert engine.answer([Asked("x", top=0)])[0].text == "Yes"


def test_a_wrong_path_is_a_wrong_address(engine_of: Callable[..., OpenAIEngine]) -> None:
    with MisbehavingServer() as server, pytest.raises(ValueError, match=r"404.*base_url"):
        ask(engine_of(server.root + "/elsewhere"), "x")


def test_a_server_that_nobody_answers_for_is_reported_once_its_retries_are_used_up(
    engine_of: Callable[..., OpenAIEngine],
) -> None:
    engine = engine_of(f"http://127.0.0.1:{free_port()}/v1", max_retries=2)
    with pytest.raises(ConnectionError, match=r"no response to 3 tries.*connection"):
        ask(engine, "a", "b")


def test_a_missing_key_is_named_by_its_variable_and_loopback_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ValueError, match="JUDGE_KEY"):
        OpenAIEngine(OpenAISpec(model="m", api_key_env="JUDGE_KEY"))
    with MisbehavingServer() as server:
        spec = OpenAISpec(model="m", api_key_env="JUDGE_KEY", base_url=server.url)
        assert ask(OpenAIEngine(spec), "x")[0].finish_reason == "stop"
        assert server.calls[0].headers["authorization"] == "Bearer none"


@pytest.mark.parametrize(
    "base_url",
    ["127.0.0.1:8000", "ftp://127.0.0.1/v1", "http://me:hidden@127.0.0.1/v1", "http://127.0.0.1/v1?k=hidden"],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_at_once_and_not_repeated(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        OpenAIEngine(OpenAISpec(model="m", base_url=base_url))
    assert "hidden" not in str(caught.value)


# ---- the key ----


@pytest.mark.parametrize("azure", [False, True])
def test_no_other_secret_of_the_environment_is_sent_than_the_key_that_is_named(
    engine_of: Callable[..., OpenAIEngine], monkeypatch: pytest.MonkeyPatch, azure: bool
) -> None:
    others = ("AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET", "HF_TOKEN")
    for name in (*others, "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "another-x7Kq2mZ9")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer another-x7Kq2mZ9\nX-More: another-x7Kq2mZ9")
    with MisbehavingServer(key=SECRET) as server:
        engine = engine_of(server.root, api_version="2024-10-21") if azure else engine_of(server)
        assert ask(engine, "x")[0].finish_reason == "stop"
        assert "another-x7Kq2mZ9" not in str(server.calls)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "http://gpu.example:8000/v1"}, r"base_url: http://gpu\.example:8000 .*allow_plain_http: true"),
        ({"extra_body": {"headers": {"X-Api-Key": "hidden"}}}, r"extra_body: no credential .* headers\.X-Api-Key"),
        ({"extra_body": {"user": "sk-proj-hiddenhiddenhidden1"}}, "extra_body: no credential .* user"),
    ],
)
def test_no_client_is_built_that_would_send_a_key_unencrypted_or_a_second_credential(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Endpoint(OpenAISpec(model="m", **changes))
    assert "hidden" not in str(caught.value)
    Endpoint(OpenAISpec(model="m", base_url="http://gpu.example:8000/v1", allow_plain_http=True))


def test_what_an_endpoint_says_of_an_error_is_kept_without_secrets_and_an_answer_as_it_is(
    engine_of: Callable[..., OpenAIEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASS", "hunter2!")
    token = "ghp_" + "0123456789abcdefghij"
    said = {"message": "no: postgresql://me:pw12@db, hunter2!, " + token, "code": None}
    monkeypatch.setitem(_REFUSALS, "bad_request", (400, said))
    with MisbehavingServer(reply=lambda body: (f"hunter2! {token}", {})) as server:
        refused, answered = ask(engine_of(server), "[[bad_request]]", "fine")
    assert refused.finish_reason == "error: status 400: no: postgresql://me:***@db, ***, ***"
    assert answered.text == f"hunter2! {token}"


@pytest.mark.parametrize("status", [200, 401])
def test_a_secret_is_hidden_in_an_error_of_any_status_and_however_json_spells_it(
    engine_of: Callable[..., OpenAIEngine], status: int
) -> None:
    spelt = "".join(f"\\u{ord(letter):04x}" for letter in SECRET)
    said = f'{{"error": {{"message": "no: {spelt}, postgresql://me:hunter2x@db", "code": 401}}}}'
    with (
        MisbehavingServer(raw=lambda body: (status, "application/json", said.encode())) as server,
        pytest.raises(EndpointError) as caught,
    ):
        ask(engine_of(server), "x")
    assert "status 401: no: ***, postgresql://me:***@db (model" in str(caught.value)


@pytest.mark.parametrize("written", ["judge/key+1234", "judge%2Fkey%2B1234", "judge\\/key+1234"])
def test_a_key_that_an_endpoint_repeats_is_hidden_however_it_writes_it(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "judge/key+1234")
    endpoint = Endpoint(OpenAISpec(model="m", base_url="http://127.0.0.1:9/v1"))
    assert endpoint._hide(f'{{"error": "wrong key {written}"}}') == '{"error": "wrong key [key]"}'


def test_the_key_is_in_no_error_answer_or_log(
    engine_of: Callable[..., OpenAIEngine], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    with MisbehavingServer(key="another key", reply=lambda body: (f"you sent {SECRET}", {})) as server:
        engine = engine_of(server)
        with pytest.raises(EndpointError) as caught:
            ask(engine, "x")
        server.key = None
        engine = engine_of(server)
        answers = ask(engine, "x", "[[reset*1]] y", "[[429*1]]")
    shown = [
        str(caught.value), repr(caught.value.args), str(pickle.dumps(caught.value)), caplog.text,
        str(answers), str(engine.counts),
    ]  # fmt: skip
    assert "Incorrect API key provided: [key]" in shown[0]
    assert answers[0].text == "you sent [key]"
    assert not any(SECRET in text for text in shown)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_key_with_a_line_break_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\nsecond line")
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as caught:
        OpenAIEngine(OpenAISpec(model="m"))
    assert "0123" not in str(caught.value)


def test_texts_and_key_are_not_sent_on_to_a_host_that_nobody_named(engine_of: Callable[..., OpenAIEngine]) -> None:
    trouble = read_status(Reply(307, "", {"location": "https://elsewhere.example/"}))
    assert trouble is not None
    assert trouble.fatal
    assert engine_of("http://127.0.0.1:9/v1")._endpoint.client._client.follow_redirects is False


# ---- pace ----


def test_nobody_asks_again_before_the_time_a_429_named(engine_of: Callable[..., OpenAIEngine]) -> None:
    with MisbehavingServer(retry_after={"retry-after": "1"}) as server:
        engine, beside = engine_of(server), engine_of(server)
        ask(engine, "warm up")
        began = time.monotonic()

        def follow() -> None:
            while server.counts["429"] == 0:
                time.sleep(0.01)
            time.sleep(0.3)  # the reply arrives
            ask(beside, "other engine")

        other = threading.Thread(target=follow)
        other.start()
        assert ask(engine, "[[429*1]]")[0].finish_reason == "stop"
        other.join()
        later = [call.at - began for call in server.calls[2:]]
    assert len(later) == 2
    assert min(later) >= 1.0
    assert max(later) < 15.0


def test_an_endpoint_that_wants_hours_is_not_waited_for(engine_of: Callable[..., OpenAIEngine]) -> None:
    with MisbehavingServer(retry_after={"x-ratelimit-reset-requests": "7h12m"}) as server:
        began = time.monotonic()
        assert ask(engine_of(server), "fine", "[[429]]")[1].finish_reason == "unavailable: status 429"
        assert server.counts["429"] == 1
    assert time.monotonic() - began < 30


def test_an_engine_keeps_to_its_requests_per_minute(engine_of: Callable[..., OpenAIEngine]) -> None:
    with MisbehavingServer() as server:
        engine, began = engine_of(server, requests_per_minute=600.0), time.monotonic()
        ask(engine, *(f"p{i}" for i in range(25)))
        times = sorted(call.at - began for call in server.calls)
    assert times[-1] >= 1.4  # ten at once, fifteen a tenth of a second apart
    assert all(times[i] >= (i - 10) * 0.1 for i in range(25))


def test_no_more_requests_are_in_flight_than_the_spec_allows(engine_of: Callable[..., OpenAIEngine]) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def reply(body: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
        nonlocal most
        most = max(most, inside)
        return "Yes", {"Yes": -0.1}

    class Counting(MisbehavingServer):
        def chat(self, body: Mapping[str, Any]) -> tuple[str, int, Any]:
            nonlocal inside
            with lock:
                inside += 1
            time.sleep(0.02)
            try:
                return super().chat(body)
            finally:
                with lock:
                    inside -= 1

    with Counting(reply=reply) as server:
        ask(engine_of(server, concurrency=4), *(f"p{i}" for i in range(40)))
    assert 2 <= most <= 4


# ---- Azure ----


def test_azure_is_asked_by_deployment_with_its_version_and_header(engine_of: Callable[..., OpenAIEngine]) -> None:
    with MisbehavingServer(key=SECRET) as server:
        engine = engine_of(server.root, api_version="2024-10-21")
        assert ask(engine, "x")[0].finish_reason == "stop"
    call = server.calls[0]
    assert call.path == "/openai/deployments/judge-1/chat/completions"
    assert call.query == {"api-version": ["2024-10-21"]}
    assert call.headers["api-key"] == SECRET
    assert "authorization" not in call.headers


def test_azure_needs_an_address() -> None:
    with pytest.raises(ValueError, match=r"base_url.*Azure"):
        OpenAIEngine(OpenAISpec(model="m", api_version="2024-10-21"))


# ---- a real server ----
