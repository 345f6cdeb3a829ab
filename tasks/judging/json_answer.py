"""Find the one JSON object that ends an answer, and keep what `json` would lose: keys that come twice."""

import json
import re
from typing import Any

_FENCE = "```"
_THOUGHT = "</think>"
_START = re.compile(r'\{\s*"')  # a brace in prose is followed by something else


class Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, in the order written."""

    def only(self, key: str) -> Any:  # noqa: ANN401 - any JSON value
        """Give the value of a key that comes once; None where it comes never or twice."""
        values = [value for name, value in self if name == key]
        return values[0] if len(values) == 1 else None


# Raw line breaks in strings are let through: models without a grammar write them. Numbers become floats of any size.
_DECODER = json.JSONDecoder(
    object_pairs_hook=Pairs, parse_int=float, parse_float=float, parse_constant=float, strict=False
)


def final_object(text: str) -> Pairs | None:
    """Read the object that ends `text`, after reasons in free words or `<think>` and in an optional fence.

    None unless it is the only one: after an earlier object outside the thoughts, or one that was never closed, nobody
    can tell which was meant. Never raises.

    >>> final_object('<think>{"a": 1}?</think> So: {"a": 2}')
    [('a', 2.0)]
    >>> final_object('{"a": 1} or rather {"a": 2}')
    """
    body = text.strip().removesuffix(_FENCE).rstrip()
    first = _START.search(body) if body.endswith("}") else None
    if first is None:
        return None
    found = _decode(body, first.start())
    thought = body.find(_THOUGHT)
    if found is None and thought > first.start() and not body.startswith(("{", _FENCE)):
        second = _START.search(body, thought)
        found = _decode(body, second.start()) if second else None
    return found


def _decode(body: str, start: int) -> Pairs | None:
    """Read an object that starts there and ends with the text."""
    try:
        value, end = _DECODER.raw_decode(body, start)
    except (ValueError, RecursionError):
        return None
    inside_list = body[:start].rstrip().endswith("[")  # one that was never closed
    return value if end == len(body) and not inside_list else None
