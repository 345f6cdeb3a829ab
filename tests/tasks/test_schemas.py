"""The stored tables: keys and nullable columns exist, and an empty table has the schema's columns."""

import polars as pl
import pytest

from tasks import schemas
from tasks import schemas as schemas_module
from tasks.schemas import Schema
from tests.tasks.records import mutable_records

TABLES = {name: value for name, value in vars(schemas).items() if isinstance(value, Schema)}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_keys_and_nullable_columns_are_columns_and_no_key_is_nullable(name: str) -> None:
    schema = TABLES[name]
    assert set(schema.key) | schema.nullable <= set(schema.columns)
    assert not set(schema.key) & schema.nullable


def test_an_empty_table_has_the_columns_in_order_and_no_row() -> None:
    empty = schemas.REJECTS.empty()
    assert dict(empty.schema) == dict.fromkeys(("stage", "key", "reason", "detail"), pl.String)
    assert empty.height == 0


def test_the_treatments_and_states_are_those_of_the_method() -> None:
    assert schemas.PAPER_TREATMENTS == ("default", "remove", "remove_hn", "relabel")
    assert schemas.TREATMENTS == (*schemas.PAPER_TREATMENTS, "drop_ambiguous")
    assert schemas.VERDICT_STATES == ("relevant", "not_relevant", "unsure", "unparsed")


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(schemas_module) == set()
