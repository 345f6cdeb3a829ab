"""Find the one JSON object that ends an answer. Repeated keys, which `json` drops, are kept."""

import json
import re
from typing import Any

_FENCE = "```"
_THOUGHT = "</think>"
_START = re.compile(r'\{\s*"')  # a brace in prose is followed by something else


class Pairs(list[tuple[str, Any]]):
    """A JSON object as a list of its (key, value) pairs, in the order written."""

    def only(self, key: str) -> Any:  # noqa: ANN401 - any JSON value
        """Return the value of a key that occurs once; None where it is missing or repeated."""
        values = [value for name, value in self if name == key]
        return values[0] if len(values) == 1 else None


# Line breaks in strings are accepted, as models without a grammar write them. Numbers of any size become floats.
_DECODER = json.JSONDecoder(
    object_pairs_hook=Pairs, parse_int=float, parse_float=float, parse_constant=float, strict=False
)


def final_object(text: str) -> Pairs | None:
    """Return the object that ends `text`. Prose or `<think>…</think>` may come before it, and a code fence around it.

    None unless it is the only object: with another one before it, outside `<think>`, or one that is not closed, it is
    not clear which is meant. Never raises.

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
    """Return the object that starts at `start` and ends with the text; None if there is none."""
    try:
        value, end = _DECODER.raw_decode(body, start)
    except (ValueError, RecursionError):
        return None
    inside_list = body[:start].rstrip().endswith("[")  # a list that is not closed
    return value if end == len(body) and not inside_list else None
