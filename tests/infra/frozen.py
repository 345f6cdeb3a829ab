"""A check that values which pass between threads and processes cannot be changed."""

import dataclasses
from typing import Any


def can_be_changed(value: Any) -> bool:
    """Tell whether a field of a data class's value can be set."""
    name = dataclasses.fields(value)[0].name
    try:
        setattr(value, name, getattr(value, name))
    except dataclasses.FrozenInstanceError:
        return False
    return True
