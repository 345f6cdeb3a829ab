"""Read single values of an input object: ids, names, texts, numbers."""

import math
import re
from collections.abc import Sequence
from numbers import Integral, Real

from tasks.lines import UnusableError, kind_of
from tasks.texts import clean

INT32 = 2**31
_SPACE = re.compile(r"[\t\r\n]")
LONGEST_ID = 10_000  # characters; an id is repeated in every table


def identifier(value: object, name: str) -> str:
    """Read an id: a string or a whole number. Line breaks and tabs become spaces, and 7.0 becomes 7.

    Raises:
        UnusableError: `no_id` where there is none, `id_too_long`, or `wrong_type` for anything else.
    """
    found = name_of(value, name)
    if not found:
        raise UnusableError("no_id", f"{name} is missing or empty")
    return found


def name_of(value: object, name: str) -> str:
    """Read an id or the name of a dataset; empty where there is none."""
    if isinstance(value, str):
        found = _SPACE.sub(" ", clean(value))
    elif value is None or _is_nan(value):
        return ""
    elif isinstance(value, Integral) and not isinstance(value, bool):
        found = str(int(value))
    elif isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer():
        found = str(int(float(value)))  # pandas makes 7 to 7.0 as soon as one id of the column is missing
    elif isinstance(value, Real) and not isinstance(value, bool):
        raise UnusableError("wrong_type", f"{name} is {value}, expected a string or a whole number")
    else:
        raise UnusableError("wrong_type", f"{name} is {kind_of(value)}, expected a string or a whole number")
    if len(found) > LONGEST_ID:
        raise UnusableError("id_too_long", f"{name} has {len(found)} characters, at most {LONGEST_ID} expected")
    return found


def required_text(value: object, name: str, missing: str) -> str:
    """Read a required text.

    Raises:
        UnusableError: the reason given as `missing` where there is none; `empty_text` or `wrong_type`.
    """
    if value is None:
        raise UnusableError(missing, f"{name} is missing")
    found = optional_text(value, name)
    if not found:
        raise UnusableError("empty_text", f"{name} is empty")
    return found


def optional_text(value: object, name: str) -> str:
    """Read a text; empty where there is none."""
    if isinstance(value, str):
        return clean(value)
    if value is None or _is_nan(value):
        return ""
    raise UnusableError("wrong_type", f"{name} is {kind_of(value)}, expected a string")


def number_of(value: object) -> float | None:
    """Read a finite number; None for anything else, also for true, false and numbers of more than 300 digits."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral) and abs(int(value)) >= INT32:
        return None
    return float(value) if math.isfinite(value) else None


def has_content(value: object) -> bool:
    """Say whether a field holds anything: no null, NaN, empty text, empty list or empty object.

    >>> [has_content(value) for value in (0, False, "a", [None], None, "", [], {}, float("nan"))]
    [True, True, True, True, False, False, False, False, False]
    """
    return not (value is None or (isinstance(value, str | Sequence | dict) and len(value) == 0) or _is_nan(value))


def _is_nan(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, Integral) and math.isnan(value)
