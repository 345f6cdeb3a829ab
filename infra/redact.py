"""Keep secrets out of what is shown: values of secret environment variables, and passwords in addresses."""

import contextlib
import os
import re
import traceback
from urllib.parse import quote

HIDDEN = "***"
_NAMES = ("KEY", "SECRET", "TOKEN", "PASSWORD", "AUTH_STRING", "WEBHOOK")
_SHORTEST = 6  # a shorter value would be found in the middle of ordinary words
_PASSWORD = re.compile(r"(://[^\s/:@]*):[^\s/]+@")


def redact(text: str) -> str:
    """Hide what is secret in a text: cut it only afterwards, half a secret is not recognised.

    Secret are the values, of 6 characters or more, of this process's environment variables whose names end in KEY,
    SECRET, TOKEN, PASSWORD, AUTH_STRING or WEBHOOK, as they are or percent-encoded, and every password in an address.

    >>> redact("postgresql://reneg:hunter2@db/prefect")
    'postgresql://reneg:***@db/prefect'
    """
    for value in _secrets():
        text = text.replace(value, HIDDEN)
    return _PASSWORD.sub(rf"\1:{HIDDEN}@", text)


def without_secrets(error: Exception) -> Exception:
    """Return the error itself, or where it (or what led to it) tells a secret, one like it that does not.

    The other one is of the same class where that can be made of a text, else an OSError, a MemoryError or a ValueError
    as the error was or was not one: whether the part is tried again depends on that. Raise it `from None`.
    """
    told = "".join(traceback.format_exception(error))
    if redact(told) == told:
        return error
    text = redact(str(error))
    with contextlib.suppress(Exception):  # its class may want more than a text
        other = type(error)(text)
        if str(other) == text:
            return other.with_traceback(error.__traceback__)
    like = next((kind for kind in (OSError, MemoryError) if isinstance(error, kind)), ValueError)
    return like(f"{type(error).__name__}: {text}").with_traceback(error.__traceback__)


def _secrets() -> list[str]:
    """List the secret values, the longest first: one may be part of another."""
    values = {v for name, v in os.environ.items() if name.upper().endswith(_NAMES) and len(v) >= _SHORTEST}
    return sorted(values | {quote(value, safe="") for value in values}, key=len, reverse=True)
