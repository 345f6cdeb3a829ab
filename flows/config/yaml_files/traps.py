"""What YAML reads otherwise than it looks: dates, times, `no`, repeated keys; and messages that say so.

YAML 1.1 reads 22:30 as the number 1350, 010 as 8, `no` as false, and of a key that stands twice the last one.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

import yaml

Steps = Sequence[int | str]  # the keys and places on the way to a value
# Gives a plain value as it stands in the file, and its line; None where there is no such value.
Lookup = Callable[[Steps], tuple[str, int] | None]

_TAG = "tag:yaml.org,2002:"
_DATE, _MERGE, _TEXT = f"{_TAG}timestamp", f"{_TAG}merge", f"{_TAG}str"
_KINDS = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}
_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_NUMBER_LIKE = re.compile(r"[-+]?[0-9][0-9.,_ ]*([eE][-+]?[0-9]+)?%?")
_OPENINGS = {"*": "alias", "&": "anchor"}  # characters that begin something else than a text


def traps_in(node: yaml.Node) -> Iterator[str]:
    """Yield one message for each value of a file that is never meant as YAML reads it, and for each repeated key.

    Dates, times and numbers with a leading zero are such values wherever they stand; as a key all that is no text is.
    """
    seen: set[int] = set()
    open_: list[tuple[str, yaml.Node]] = [("", node)]
    while open_:
        where, node = open_.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            if (kind := _misread(node)) is not None:
                yield f"{where}: {_says(node.value, node.start_mark.line, kind)}"
        elif isinstance(node, yaml.SequenceNode):
            open_ += [(_below(where, number), inner) for number, inner in reversed([*enumerate(node.value)])]
        elif isinstance(node, yaml.MappingNode):
            yield from _keys(where, node)
            open_ += [(_below(where, _name(key)), inner) for key, inner in reversed(node.value)]


def _keys(where: str, node: yaml.MappingNode) -> Iterator[str]:
    """Yield what is wrong with the keys of one mapping."""
    first: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        line, place = key.start_mark.line, _below(where, key.value)
        if key.tag != _TEXT:
            kind = _misread(key) or _KINDS.get(key.tag.removeprefix(_TAG), "no text")
            yield f"{place}: {_says(key.value, line, kind)}"
        elif key.value in first:
            yield f"{place}: the key stands twice (lines {first[key.value] + 1} and {line + 1}); keep one of them"
        first.setdefault(key.value, line)


def _misread(node: yaml.ScalarNode) -> str | None:
    """Say as what YAML reads a value that nobody means so; None for any other value."""
    if node.tag == _DATE:
        return "a date"
    if node.tag not in (f"{_TAG}int", f"{_TAG}float"):
        return None
    if _SIXTIES.fullmatch(node.value):
        return f"the number {_number(node)} (base 60)"
    return f"the number {_number(node)} (octal)" if _OCTAL.fullmatch(node.value) else None


def _number(node: yaml.ScalarNode) -> str:
    return str(yaml.SafeLoader("").construct_object(node))


def _says(text: str, line: int | None, kind: str) -> str:
    at = "" if line is None else f" (line {line + 1})"
    return f'without quotes YAML reads {text or "an empty value"}{at} as {kind}; quote it: "{text}"'


def _name(key: yaml.Node) -> str:
    return key.value if isinstance(key, yaml.ScalarNode) else "?"


def _below(where: str, step: object) -> str:
    return f"{where}.{step}" if where else str(step)


def value_at(node: yaml.Node | None, steps: Steps) -> tuple[str, int] | None:
    """Return a plain value as it stands in the file, and its line from 0; None where there is none.

    Steps that lead nowhere, such as the kind that chose among several models, are passed over.
    """
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            found = [inner for key, inner in node.value if _name(key) == str(step)]
            node = found[-1] if found else node
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
    return (node.value, node.start_mark.line) if isinstance(node, yaml.ScalarNode) and node.style is None else None


def places(loc: Steps, data: Any) -> Iterator[str]:  # noqa: ANN401 - any settings
    """Yield the keys and places on the way to a problem, without the names of types that pydantic puts between them."""
    for number, step in enumerate(loc):
        is_last = number == len(loc) - 1
        if isinstance(data, dict) and (step in data or (is_last and step != "[key]")):
            data = data.get(step)
            yield str(step)
        elif isinstance(data, list | tuple) and isinstance(step, int) and step < len(data):
            data = data[step]
            yield str(step)


def describe(problem: Any, data: Any, lookup: Lookup) -> str:  # noqa: ANN401 - pydantic's error details, any settings
    """Say where a validation error is, what was expected, and how YAML's reading explains it."""
    where = ".".join(places(problem["loc"], data))
    message = str(problem["msg"]).removeprefix("Value error, ")
    if because := _hint(problem, lookup):
        message = f"{message}; {because}"
    return f"{where}: {message}" if where else message


def _hint(problem: Any, lookup: Lookup) -> str | None:  # noqa: ANN401 - pydantic's error details
    """Say how YAML's reading explains a validation error; None where it does not.

    The value is shown only where YAML read no text, or where the text looks like a number: others may be secrets.
    """
    value, type_ = problem["input"], str(problem["type"])
    if type_ == "union_tag_invalid" and isinstance(value, dict):
        tag = str(problem["ctx"]["discriminator"]).strip("'")
        inner = {"type": "literal_error", "input": value.get(tag), "loc": (*problem["loc"], tag)}
        return _hint(inner, lookup)
    if value is None:
        return "nothing stands there; give it a value, or remove the line"
    if type_ in ("int_parsing", "float_parsing") and isinstance(value, str) and _NUMBER_LIKE.fullmatch(value.strip()):
        return f"YAML reads {value} as a text; write it with digits only, such as 1000 or 0.5"
    if type_ not in ("string_type", "literal_error", "enum") or not isinstance(value, bool | int | float | date):
        return None
    text, line = lookup(problem["loc"]) or (_plain(value), None)
    return _says(text, line, _kind_of(value))


def _plain(value: bool | float | date) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind_of(value: bool | float | date) -> str:
    if isinstance(value, date):
        return "a date"
    return _plain(value) if isinstance(value, bool) else f"the number {value}"


def explain(error: Exception) -> str:
    """Say in one line why a text is not YAML, with the remedy where the cause is a usual one."""
    if not isinstance(error, yaml.MarkedYAMLError):
        said = " ".join(str(error).split())
        return f"{said}; save the file in UTF-8" if isinstance(error, UnicodeDecodeError) else said
    said = ", ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    at = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    remedy = _remedy(said)
    return f"{said}{at}" + (f"; {remedy}" if remedy else "")


def _remedy(said: str) -> str:
    if "'\\t' that cannot start" in said:
        return "indent with spaces, as YAML takes no tabs"
    if opening := re.search(r"character '(\S+)' that cannot start", said):
        return f"put a value that begins with {opening[1]} in quotes"
    if "mapping values are not allowed" in said:
        return "put a value that holds a colon and a space in quotes, or mend the indentation"
    if "unknown escape character" in said:
        return "in double quotes a backslash begins an escape, so use single quotes"
    if "constructor for the tag" in said:
        return "put the value in quotes" if _TAG in said else "put a value that begins with ! in quotes"
    found = [character for character, name in _OPENINGS.items() if name in said]
    return f"put a value that begins with {found[0]} in quotes" if found else ""
