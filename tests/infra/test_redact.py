"""Secrets are hidden in texts and in errors, and nothing else is."""

import traceback

import pytest

from infra.redact import redact, without_secrets
from infra.storage.store import StoreError


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_API_KEY", "sk-a/b c123456")
    monkeypatch.setenv("toy_password", "sk-a/b c123456-longer")
    monkeypatch.setenv("TOY_SHORT_TOKEN", "abc")
    monkeypatch.setenv("TOY_KEY_ENV", "harmless")


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
