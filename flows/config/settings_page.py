"""The page docs/settings.md, made from the classes: `python -m flows.config.settings_page > docs/settings.md`."""

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.config.curation import CurationConfig
from flows.config.load import models_in

_BY_FLOW = "set by the flow"
_AROUND = tuple(
    name
    for name, field in CurationConfig.model_fields.items()
    if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("operational")
)
_LONG = 60  # characters of a default that is shown whole
_HEAD = """# Settings

Every setting of a configuration file (`python -m flows.config.settings_page` writes this page). Unknown keys are
refused with the nearest known one. `name` and `source` must be given. Changing a setting marked ° recomputes nothing.
"""


def settings_page() -> str:
    """Lay out all settings as Markdown, section by section."""
    return "\n".join([_HEAD, *_sections(CurationConfig, "")]).rstrip() + "\n"


def described(model: type[BaseModel]) -> dict[str, str]:
    """Return what each field means: its own description, else its entry `name: …` in the class's docstring.

    >>> from tasks.data.treatments import TreatConfig
    >>> described(TreatConfig)["refill_unsure"]
    'candidates that the judges are unsure of refill too'
    """
    entries: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel):
            entries |= _entries(inspect.getdoc(base) or "", list(model.model_fields))
    return {
        name: (field.description or entries.get(name, "")).strip().rstrip(".")
        for name, field in model.model_fields.items()
    }


def shown_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields that users may set."""
    texts = described(model)
    own = {name: field for name, field in model.model_fields.items() if _BY_FLOW not in texts[name]}
    inner = {name: models_in(field.annotation) for name, field in own.items()}
    return {n: f for n, f in own.items() if not inner[n] or any(shown_fields(found) for found in inner[n])}


def _entries(doc: str, names: list[str]) -> dict[str, str]:
    """Split `a, b: text` entries off a docstring; `*_chars` stands for all fields that end so."""
    known = "|".join([*map(re.escape, names), r"\*_\w+"])
    parts = re.split(rf"(?:(?<=[.;?)])\s+|\n|^)((?:{known})(?:, (?:{known}))*): ", doc)
    found: dict[str, str] = {}
    for heads, text in zip(parts[1::2], parts[2::2], strict=True):
        for head in heads.split(", "):
            named = [n for n in names if n.endswith(head[1:])] if head.startswith("*") else [head]
            found |= dict.fromkeys(named, " ".join(text.split("\n\n")[0].split()))
    return found


def _sections(model: type[BaseModel], path: str) -> Iterator[str]:
    texts, fields = described(model), shown_fields(model)
    inner = {name: models_in(field.annotation) for name, field in fields.items()}
    rows = [_row(name, field, texts[name], inner[name], path) for name, field in fields.items()]
    if rows:
        yield f"## {path or 'At the top'}\n\n{_summary(model)}\n\n| setting | values | default | |\n|---|---|---|---|"
        yield "\n".join(rows) + "\n"
    for name, models in inner.items():
        for found in models:
            kind = found.model_fields["kind"].default if len(models) > 1 else None
            yield from _sections(found, _join(path, name, fields[name]) + (f" ({kind})" if kind else ""))


def _summary(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())


def _row(name: str, field: FieldInfo, text: str, models: list[Any], path: str) -> str:
    values = "see below" if models else _values(field.annotation)
    extra = field.json_schema_extra
    mark = "°" if path.startswith(_AROUND) or (isinstance(extra, dict) and extra.get("operational")) else ""
    cells = (f"`{name}`{mark}", values, _default(field, models), text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo, models: list[Any]) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required():
        return "must be given"
    if default is None:
        return "`null`"
    if models:
        return ""
    shown = _shown(default)
    return f"{len(default)} names" if len(shown) > _LONG and isinstance(default, tuple) else f"`{shown}`"


def _shown(value: Any) -> str:  # noqa: ANN401 - any default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, Mapping):
        return "{}" if not value else str(dict(value))
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _values(annotation: Any) -> str:  # noqa: ANN401 - any type expression
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _values(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (types.UnionType, typing.Union):
        names = all(typing.get_origin(one) is typing.Literal for one in inner)
        return (", " if names else " or ").join(_values(one) for one in inner if one is not type(None))
    if origin is tuple:
        return f"list of {_values(inner[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "mapping"
    return {bool: "true, false", int: "whole number", float: "number", str: "text"}.get(annotation, "any")


def _join(path: str, name: str, field: FieldInfo) -> str:
    many = typing.get_origin(field.annotation)
    ending = "[]" if many is tuple else ".<name>" if many is dict else ""
    return f"{path}.{name}{ending}" if path else f"{name}{ending}"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
