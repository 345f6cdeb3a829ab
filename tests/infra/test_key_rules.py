"""Which variable's value may be sent where, and what a request may not hold."""

import pytest

from infra.key_rules import KeyRules, credential_in, is_loopback, origin, plain_http_refusal
from infra.redact import redact

RULES = KeyRules.parse(
    "OPENAI_API_KEY@api.openai.com, AZURE_KEY@*.openai.azure.com GPU_KEY@http://gpu.example:8000,LOCAL@127.0.0.1:*,"
    "SIX@[::1]:8000"
)


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("OPENAI_API_KEY", "https://api.openai.com/v1"),
        ("OPENAI_API_KEY", "https://API.OpenAI.com:443/v1"),
        ("AZURE_KEY", "https://ours.openai.azure.com"),
        ("GPU_KEY", "http://gpu.example:8000/v1"),
        ("LOCAL", "http://127.0.0.1:31337/v1"),
        ("LOCAL", "https://127.0.0.1/v1"),
        ("SIX", "http://[::1]:8000/v1"),
    ],
)
def test_a_key_may_be_sent_to_the_hosts_beside_its_name(variable: str, address: str) -> None:
    assert RULES.refusal(variable, address) == ""


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("AWS_SECRET_ACCESS_KEY", "https://api.openai.com/v1"),
        ("OPENAI_API_KEY", "https://gpu.example/v1"),
        ("OPENAI_API_KEY", "http://api.openai.com/v1"),
        ("OPENAI_API_KEY", "https://api.openai.com:8443/v1"),
        ("OPENAI_API_KEY", "https://api.openai.com.evil.example/v1"),
        ("OPENAI_API_KEY", "https://evil.example/api.openai.com"),
        ("openai_api_key", "https://api.openai.com/v1"),
        ("AZURE_KEY", "https://openai.azure.com"),
        ("AZURE_KEY", "https://evilopenai.azure.com"),
        ("GPU_KEY", "https://gpu.example:8000/v1"),
        ("GPU_KEY", "http://gpu.example/v1"),
        ("SIX", "http://[::1]:8001/v1"),
        ("", "https://api.openai.com/v1"),
        ("OPENAI_API_KEY", ""),
        ("OPENAI_API_KEY", "https://api.openai.com:99999/v1"),
        ("LOCAL", "http://127.0.0.1:99999/v1"),
        ("SIX", "http://[::1/v1"),
    ],
)
def test_another_variable_host_port_or_scheme_is_refused_with_what_to_set(variable: str, address: str) -> None:
    refusal = RULES.refusal(variable, address)
    assert f"Add {variable}@{origin(address)} to RENEG_ALLOWED_KEYS" in refusal
    assert RULES.text in refusal


def test_unset_openais_key_may_go_to_openai_and_none_is_none_at_all() -> None:
    unset, none = KeyRules.parse(" "), KeyRules.parse("none")
    assert unset.refusal("OPENAI_API_KEY", "https://api.openai.com/v1") == ""
    assert unset.refusal("OPENAI_API_KEY", "http://127.0.0.1:8000/v1")
    assert none.refusal("OPENAI_API_KEY", "https://api.openai.com/v1")


@pytest.mark.parametrize(
    "entry", ["sk-a-key-itself", "GPU@", "@host", "KEY@https://host/path", "KEY@host:99999999", "1K@h"]
)
def test_an_entry_of_another_form_is_told_by_its_place_and_not_repeated(entry: str) -> None:
    with pytest.raises(ValueError, match="entry 2 is something else") as caught:
        KeyRules.parse(f"OPENAI_API_KEY@api.openai.com, {entry}")
    assert entry not in str(caught.value)


def test_a_key_goes_unencrypted_to_this_machine_only_unless_that_is_said() -> None:
    assert plain_http_refusal("http://127.0.0.1:8000/v1", allowed=False) == ""
    assert plain_http_refusal("http://[::1]:8000/v1", allowed=False) == ""
    assert plain_http_refusal("https://gpu.example/v1", allowed=False) == ""
    assert plain_http_refusal("http://gpu.example:8000/v1", allowed=True) == ""
    assert "set `allow_plain_http: true`" in plain_http_refusal("http://gpu.example:8000/v1", allowed=False)
    assert "http://10.0.0.7:8000 would get the key" in plain_http_refusal("http://10.0.0.7:8000/v1", allowed=False)


def test_loopback_is_this_machine_by_number_or_name() -> None:
    near = ["http://127.0.0.1", "http://127.9.9.9:1/x", "http://localhost:8000", "http://[::1]"]
    far = ["http://127.0.0.1.evil.example", "http://localhost.evil.example", "http://0.0.0.0", "http://10.0.0.1", ""]
    assert [is_loopback(address) for address in near + far] == [True] * 4 + [False] * 5


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"api_key": "x"}, "api_key"),
        ({"headers": {"Authorization": "x"}}, "headers.Authorization"),
        ({"a": [{"x-api-key": "x"}]}, "a.0.x-api-key"),
        ({"Client-Secret": "x"}, "Client-Secret"),
        ({"openai_api_key": "abc"}, "openai_api_key"),
        ({"x": {"api.key": "abc", "stop_token": "</s>"}}, "x.api.key"),
        ({"session_token": "abc"}, "session_token"),
        ({"pwd": "abc"}, "pwd"),
        ({"note": "sk-proj-0123456789abcdef"}, "note"),
        ({"callback": "https://me:hunter2@host"}, "callback"),
        ({"a": {"b": ["fine", "ghp_" + "0123456789abcdefghij"]}}, "a.b.1"),
    ],
)
def test_a_credential_in_a_request_is_found_by_its_name_or_its_form(value: object, field: str) -> None:
    assert credential_in(value) == field


def test_the_fields_that_endpoints_know_are_no_credentials() -> None:
    fields = {
        "chat_template_kwargs": {"enable_thinking": False},
        "skip_special_tokens": True,
        "logit_bias": {"50256": -100},
        "prompt_cache_key": "judge-1",
        "stop_token_ids": [1, 2],
        "token": 5,
        "user": "reneg",
        "reasoning_effort": "low",
        "metadata": {"team": "data"},
    }
    assert credential_in(fields) == ""


def test_a_list_of_allowed_keys_is_shown_whole_however_it_was_written() -> None:
    rules = KeyRules.parse("GPU_KEY@http://gpu.example:8000,LOCAL@127.0.0.1:*")
    refusal = rules.refusal("OTHER", "https://host/v1")
    assert "GPU_KEY@http://gpu.example:8000, LOCAL@127.0.0.1:*" in refusal
    assert redact(refusal) == refusal
