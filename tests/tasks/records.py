"""Which records of a module can be changed after they were made."""

import dataclasses
from types import ModuleType


def mutable_records(module: ModuleType) -> set[str]:
    """Name the dataclasses of a module, private ones too, that are not frozen."""
    made = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    return {
        item.__name__
        for item in made
        if dataclasses.is_dataclass(item) and not item.__dataclass_params__.frozen  # type: ignore[attr-defined]
    }
