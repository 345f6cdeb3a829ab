"""Hides secrets in texts and errors: values of secret environment variables, and passwords in addresses."""

import contextlib
import os
import re
import traceback
from urllib.parse import quote

HIDDEN = "***"
_NAMES = ("KEY", "SECRET", "TOKEN", "PASSWORD", "AUTH_STRING", "WEBHOOK")
_SHORTEST = 6  # a shorter value may be part of ordinary words
_PASSWORD = re.compile(r"(://[^\s/:@]*):[^\s/]+@")


def redact(text: str) -> str:
    """Return a text with its secrets hidden. Cut a text only afterwards: half a secret is not recognised.

    Secret are the values, of 6 characters or more, of this process's environment variables whose names end in KEY,
    SECRET, TOKEN, PASSWORD, AUTH_STRING or WEBHOOK, as they are or percent-encoded, and every password in an address.

    >>> redact("postgresql://reneg:hunter2@db/prefect")
    'postgresql://reneg:***@db/prefect'
    """
    for value in _secrets():
        text = text.replace(value, HIDDEN)
    return _PASSWORD.sub(rf"\1:{HIDDEN}@", text)


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


def _secrets() -> list[str]:
    """List the secret values, the longest first: one may be part of another."""
    values = {v for name, v in os.environ.items() if name.upper().endswith(_NAMES) and len(v) >= _SHORTEST}
    return sorted(values | {quote(value, safe="") for value in values}, key=len, reverse=True)
