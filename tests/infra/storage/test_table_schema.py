"""A frame is let into the store only when it is exactly of its schema."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pytest

from infra.storage.table_schema import check_schema


@dataclass(frozen=True)
class Expected:
    columns: Mapping[str, Any]
    key: tuple[str, ...] = ()
    nullable: frozenset[str] = field(default_factory=frozenset)


PAIRS = Expected({"query": pl.String, "rank": pl.Int64}, ("query", "rank"), frozenset({"rank"}))


def frame(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema={name: PAIRS.columns.get(name, pl.String) for name in columns})


def test_a_frame_of_the_schema_passes_and_so_does_an_empty_one() -> None:
    check_schema("hits", frame(query=["a", "a", "b"], rank=[1, 2, 1]), PAIRS)
    check_schema("hits", frame(query=[], rank=[]), PAIRS)
    check_schema("hits", frame(query=["a", "b"], rank=[None, 1]), PAIRS)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"rank": [1], "query": ["a"]}, r"columns \['query', 'rank'\] expected, \['rank', 'query'\] came"),
        ({"query": ["a"]}, r"columns \['query', 'rank'\] expected, \['query'\] came"),
        ({"query": ["a"], "rank": [1], "more": ["x"]}, r"columns .*, \['query', 'rank', 'more'\] came"),
    ],
)
def test_columns_that_are_missing_too_many_or_in_another_order_are_refused(columns: Any, told: str) -> None:
    with pytest.raises(ValueError, match=f"table hits: {told}"):
        check_schema("hits", frame(**columns), PAIRS)


def test_a_column_of_another_type_is_refused() -> None:
    other = frame(query=["a"], rank=[1]).with_columns(pl.col("rank").cast(pl.Int32))
    with pytest.raises(ValueError, match=r"table hits\.rank: Int64 expected, Int32 came"):
        check_schema("hits", other, PAIRS)


def test_nulls_are_counted_and_refused_where_none_may_be() -> None:
    with pytest.raises(ValueError, match=r"table hits\.query: 2 nulls where none may be"):
        check_schema("hits", frame(query=[None, "a", None], rank=[1, 2, 3]), PAIRS)


def test_a_primary_key_that_occurs_twice_is_named() -> None:
    with pytest.raises(ValueError, match=r"primary key \('query', 'rank'\) must be unique, \('b', 1\) occurs twice"):
        check_schema("hits", frame(query=["a", "b", "b"], rank=[1, 1, 1]), PAIRS)
    check_schema("hits", frame(query=["b", "b"], rank=[1, 1]), Expected(PAIRS.columns))


def test_a_class_of_arrays_stands_for_any_width_and_an_instance_for_its_own() -> None:
    vectors = pl.DataFrame({"vector": [[1.0, 2.0]]}, schema={"vector": pl.Array(pl.Float32, 2)})
    check_schema("vectors", vectors, Expected({"vector": pl.Array}))
    check_schema("vectors", vectors, Expected({"vector": pl.Array(pl.Float32, 2)}))
    with pytest.raises(ValueError, match=r"table vectors\.vector"):
        check_schema("vectors", vectors, Expected({"vector": pl.Array(pl.Float32, 3)}))
    with pytest.raises(ValueError, match=r"table vectors\.vector"):
        check_schema("vectors", vectors, Expected({"vector": pl.String}))
