"""A small configuration, and what it says when it is refused."""

from typing import Any

import pytest

from flows.config.load import parse_config
from flows.config.section import ConfigError

MINIMAL = {"name": "mine", "source": {"path": "rows.jsonl"}}


def config(**changes: Any) -> Any:
    """Read the smallest configuration with these settings."""
    return parse_config({**MINIMAL, **changes}, "my.yaml")


def refuse(changes: dict[str, object]) -> str:
    """Return the message that refuses these settings."""
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, **changes}, "my.yaml")
    return str(caught.value)
