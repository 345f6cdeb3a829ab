"""Names of files that every disk keeps; JSON as Python writes it; parquet in row groups."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.storage.artifacts import write_directory
from infra.storage.store import Store
from tasks.data.writing.files import JsonRows, Lines, Parquet, file_names, json_lists, json_objects, json_values

NAMES = [
    *("BeIR/nq", "./data/nq", "/data/nq.jsonl", "https://host/nq", "C:\\data\\nq", "a:b", "nq/", "nq", "NQ", "Nq"),
    *(
        "医療系質問応答データセット第三版日本語訓練用検索評価データ集" * 9,
        "x" * 10_000,
        "..",
        ".",
        "%2e%2e",
        "~",
        '*?"<>|',
    ),
    *("con", "COM1.nq", "nul", "nq.", "a b ", "-rf", "é", "e\u0301", "ß", "SS"),
]


def test_every_name_becomes_a_short_one_that_the_store_and_every_disk_keep(tmp_path: Path) -> None:
    names = file_names(NAMES)
    folder = tmp_path / "files"
    for name in names.values():
        (folder / name).mkdir(parents=True)
        (folder / name / "corpus.jsonl").touch()
        assert len(f"{name}.qrels".encode()) <= 255
        assert not name.endswith((".", " "))
    stored = write_directory(Store.open(str(tmp_path / "store")), "export", folder).files
    assert set(stored) == {f"{name}/corpus.jsonl" for name in names.values()}
    assert len({name.casefold() for name in names.values()}) == len(NAMES)


@given(st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=6))
def test_different_names_get_different_files_whatever_they_are(names: list[str]) -> None:
    names = [name for name in names if name.isprintable()]
    found = file_names(names)
    assert len({name.casefold() for name in found.values()}) == len(names)
    assert all("/" not in name and name not in ("", ".", "..") for name in found.values())


def test_a_plain_name_stays_as_it_is_beside_any_other() -> None:
    assert file_names(["nq", "BeIR/nq", "hotpotqa"]) == {"nq": "nq", "BeIR/nq": "BeIR%2Fnq", "hotpotqa": "hotpotqa"}


@given(st.lists(st.tuples(st.none() | st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False))))
def test_json_is_what_python_writes(rows: list[tuple[str | None, float | None]]) -> None:
    frame = pl.DataFrame(rows, schema={"text": pl.String, "score": pl.Float64}, orient="row")
    written = json_objects(frame)
    assert [json.loads(row) for row in written] == frame.rows(named=True)
    texts = [json.dumps(row, ensure_ascii=False) for row in frame.select("text").iter_rows(named=True)]
    assert json_objects(frame.select("text")).to_list() == texts


@given(st.lists(st.lists(st.text() | st.none())))
def test_lists_of_texts_keep_their_lengths(rows: list[list[str | None]]) -> None:
    column = pl.Series(rows, dtype=pl.List(pl.String))
    assert [json.loads(value) for value in json_values(column)] == rows
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    values = json_values(column.explode(empty_as_null=False).cast(pl.String))
    assert json_lists(values, counts).to_list() == [json.dumps(row, ensure_ascii=False) for row in rows]


def test_a_number_that_json_does_not_know_is_null() -> None:
    assert json_values(pl.Series([float("nan"), float("inf"), 2.0])).to_list() == ["null", "null", "2.0"]


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_rows_are_appended_in_order_and_counted(tmp_path: Path, parts: int) -> None:
    schema = pl.Schema({"text": pl.String, "scores": pl.List(pl.Float64)})
    frame = pl.DataFrame({"scores": [[0.5], []], "text": ["é", None]}, schema_overrides=schema)
    for file in (JsonRows(tmp_path / "rows.jsonl", schema), Parquet(tmp_path / "new" / "rows.parquet", schema)):
        with file:
            for _ in range(parts):
                file.add(frame)
            assert file.count == 2 * parts
    read = pl.read_parquet(tmp_path / "new" / "rows.parquet")
    assert read.rows() == [("é", [0.5]), (None, [])] * parts
    assert read.schema == schema
    assert (
        tmp_path / "rows.jsonl"
    ).read_text() == '{"text": "é", "scores": [0.5]}\n{"text": null, "scores": []}\n' * parts


def test_parquet_has_types_that_every_reader_knows(tmp_path: Path) -> None:
    schema = pl.Schema({"query": pl.String, "passages": pl.List(pl.Struct({"docid": pl.String, "score": pl.Float64}))})
    with Parquet(tmp_path / "rows.parquet", schema) as file:
        file.add(pl.DataFrame({"query": ["q"], "passages": [[{"docid": "d", "score": 1.0}]]}, schema=schema))
    kinds = {field.name: str(field.type) for field in pyarrow.parquet.read_schema(tmp_path / "rows.parquet")}
    assert kinds == {"query": "string", "passages": "list<element: struct<docid: string, score: double>>"}


def test_lines_end_with_a_line_feed_on_every_system(tmp_path: Path) -> None:
    with Lines(tmp_path / "a" / "b.txt") as file:
        file.write(["one", "two\u2028"])
        file.write([])
    assert (tmp_path / "a" / "b.txt").read_bytes() == "one\ntwo\u2028\n".encode()
