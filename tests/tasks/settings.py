"""The defaults and limits of a configuration, as a table to be compared with."""

from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel

REQUIRED = "required"
_LIMITS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt"), MinLen: ("len>=", "min_length")}


def settings_of(config: type[BaseModel]) -> dict[str, Any]:
    """Give each field's default, or a tuple of default and limits such as `(7, ">=1")`.

    A field that stays out of the stage's key has the limit "operational". The configuration itself must be frozen and
    refuse unknown fields; the entry "" says whether it refuses numbers that are not finite.
    """
    assert config.model_config.get("frozen") is True
    assert config.model_config.get("extra") == "forbid"
    found: dict[str, Any] = {} if config.model_config.get("allow_inf_nan", True) else {"": "finite"}
    for name, field in config.model_fields.items():
        default = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        limits = [
            f"{sign}{getattr(limit, attribute)}"
            for limit in field.metadata
            for kind, (sign, attribute) in _LIMITS.items()
            if isinstance(limit, kind)
        ]
        extra = field.json_schema_extra
        limits += ["operational"] if isinstance(extra, dict) and extra.get("operational") else []
        found[name] = (default, *limits) if limits else default
    return found
