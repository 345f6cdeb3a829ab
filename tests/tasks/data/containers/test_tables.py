"""Parquet and Arrow: types that JSON lacks, rows and columns that cannot be read, and memory."""

import datetime
import decimal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.data.containers import tables
from tasks.data.containers.kinds import source_file
from tasks.data.containers.tables import read_frames, read_table
from tasks.lines import Problem, ReadLimits
from tests.tasks.data.containers.written import TABLES

MIDNIGHT = datetime.datetime(2024, 1, 1)
COLUMNS: dict[str, tuple[Any, Any]] = {  # Arrow's values, and what comes of them
    "dictionary": (pa.array(["x", "x"]).dictionary_encode(), "x"),
    "dictionary in list": (pa.array([["x"]] * 2, pa.list_(pa.dictionary(pa.int32(), pa.string()))), ["x"]),
    "large": (pa.array(["x"] * 2, pa.large_string()), "x"),
    "view": (pa.array(["x"] * 2, pa.string_view()), "x"),
    "binary": (pa.array(["é".encode()] * 2), "é"),
    "large binary": (pa.array([b"x"] * 2, pa.large_binary()), "x"),
    "time": (pa.array([MIDNIGHT] * 2, pa.timestamp("ms")), "2024-01-01 00:00:00.000"),
    "date": (pa.array([MIDNIGHT.date()] * 2), "2024-01-01"),
    "duration": (pa.array([5] * 2, pa.duration("s")), 5),
    "decimal": (pa.array([decimal.Decimal("1.5")] * 2), 1.5),
    "whole decimal": (pa.array([decimal.Decimal("7")] * 2), 7),
    "long decimal": (pa.array([decimal.Decimal(10) ** 30] * 2), "1" + "0" * 30),
    "null": (pa.nulls(2), None),
    "map": (pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64())), {"a": 1}),
    "struct": (pa.array([{"at": MIDNIGHT.date(), "t": "x"}] * 2), {"at": "2024-01-01", "t": "x"}),
    "fixed": (pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float32(), 2)), [1.0, 2.0]),
    "large list": (pa.array([["x"]] * 2, pa.large_list(pa.string())), ["x"]),
}
NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0])), pa.py_buffer(b"\xff\xfe")]
)


def written(path: Path, table: pa.Table, kind: str = "parquet", **options: Any) -> Path:
    if kind == "parquet":
        pq.write_table(table, path, **options)
    else:
        with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(str(path), table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("name", COLUMNS)
def test_types_that_json_lacks_become_the_nearest(tmp_path: Path, name: str) -> None:
    values, wanted = COLUMNS[name]
    for kind in ("parquet", "stream"):
        file = source_file(written(tmp_path / "a", pa.table({"a": values}), kind))
        assert list(read_table(file)) == [("a#1", {"a": wanted}), ("a#2", {"a": wanted})]
        [(first, frame)] = read_frames(file)  # type: ignore[misc]
        assert (first, frame.columns, frame.height) == (1, ["a"], 2)


@pytest.mark.parametrize("kind", TABLES)
def test_frames_hold_the_wanted_columns_in_batches(tmp_path: Path, kind: str) -> None:
    rows = [{"a": f"x{number}", "b": number, "c": [{"t": "y"}]} for number in range(7)]
    (tmp_path / "a").write_bytes(TABLES[kind](rows))
    file, parts = source_file(tmp_path / "a"), []
    next_row = 1
    for item in read_frames(file, columns=["c", "a", "not there"], rows=3):
        assert not isinstance(item, Problem)
        assert item[0] == next_row
        assert item[1].height <= 3
        next_row += item[1].height
        parts.append(item[1])
    whole = pl.concat(parts)
    assert sorted(whole.columns) == ["a", "c"]
    assert whole["a"].to_list() == [row["a"] for row in rows]


def test_rows_become_objects_a_few_at_a_time_and_keep_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_OBJECTS", 2)
    path = written(tmp_path / "a.parquet", pa.table({"n": list(range(5))}))
    assert list(read_table(source_file(path))) == [(f"a.parquet#{n + 1}", {"n": n}) for n in range(5)]


def test_a_row_that_is_no_utf8_costs_itself(tmp_path: Path) -> None:
    good = pa.array(["one", "two"])
    path = written(tmp_path / "a", pa.table({"s": pa.concat_arrays([good, NOT_UTF8, good])}))
    items = list(read_table(source_file(path)))
    assert [item if isinstance(item, tuple) else (item.key, item.reason) for item in items] == [
        ("a#1", {"s": "one"}),
        ("a#2", {"s": "two"}),
        ("a#3", "not_utf8"),
        ("a#4", {"s": "one"}),
        ("a#5", {"s": "two"}),
    ]
    frames = [item for item in read_frames(source_file(path)) if not isinstance(item, Problem)]
    assert [(first, frame.height) for first, frame in frames] == [(1, 2), (4, 2)]


def test_bytes_that_are_texts_but_for_one_row_cost_the_row(tmp_path: Path) -> None:
    table = pa.table({"s": pa.array([b"one", b"\xff", b"two", b"three"])})
    one, bad, *more = read_table(source_file(written(tmp_path / "a", table)))
    assert one == ("a#1", {"s": "one"})
    assert isinstance(bad, Problem)
    assert (bad.key, bad.reason) == ("a#2", "not_utf8")
    assert more == [("a#3", {"s": "two"}), ("a#4", {"s": "three"})]


def test_a_column_of_pictures_is_left_out_and_named(tmp_path: Path) -> None:
    table = pa.table({"q": ["x", "y"], "picture": [b"\xff\xd8\xff", b"\x89PNG"]})
    problem, *rows = read_table(source_file(written(tmp_path / "a", table)))
    assert isinstance(problem, Problem)
    assert (problem.key, problem.reason) == ("a#1", "not_read")
    assert problem.detail.startswith("column 'picture' (binary) is left out")
    assert rows == [("a#1", {"q": "x"}), ("a#2", {"q": "y"})]


def test_a_column_that_comes_twice_is_named(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    problem, row = read_table(source_file(written(tmp_path / "a", table, "stream")))
    assert isinstance(problem, Problem)
    assert problem.detail == "column 'a' comes more than once; the first one is read"
    assert row == ("a#1", {"a": "x"})


def test_a_column_that_is_too_deep_is_left_out(tmp_path: Path) -> None:
    table = pa.table({"a": [[[["x"]]]], "b": ["y"]})
    problem, row = read_table(source_file(written(tmp_path / "a", table)), ReadLimits(depth=3))
    assert isinstance(problem, Problem)
    assert "4 nested lists and objects (ingest.limits.depth)" in problem.detail
    assert row == ("a#1", {"b": "y"})


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_a_table_without_rows_is_said(tmp_path: Path, kind: str) -> None:
    [problem] = read_table(source_file(written(tmp_path / "a", pa.table({"a": pa.array([], pa.string())}), kind)))
    assert problem == Problem("a#1", "empty_file", "the file holds no row")


def test_a_table_that_unpacks_to_more_than_is_allowed_is_given_up(tmp_path: Path) -> None:
    path = written(tmp_path / "a", pa.table({"a": ["x" * 1_000] * 500}))
    *rows, last = read_table(source_file(path), ReadLimits(unpacked_bytes=10_000))
    assert isinstance(last, Problem)
    assert (last.reason, rows) == ("too_much_unpacked", [])


def test_a_parquet_file_that_was_cut_says_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", pa.table({"a": ["x"] * 10}))
    path.write_bytes(path.read_bytes()[:-10])
    [problem] = read_table(source_file(path))
    assert isinstance(problem, Problem)
    assert (problem.key, problem.reason) == ("a.parquet#1", "broken_file")
    assert problem.detail.endswith("get or write it again")


# Reads a file in a process of its own; prints its rows, and the growth of the peak of its memory in bytes. Linux hands
# the peak in `getrusage` on to child processes, so it is read elsewhere.
MEASURE = """
import re, sys
from pathlib import Path
from tasks.data.containers import tables
from tasks.data.containers.kinds import source_file
from tasks.data.containers.tables import read_frames
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
file, before = source_file(Path(sys.argv[1])), peak()
print(sum(frame.height for _, frame in read_frames(file)))
print(peak() - before)
"""


def test_a_large_row_group_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    texts = [f"{number:06}" * 171 for number in range(100_000)]  # 100 MB
    table = pa.table({"query": texts, "pos": [[text] for text in texts]})
    options = {"row_group_size": 100_000, "compression": "none", "use_dictionary": False}
    path = written(tmp_path / "a", table, **options)
    assert pq.ParquetFile(path).num_row_groups == 1
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4])
    rows, grown = map(int, done.stdout.split())
    assert rows == 100_000
    assert grown < 160 * 2**20 < path.stat().st_size
