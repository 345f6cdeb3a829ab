"""Rows of a file of verdicts, cut into those of each query part."""

from pathlib import Path

import polars as pl
import pytest

from tasks.verdicts import file_rows
from tasks.verdicts.file_rows import cut_rows, slices


def scan(folder: Path, rows: int) -> pl.LazyFrame:
    path = folder / "rows.parquet"
    columns = {"query": [f"q{n % 7}" for n in range(rows)], "value": range(rows)}
    pl.DataFrame(columns, schema={"query": pl.String, "value": pl.Int64}).write_parquet(path)
    return pl.scan_parquet(path)


NAMES = pl.DataFrame(
    {"query": ["q0", "q1", "q2", "q3", "q4", "q0"], "part": [5, 2, 2, 0, 9, 2], "kept": list("abcdef")},
    schema_overrides={"part": pl.Int32},
)


@pytest.mark.parametrize("at_once", [1, 3, 10, 1000])
def test_each_part_gets_its_rows_in_their_order_however_few_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    table = scan(tmp_path, 30)
    monkeypatch.setattr(file_rows, "ROWS_AT_ONCE", at_once)
    found = list(cut_rows(table, NAMES, ["query"]))
    assert [part for part, _ in found] == [0, 2, 5, 9]
    assert all(rows.columns == ["query", "value", "kept"] for _, rows in found)
    values = {part: rows["value"].to_list() for part, rows in found}
    assert values[0] == list(range(3, 30, 7))
    assert values[2] == sorted(n for n in range(30) if n % 7 in (0, 1, 2))  # q0 has two names
    assert values[5] == list(range(0, 30, 7))


def test_a_file_without_rows_or_without_a_known_query_gives_no_part(tmp_path: Path) -> None:
    assert list(cut_rows(scan(tmp_path, 0), NAMES, ["query"])) == []
    assert list(cut_rows(scan(tmp_path, 9), NAMES.clear(), ["query"])) == []
    assert [rows.height for rows in slices(scan(tmp_path, 0))] == [0]
