"""The tables that parts hand to the stage that brings them together."""

import polars as pl
import pytest

from tasks import summaries
from tasks.schemas import Schema

TABLES = {name: value for name, value in vars(summaries).items() if isinstance(value, Schema)}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_keys_and_nullable_columns_are_columns_and_no_key_is_nullable(name: str) -> None:
    schema = TABLES[name]
    assert set(schema.key) | schema.nullable <= set(schema.columns)
    assert not set(schema.key) & schema.nullable


@pytest.mark.parametrize("name", ["ANSWERED", "COUNTED", "SCORED"])
def test_what_has_a_row_for_each_question_holds_numbers_only(name: str) -> None:
    assert {pl.Boolean, pl.Float64, pl.Int64} >= set(TABLES[name].columns.values())
