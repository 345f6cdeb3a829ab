"""Hides secrets in texts, log records and errors: the values this process knows, and what has a secret's form."""

import base64
import contextlib
import json
import logging
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from infra.token_patterns import HIDDEN, hide_tokens, is_ordinary

_SHORTEST = 6  # a shorter value may be part of ordinary words
_SHORTEST_PIECE = 12  # the same for a line of a value, or one of several with commas, and for base64 of more than it
_ENDS = tuple(
    "KEY SECRET TOKEN PASSWORD PASSWD PASSPHRASE CREDENTIALS AUTH_STRING WEBHOOK API_KEYS CONNECTION_STRING CONN_STR "
    "SIGNATURE".split()
)
_PARTS = frozenset(
    "PASS PASSWORD PASSWD PASSPHRASE PWD PAT KEY APIKEY SECRET SECRETS TOKEN JWT SAS COOKIE CREDENTIAL CREDENTIALS "
    "CREDS AUTH AUTHORIZATION BEARER USERPASS PRIVATE DSN WEBHOOK HOOK SLACK DISCORD TEAMS".split()
)
# Of `RAY_AUTH_MODE`, `SSH_AUTH_SOCK`, `TOKEN_FILE`: such a variable says something about a secret and holds none.
_HARMLESS_ENDS = frozenset(
    "MODE SOCK PATH FILE DIR FOLDER NAME ID ENV HOST PORT TYPE COUNT LIMIT LENGTH SIZE SECONDS TIMEOUT METHOD "
    "PARALLELISM ENABLED VERSION CHANNEL USER REGION".split()
)
_FOLDERS = frozenset({"PWD", "OLDPWD"})  # the shell's
_EXACT = frozenset({"AWS_ACCESS_KEY_ID"})
_URL_SAFE = str.maketrans("+/", "-_")  # the other alphabet of base64
_variables: set[str] = set()
_values: set[str] = set()


def redact(text: str) -> str:
    """Return a text with its secrets hidden. Cut a text only afterwards: half a secret is not recognised.

    Secret are
    - values of this process's environment: of variables whose names tell it (`DB_PASS`, `GH_PAT`, `SLACK_URL`), of
      those that a configuration names (`hide_variable`), and the passwords and keys in every address; as they are,
      percent-encoded, in JSON and in base64. So are lines of them of 12 characters and more, and base64 that holds
      such a value among others. A value of less than 6 characters, or of ordinary words, is shown.
    - values that were handed to `hide_value`;
    - what has the form of a secret (infra.token_patterns).

    >>> redact("postgresql://reneg:hunter2@db/prefect")
    'postgresql://reneg:***@db/prefect'
    """
    known = _expression(tuple(os.environ.items()), frozenset(_variables), frozenset(_values))
    return hide_tokens(text if known is None else known.sub(HIDDEN, text))


def redact_values(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a JSON value with the secrets in its texts hidden, however deep; names of fields stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: redact_values(inner) for name, inner in value.items()}
    return [redact_values(inner) for inner in value] if isinstance(value, list | tuple) else value


def hide_variable(name: str) -> None:
    """Hide the value of an environment variable from now on, whatever its name; a configuration says it is secret."""
    if name:
        _variables.add(name)


def hide_value(value: str) -> None:
    """Hide a value from now on, such as the content of a file with a token."""
    if value.strip():
        _values.add(value.strip())


def guard_logs() -> None:
    """Hide secrets in every record that this process logs from now on, tracebacks included."""
    make = logging.getLogRecordFactory()
    if getattr(make, "hides_secrets", False):
        return

    def make_without_secrets(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        with contextlib.suppress(Exception):  # a message that does not fit its arguments: logging itself reports it
            _clean(record)
        return record

    make_without_secrets.hides_secrets = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_without_secrets)


def _clean(record: logging.LogRecord) -> None:
    text = record.getMessage()
    if (hidden := redact(text)) != text:
        record.msg, record.args = hidden, None
    if record.exc_info and record.exc_info[1] is not None:
        told = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
        if (hidden := redact(told)) != told:
            record.exc_text = hidden  # what a formatter shows instead of making a text of its own


@contextlib.contextmanager
def no_secrets_in_errors() -> Iterator[None]:
    """Keep secrets out of the error that leaves the block, or the function that this decorates."""
    try:
        yield
    except Exception as error:
        other = without_secrets(error)
        if other is error:
            raise
        raise other from None


def without_secrets(error: Exception) -> Exception:
    """Return the error itself, or, if its text or its causes hold a secret, a similar error without it.

    The similar error is of the same class if that class can be made from a text. Otherwise it is an OSError or a
    MemoryError if the error was one, else a ValueError: the class decides whether a part is tried again. Raise it
    `from None`.
    """
    told = "".join(traceback.format_exception(error))
    if redact(told) == told:
        return error
    text = redact(str(error))
    with contextlib.suppress(Exception):  # its class may need more than a text
        other = type(error)(text)
        if str(other) == text:
            return other.with_traceback(error.__traceback__)
    like = next((kind for kind in (OSError, MemoryError) if isinstance(error, kind)), ValueError)
    return like(f"{type(error).__name__}: {text}").with_traceback(error.__traceback__)


@lru_cache(maxsize=4)
def _expression(
    environment: tuple[tuple[str, str], ...], variables: frozenset[str], values: frozenset[str]
) -> re.Pattern[str] | None:
    """Return what finds the known secrets, the longest first, because one may be part of another; None for none."""
    found = {form for value in values for form in _forms(value)}
    for name, value in environment:
        for secret in _secrets_of(name, value, named=name in variables):
            found |= _forms(secret)
    return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True)))) if found else None


def _secrets_of(name: str, value: str, *, named: bool) -> Iterator[str]:
    """Yield what is secret in the value of a variable."""
    if "://" in value:
        yield from filter(_is_secret, _secrets_in_address(value))
    if not named and not _names_a_secret(name):
        return
    if _is_secret(value) and not _is_file(value):
        yield value
        pieces = [piece.strip() for piece in re.split(r"[\n,]", value)]  # a log or an error may show one line of a key
        long = [piece for piece in pieces if len(piece) >= _SHORTEST_PIECE and not piece.startswith("-----")]
        yield from filter(_is_secret, long)
    if "AUTH" in name.upper() and ":" in value and "://" not in value:  # user:password
        yield from filter(_is_secret, [value.partition(":")[2]])


def _names_a_secret(name: str) -> bool:
    """Tell whether the name of a variable says that its value is a secret.

    >>> [_names_a_secret(name) for name in ("DB_PASS", "GH_PAT", "PATH", "PWD", "TOKENIZERS_PARALLELISM")]
    [True, True, False, False, False]
    """
    name = name.upper()
    parts = name.split("_")
    if name in _FOLDERS or parts[-1] in _HARMLESS_ENDS:
        return name in _EXACT
    return name.endswith(_ENDS) or not _PARTS.isdisjoint(parts)


def _is_secret(value: str) -> bool:
    return len(value) >= _SHORTEST and not is_ordinary(value)


def _is_file(value: str) -> bool:
    """Tell whether a value is the path of something that exists, such as a file with credentials."""
    try:
        return value.startswith(("/", "~", ".")) and Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _secrets_in_address(value: str) -> Iterator[str]:
    """Yield the password of an address, and the parameters that are keys."""
    try:
        parts = urlsplit(value.strip())
        user, password = parts.username, parts.password
    except ValueError:  # no address
        return
    if password:
        yield from (password, unquote(password))
    elif user and parts.scheme.startswith("http"):
        yield from (user, unquote(user))
    if parts.query:
        hidden = dict(parse_qsl(urlsplit(hide_tokens(value)).query, keep_blank_values=True))
        yield from (given for name, given in parse_qsl(parts.query) if hidden.get(name) == HIDDEN)


def _forms(value: str) -> set[str]:
    """Give the ways in which a value may be written."""
    value = value.strip()
    in_json = json.dumps(value)[1:-1]
    encoded = {base64.b64encode(value.encode(errors="replace")).decode().rstrip("=")}
    if len(value) >= _SHORTEST_PIECE:
        encoded |= {_within_base64(value, before) for before in range(3)}
    forms = {
        value,
        quote(value, safe=""),
        quote(value),
        in_json,
        in_json.replace("/", "\\/"),
        repr(value)[1:-1],
        *encoded,
        *(form.translate(_URL_SAFE) for form in encoded),
    }
    return {form for form in forms if form}


def _within_base64(value: str, before: int) -> str:
    """Return the letters that a value gives in the base64 of a longer text, after so many bytes (modulo 3).

    >>> _within_base64("hunter2!hunt", 2) in base64.b64encode(b"user2:hunter2!hunter2!").decode()
    False
    >>> _within_base64("hunter2!hunt", 2) in base64.b64encode(b"user:hunter2!hunter2!").decode()
    True
    """
    data = value.encode(errors="replace")
    whole = base64.b64encode(bytes(before) + data).decode().rstrip("=")
    return whole[-(-before * 4 // 3) : (before + len(data)) * 4 // 3]
