"""What a part's key covers: everything that decides its content, and nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

_LENGTH = 32


def canonical(value: Any) -> str:  # noqa: ANN401 - JSON is any
    """Return JSON in one form: equal values give equal strings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:  # noqa: ANN401 - JSON is any
    """Return the hash of a JSON value: 32 hexadecimal digits of the SHA-256 of its canonical form."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:_LENGTH]


def semantic(config: BaseModel) -> dict[str, Any]:
    """Return a config as JSON without its operational fields, such as batch sizes: they do not decide the content."""
    fields = type(config).model_fields
    operational = {name for name, field in fields.items() if _is_operational(field.json_schema_extra)}
    dumped = config.model_dump(mode="json", exclude=operational)
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


def _is_operational(extra: Any) -> bool:  # noqa: ANN401 - pydantic types it so
    return isinstance(extra, dict) and bool(extra.get("operational"))


def differences(old: Any, new: Any, path: str = "") -> list[str]:  # noqa: ANN401 - JSON is any
    """Name what differs between two keys' ingredients, one line each: `config.depth: 50 → 100`."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for name in sorted(old.keys() | new.keys()):
            lines += differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        return lines
    return [] if old == new else [f"{path}: {canonical(old)} → {canonical(new)}"]
