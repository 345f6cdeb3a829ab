"""What the store checks a table against: columns, types, nulls and the primary key."""

from collections.abc import Mapping
from typing import Any, Protocol

import polars as pl


class SchemaLike(Protocol):
    """What the store checks a table against; `tasks.schemas.Schema` fits."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """Column name to polars type, in order."""
        ...

    @property
    def key(self) -> tuple[str, ...]:
        """Columns that are unique together."""
        ...

    @property
    def nullable(self) -> frozenset[str]:
        """Columns that may hold nulls."""
        ...


def check_schema(name: str, frame: pl.DataFrame, schema: SchemaLike) -> None:
    """Refuse a frame that does not match the schema exactly.

    Raises:
        ValueError: columns, a type, nulls or the primary key are not as expected.
    """
    expected = list(schema.columns)
    if frame.columns != expected:
        raise ValueError(f"table {name}: columns {expected} expected, {frame.columns} came")
    for column, dtype in schema.columns.items():
        if not _same_type(frame.schema[column], dtype):
            raise ValueError(f"table {name}.{column}: {dtype} expected, {frame.schema[column]} came")
        if column not in schema.nullable and frame[column].null_count():
            raise ValueError(f"table {name}.{column}: {frame[column].null_count()} nulls where none may be")
    if schema.key and frame.height and frame.select(schema.key).is_duplicated().any():
        twice = frame.filter(frame.select(schema.key).is_duplicated()).select(schema.key).row(0)
        raise ValueError(f"table {name}: the primary key {schema.key} must be unique, {twice} occurs twice")


def _same_type(found: Any, expected: Any) -> bool:  # noqa: ANN401 - polars types are classes or instances
    # A class (pl.Array) stands for any width of it; an instance must match exactly.
    return bool(found == expected) or (isinstance(expected, type) and isinstance(found, expected))
