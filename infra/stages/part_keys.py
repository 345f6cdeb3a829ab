"""What a part's key covers: everything that decides its content, and nothing else."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_LENGTH = 32
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:  # noqa: ANN401 - JSON is any
    """Return JSON in one form: equal values give equal strings."""
    return _ENCODER.encode(value)


def digest(value: Any) -> str:  # noqa: ANN401 - JSON is any
    """Return the hash of a JSON value: 32 hexadecimal digits of the SHA-256 of its canonical form."""
    return _hash(canonical(value))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


class StageKeys:
    """The keys of the parts of one stage; what the parts share is turned into JSON once.

    >>> shared, contents = {"stage": "double", "version": 1}, {"labels": ["5f3c.parquet"]}
    >>> StageKeys(shared, contents).of({"numbers": ["00aa.parquet"]}) == digest(
    ...     {**shared, "inputs": {**contents, "numbers": ["00aa.parquet"]}}
    ... )
    True
    """

    def __init__(self, shared: Mapping[str, Any], contents: Mapping[str, Sequence[str]]) -> None:
        """Keep what is in each part's key.

        Args:
            shared: the ingredients without the inputs.
            contents: the contents of the inputs that each part gets whole, by the input's name.
        """
        self._shared = {name: canonical(value) for name, value in shared.items()}
        self._contents = {name: canonical(content) for name, content in contents.items()}

    def of(self, own: Mapping[str, Sequence[str]]) -> str:
        """Return the key of a part; `own` are the contents of the inputs that differ from part to part."""
        inputs = self._contents | {name: canonical(content) for name, content in own.items()}
        return _hash(_as_object(self._shared | {"inputs": _as_object(inputs)}))


def _as_object(fields: Mapping[str, str]) -> str:
    """Return the canonical form of a JSON object whose values are in theirs already."""
    return "{" + ",".join(f"{_name(name)}:{fields[name]}" for name in sorted(fields)) + "}"


_name = cache(canonical)  # of a field: the same few for all parts


def semantic(config: BaseModel) -> dict[str, Any]:
    """Return a config as JSON without its operational fields, such as batch sizes: they do not decide the content.

    A field with the mark `keyed_when_set` is left out while it has its default. A setting that is added to an existing
    section carries this mark: the keys of finished parts stay as they were.
    """
    fields = type(config).model_fields
    left_out = {
        name
        for name, field in fields.items()
        if _has_mark(field, "operational")
        or (
            _has_mark(field, "keyed_when_set") and getattr(config, name) == field.get_default(call_default_factory=True)
        )
    }
    dumped = config.model_dump(mode="json", exclude=left_out)
    return {name: _without_operational(getattr(config, name), dumped[name]) for name in fields if name in dumped}


def _without_operational(value: Any, dumped: Any) -> Any:  # noqa: ANN401 - whatever a field holds
    """Leave operational fields out of the models in a value, however deep; `dumped` is the value as JSON."""
    if isinstance(value, BaseModel):
        return semantic(value)
    if isinstance(value, list | tuple):
        return [_without_operational(inner, shown) for inner, shown in zip(value, dumped, strict=True)]
    if isinstance(value, Mapping):
        return {name: _without_operational(inner, dumped[str(name)]) for name, inner in value.items()}
    return dumped


def _has_mark(field: FieldInfo, mark: str) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get(mark))


def differences(old: Any, new: Any, path: str = "") -> list[str]:  # noqa: ANN401 - JSON is any
    """Name what differs between two keys' ingredients, one line each: `config.depth: 50 → 100`."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for name in sorted(old.keys() | new.keys()):
            lines += differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        return lines
    return [] if old == new else [f"{path}: {canonical(old)} → {canonical(new)}"]
