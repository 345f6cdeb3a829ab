"""Find the one JSON object of an answer. Repeated keys, which `json` drops, are kept."""

import json
import re
from typing import Any

_FENCE = "```"
_THINK, _THOUGHT = "<think>", "</think>"
_START = re.compile(r'\{\s*"')  # a brace in prose is followed by something else
_START_QUOTED = re.compile(r"\{\s*'")
_NOT_AN_END = (",", ":", "]")  # after an object inside of something larger
# The parts of an object, for one that is not quite JSON. Strings are either all in double or all in single quotes.
_PART = re.compile(r"""\s+|[{}\[\]:,]|"(?:[^"\\]|\\.)*"|'[^'"\\\n]*'|-?\d[\d.eE+-]*|[A-Za-z]+""", re.DOTALL)
_PYTHON = {"None": "null", "True": "true", "False": "false"}


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
    """Return the one object of `text`. Prose or `<think>…</think>` may come before it, and a code fence around it.

    Text without braces may follow it. A comma before a closing bracket, and strings in single quotes, are accepted if
    that leaves no doubt. None unless it is the only object: with another one, outside `<think>`, or one that is not
    closed, it is not clear which is meant. Never raises.

    >>> final_object('<think>{"a": 1}?</think> So: {"a": 2}')
    [('a', 2.0)]
    >>> final_object('{"a": 1} or rather {"a": 2}')
    >>> final_object("{'a': 'b',} I hope this helps.")
    [('a', 'b')]
    """
    body = text.strip().removesuffix(_FENCE).rstrip()
    first = _START.search(body)
    if first is None:
        return _nearly(body, _START_QUOTED.search(body))
    found = _decode(body, first.start())
    thought = body.find(_THOUGHT)
    if found is None and thought > first.start() and not body.startswith(("{", _FENCE)):
        first = _START.search(body, thought)
        found = _decode(body, first.start()) if first else None
    return _nearly(body, first) if found is None else found


def _decode(body: str, start: int) -> Pairs | None:
    """Return the object that starts at `start`, if nothing follows it that casts doubt on it."""
    try:
        value, end = _DECODER.raw_decode(body, start)
    except (ValueError, RecursionError):
        return None
    return value if _is_alone(body, start, end) else None


def _is_alone(body: str, start: int, end: int) -> bool:
    """Tell whether an object is no item of a list and no thought, and no further object follows it."""
    if body[:start].rstrip().endswith("["):  # a list that is not closed
        return False
    after = body[end:].strip()
    if not after:
        return True
    thinking = body.rfind(_THINK, 0, start) > body.rfind(_THOUGHT, 0, start)
    return not (thinking or _THOUGHT in after or after.startswith(_NOT_AN_END) or "{" in after or "}" in after)


def _nearly(body: str, start: re.Match[str] | None) -> Pairs | None:
    """Return the object that starts there if it becomes JSON without its last commas and with double quotes."""
    if start is None:
        return None
    place, depth, parts = start.start(), 0, list[str]()
    while True:
        part = _PART.match(body, place)
        if part is None:
            return None
        place = part.end()
        parts.append(part.group())
        depth += (part.group() in "{[") - (part.group() in "}]")
        if not depth:
            break
    if not _is_alone(body, start.start(), place):
        return None
    return _decode(written, 0) if (written := _as_json(parts)) else None


def _as_json(parts: list[str]) -> str:
    """Write the parts of an object as JSON; empty where its quotes are of both kinds."""
    quotes = {part[0] for part in parts if part[0] in "\"'"}
    if len(quotes) > 1:
        return ""
    single = quotes == {"'"}
    written: list[str] = []
    for part in parts:
        if part.isspace():
            continue
        if part in "}]" and written and written[-1] == ",":
            written.pop()
        if single:
            part = _PYTHON.get(part, f'"{part[1:-1]}"' if part[0] == "'" else part)  # noqa: PLW2901 - its JSON form
        written.append(part)
    return "".join(written)
