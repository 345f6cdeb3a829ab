"""Secrets are hidden in texts and in errors, and nothing else is."""

import base64
import json
import logging
import random
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from infra import redact as module
from infra.names import ManifestName, NumberedId, PartName, StageName, object_key
from infra.redact import (
    guard_logs,
    hide_value,
    hide_variable,
    no_secrets_in_errors,
    redact,
    redact_values,
    without_secrets,
)
from infra.storage.store import StoreError


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_API_KEY", "sk-a/b c123456")
    monkeypatch.setenv("toy_password", "sk-a/b c123456-longer")
    monkeypatch.setenv("TOY_SHORT_TOKEN", "abc")
    monkeypatch.setenv("TOY_KEY_ENV", "harmless")
    monkeypatch.setattr(module, "_variables", set())
    monkeypatch.setattr(module, "_values", set())


@pytest.fixture
def records() -> Iterator[None]:
    """Put the making of log records back as it was."""
    make = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(make)


class Picky(OSError):
    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(code, text)


def test_values_of_secret_variables_are_hidden_as_they_are_and_percent_encoded() -> None:
    assert redact("given sk-a/b c123456, or sk-a%2Fb%20c123456.") == "given ***, or ***."


def test_of_two_secrets_that_begin_alike_no_end_is_left_over() -> None:
    assert redact("sk-a/b c123456-longer") == "***"


def test_short_values_and_variables_of_other_names_are_shown() -> None:
    assert redact("abc is harmless") == "abc is harmless"


def test_passwords_in_addresses_are_hidden_whatever_variable_they_are_in() -> None:
    text = "postgresql+asyncpg://me:p@ss:word@db:5432/prefect, http://host:4200/api, s3://bucket/a@b"
    assert redact(text) == "postgresql+asyncpg://me:***@db:5432/prefect, http://host:4200/api, s3://bucket/a@b"


def test_an_error_without_a_secret_is_itself() -> None:
    error = ValueError("fine")
    assert without_secrets(error) is error


@pytest.mark.parametrize("kind", [ValueError, OSError, StoreError, MemoryError])
def test_an_error_that_tells_a_secret_is_replaced_by_one_of_its_class(kind: type[Exception]) -> None:
    other = without_secrets(kind("no: sk-a/b c123456"))
    assert (type(other), str(other)) == (kind, "no: ***")


def test_what_cannot_be_made_of_a_text_becomes_an_error_that_is_treated_alike() -> None:
    other = without_secrets(Picky(5, text="sk-a/b c123456"))
    assert isinstance(other, OSError)
    assert str(other) == "Picky: [Errno 5] ***"


def test_a_secret_in_what_an_error_came_from_is_hidden_too() -> None:
    try:
        try:
            raise KeyError("sk-a/b c123456")
        except KeyError as cause:
            raise ValueError("harmless") from cause
    except ValueError as error:
        other = without_secrets(error)
    assert "c123456" not in "".join(traceback.format_exception(other))
    assert str(other) == "harmless"


# ---- variables ----

VARIABLES = {
    "SLACK_URL": "https://chat.example/hooks/x7Kq2mZ9",
    "DB_PASS": "hunter2!",
    "GH_PAT": "opaque-x7Kq2mZ9",
    "PGPASSWORD": "Tr0ub4dor",
    "MYSQL_PWD": "Tr0ub4dor&3",
    "SENTRY_DSN": "https://4f7c21@sentry.example/12",
    "AZURE_CLIENT_SECRET": "abc8Q.d0",
    "AWS_ACCESS_KEY_ID": "TOYID0123456789",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdz/a+b==",
    "PREFECT_API_AUTH_STRING": "admin:s3cret/word",
    "RAY_AUTH_TOKEN": "9f1c" * 16,
    "SESSION_COOKIE": "sid=8f3a99",
    "SSH_PASSPHRASE": "correct-horse-battery-staple",
    "APPCREDENTIALS": "user1/pass2",
    "JUDGE_API_KEYS": "first-x7Kq2mZ9x,second-x7Kq2mZ9",
    "HOOK_URL": "https://chat.example/x7Kq2mZ9",
    "NPM_CREDS": "opaque-x7Kq2mZ9",
    "STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=x7Kq2mZ9==",
}


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_the_value_of_a_variable_whose_name_tells_a_secret_is_hidden_however_it_is_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = VARIABLES[name]
    monkeypatch.setenv(name, value)
    encoded = base64.b64encode(value.encode()).decode().rstrip("=")
    written = [value, quote(value, safe=""), json.dumps(value)[1:-1], value.replace("/", "\\/"), encoded]
    assert [redact(f"({text})") for text in written] == ["(***)"] * len(written)


def test_a_line_of_a_value_and_base64_of_more_than_a_value_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["-----BEGIN KEY-----", "MIIEplanted7Qx", "b3BlbnNzaC1rZXk", "-----END KEY-----"]
    monkeypatch.setenv("SSH_KEY", "\n".join(lines))
    monkeypatch.setenv("JUDGE_API_KEYS", "first-x7Kq2mZ9x,second-x7Kq2mZ9")
    assert redact("line 2 is MIIEplanted7Qx, line 3 b3BlbnNzaC1rZXk") == "line 2 is ***, line 3 ***"
    assert redact("wrong key second-x7Kq2mZ9") == "wrong key ***"
    for before in ("", "u", "us", "user:"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            written = encode(f"{before}first-x7Kq2mZ9x?>".encode()).decode()
            kept = redact(written).replace("***", "A" * (len(written) - len(redact(written)) + 3))
            assert b"x7Kq2" not in base64.urlsafe_b64decode(kept)


def test_the_password_of_a_login_and_of_an_address_is_hidden_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:s3cret/word")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://me:p%40ss9word@db/prefect")
    monkeypatch.setenv("http_proxy", "http://proxy-token-77x@proxy.example:3128")
    assert (
        redact("s3cret/word, p%40ss9word, p@ss9word, proxy-token-77x; db/prefect") == "***, ***, ***, ***; db/prefect"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/local/bin:/usr/bin"),
        ("PWD", "/home/me/project9"),
        ("SSH_AUTH_SOCK", "/tmp/ssh-x/agent.9"),
        ("RAY_AUTH_TOKEN_PATH", "/run/ray/token9"),
        ("TOKENIZERS_PARALLELISM", "false-9x9x9x"),
        ("AWS_REGION", "us-gov-west-1b9"),
        ("MAX_TOKENS", "1048576"),
        ("API_KEY", "none"),
        ("DB_PASSWORD", "postgres"),
        ("SOME_TOKEN", "us-east-1"),
        ("OTHER_TOKEN", "EMPTY"),
        ("RENEG_ALLOWED_KEYS", "OPENAI_API_KEY@api.openai.com"),
        ("OPENAI_API_KEY", "reneg"),
    ],
)
def test_folders_ordinary_words_and_other_variables_are_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert redact(f"it is {value} here") == f"it is {value} here"


def test_a_file_with_credentials_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "account.json"
    file.touch()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert redact(f"read {file}") == f"read {file}"


def test_a_variable_that_a_configuration_names_and_a_value_that_was_handed_over_are_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OUR_VENDOR", "opaque-x7Kq2mZ9")
    text = "opaque-x7Kq2mZ9 and from-a-file-7x"
    assert redact(text) == text
    hide_variable("OUR_VENDOR")
    hide_variable("")
    hide_value("from-a-file-7x\n")
    hide_value("")
    assert redact(text) == "*** and ***"


# ---- what is ours ----


def ours(seed: int) -> Iterator[str]:
    """Draw names as this project makes them: keys, digests, ids, and what stands around them in texts."""
    draw = random.Random(seed)
    sha = draw.randbytes(32).hex()
    key, code = sha[:32], base64.b32encode(draw.randbytes(20)).decode()
    number = draw.randrange(1_000_000)
    yield from (sha, key, sha[:12], code, code.lower(), str(uuid.UUID(bytes=draw.randbytes(16))), str(number))
    yield from (f"{sha}.parquet", object_key(f"{sha}.parquet"), f"weights/{sha}.json", f"ledger/judge-{key}")
    yield str(ManifestName(key, number % 1000))
    yield str(NumberedId(f"my-data-{number % 7}", number))
    yield str(PartName(StageName("judge", f"gold-{key[:4]}"), number % 100_000))
    yield f"gpt-4o-2024-11-20:{key[:12]}/{sha[:12]}@2026-03-01"
    yield f"key={key}, digest={sha}: token {key[:8]}, prompt_tokens={number}, code={code}"
    yield f"https://prefect.example/flow-runs/flow-run/{uuid.UUID(bytes=draw.randbytes(16))}?page={number}&tag={key}"
    yield f"s3://bucket/store/objects/{sha[:2]}/{sha}.parquet and hub:owner/name@{sha[:40]}"


def test_no_key_digest_or_id_of_ours_is_hidden() -> None:
    shown = [text for seed in range(500) for text in ours(seed)]
    assert [text for text in shown if redact(text) != text] == []


@pytest.mark.parametrize(
    "text",
    [
        "Basic understanding of tokens, keys and passwords is expected; the key: see below.",
        "password: expected, got none",
        "api_key_env: the variable OPENAI_API_KEY should hold the endpoint's key and is not set",
        "risk-averse desk-bound task-oriented work; sk-learn-compatible-estimators; disk-usage-2024-report",
        "from huggingface_hub import hf_hub_download; npm_config; ghp; xox; eyJ; AKIA; AIza; sk-",
        "https://host:4200/api, me@example.com, s3://bucket/a@b, ssh://git@github.com/x, postgresql://reneg@db/x",
        "judge-llm-00003: 1200 rows in, 1200 out, 35.2 s of work; prompt_tokens=12345, cached_tokens=0",
        "the token of the sequence is at position 1234567; Bearer of bad news; basic characterization",
        "tokens_per_minute: 90000, max_tokens_field: max_completion_tokens, key digits 32",
        "gold.path: s3://corpora/gold.jsonl cannot be read (FileNotFoundError)",
    ],
)
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_a_text_of_a_megabyte_takes_less_than_seconds() -> None:
    for hard in (
        "a" * 10**6,
        "eyJ-" * 250_000,
        "://:" * 250_000,
        "?key=&" * 160_000,
        "password=" * 110_000,
        "sk-" * 330_000,
    ):
        redact(hard)  # the test's own limit of time would end a pattern that goes back and forth


# ---- values, records, errors ----


def test_the_texts_of_a_value_are_hidden_however_deep_and_numbers_stay() -> None:
    value = {"a": ["sk-a/b c123456", {"b": ("sk-a/b c123456", 3)}], "n": 1.5, "none": None}
    assert redact_values(value) == {"a": ["***", {"b": ["***", 3]}], "n": 1.5, "none": None}


@pytest.mark.usefixtures("records")
def test_log_records_of_every_logger_hold_no_secret_and_others_keep_their_arguments(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard_logs()
    guard_logs()
    logging.getLogRecordFactory()("name", 30, "file", 1, "%d", ("no number",), None)  # logging's own matter
    log = logging.getLogger("somebody.elses")
    log.warning("%s of %d", "sk-a/b c123456", 3)
    log.warning("%s of %d", "fine", 3)
    try:
        raise KeyError("sk-a/b c123456")
    except KeyError:
        log.exception("it broke")
    assert caplog.records[0].getMessage() == "*** of 3"
    assert caplog.records[1].args == ("fine", 3)
    shown = logging.Formatter().format(caplog.records[2])
    assert "KeyError: '***'" in shown
    assert "c123456" not in str(caplog.records[2].exc_text) + shown


def test_an_error_that_leaves_a_guarded_function_tells_no_secret_and_others_leave_as_they_are() -> None:
    fine = ValueError("fine")

    @no_secrets_in_errors()
    def fails(error: Exception) -> None:
        raise error

    with pytest.raises(StoreError) as caught:
        fails(StoreError("no: sk-a/b c123456"))
    assert str(caught.value) == "no: ***"
    assert caught.value.__cause__ is None
    with pytest.raises(ValueError) as same:
        fails(fine)
    assert same.value is fine
