"""Tables that are written as one sorted file, whatever their size."""

from pathlib import Path

import polars as pl
import pytest

from tasks.data.on_disk import sorted_rows
from tasks.data.on_disk.sorted_file import write_sorted

BY = ("name", "other")
ROWS = pl.DataFrame(
    {
        "name": [f"n{n * 7 % 50:03}" for n in range(2_000)],
        "other": [f"o{n * 11 % 40:03}" for n in range(2_000)],
        "number": [n * 13 % 2_000 for n in range(2_000)],
    }
)


def test_the_file_of_a_small_table_has_the_bytes_that_polars_writes(tmp_path: Path) -> None:
    assert write_sorted(tmp_path / "rows.parquet", ROWS.iter_slices(300), BY) == 2_000
    ROWS.sort(pl.all()).write_parquet(tmp_path / "whole.parquet")
    assert (tmp_path / "rows.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_large_table_is_sorted_by_all_columns_over_all_its_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorted_rows, "PIECE_BYTES", 8_000)
    assert write_sorted(tmp_path / "rows.parquet", ROWS.iter_slices(300), BY) == 2_000
    assert pl.read_parquet(tmp_path / "rows.parquet").equals(ROWS.sort(pl.all()))
    import pyarrow.parquet as pq

    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups > 3


def test_a_table_without_rows_is_a_file_with_its_columns(tmp_path: Path) -> None:
    assert write_sorted(tmp_path / "rows.parquet", [ROWS.clear()], BY) == 0
    assert pl.read_parquet(tmp_path / "rows.parquet").schema == ROWS.schema
