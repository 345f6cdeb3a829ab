"""A file with a judge's verdicts, of any kind, becomes one table in the store."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.inputs.scores import keep_scores
from infra.engines.specs import ScoresSpec
from infra.storage.store import Store
from tasks.quality.scores import FILE

ROWS = [("q1", "7", 0.5), ("q1", "8", 0.25), ("q2", "7", 1.0)]
WANTED = [("own", *row) for row in ROWS]


def kept(folder: Path, path: Path | str, known: Any = None, **spec: Any) -> tuple[list[Any], list[str]]:
    store, said = Store.open(str(folder / "store")), list[str]()
    files = keep_scores(store, ScoresSpec(path=str(path), **spec), ("strong", "own"), known, said.append)
    (folder / "made.parquet").write_bytes(store.get_object(files[FILE]))
    return pl.read_parquet(folder / "made.parquet").rows(), said


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_each_kind_of_file_says_the_same(tmp_path: Path) -> None:
    head, names = ("query_id", "doc_id", "score"), ("tsv", "tsv.gz", "csv", "jsonl", "jsonl.gz", "run", "parquet")
    for name in names:
        path = tmp_path / f"scores.{name}"
        if name == "parquet":
            pl.DataFrame(ROWS, schema=list(head), orient="row").write_parquet(path)
        elif name == "run":
            write(path, "".join(f"{query} Q0\t{doc}  1 {score} us\n" for query, doc, score in ROWS))
        elif name.startswith("jsonl"):
            objects = [{"query_id": query, "doc_id": int(doc), "score": score} for query, doc, score in ROWS]
            write(path, "".join(json.dumps(row) + "\n" for row in objects))
        else:
            lines = [head, *ROWS]
            write(path, "".join(("," if name == "csv" else "\t").join(map(str, line)) + "\n" for line in lines))
        assert kept(tmp_path, path) == (WANTED, []), name


def test_columns_are_named_and_a_column_of_datasets_is_read_where_there_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "dataset\tqid\tpid\tp\tother\nfever\tq1\t7\t0.5\tx\n")
    columns = {"query_id": "qid", "doc_id": "pid", "score": "p"}
    assert kept(tmp_path, path, columns=columns)[0] == [("fever", "q1", "7", 0.5)]
    assert kept(tmp_path, path, columns={**columns, "dataset": "other"})[0] == [("x", "q1", "7", 0.5)]
    with pytest.raises(ConfigError, match=r"has the columns dataset, qid, pid, p, other; query_id, doc_id, score exp"):
        kept(tmp_path, path)


def test_rows_left_out_are_told_with_their_number_and_the_first_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "query_id,doc_id,score\nq1,7,0.5\nq1,7,0.5\nq1,8,yes\nq1,9,2\n")
    rows, said = kept(tmp_path, path)
    assert rows == [("own", "q1", "7", 0.5)]
    assert said == [
        f"tier strong: {path}: 1 row(s) left out: the score is no number (dataset own, query q1, document 8: 'yes')",
        f"tier strong: {path}: 1 row(s) left out: the score is outside the scale (dataset own, query q1, document 9: "
        "'2')",
        f"tier strong: {path}: 1 row(s) say the same as another row of their pair; one of them is kept (dataset own, "
        "query q1, document 7)",
    ]


def test_a_file_that_cannot_be_used_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a file with one of the endings \.tsv, \.csv"):
        kept(tmp_path, "scores.xlsx")
    with pytest.raises(ConfigError, match=r"a file with one of the endings"):
        kept(tmp_path, "scores.parquet.gz")
    path = write(tmp_path / "a.tsv", "query_id\tdoc_id\tscore\nq1\t7\t-3.5\n")
    with pytest.raises(ConfigError, match=r"holds no usable row; scale 'probability' expects numbers from 0 to 1"):
        kept(tmp_path, path)
    assert kept(tmp_path, path, scale="logit")[0] == [("own", "q1", "7", -3.5)]
    with pytest.raises(ConfigError, match=r"b\.parquet cannot be read as parquet"):
        kept(tmp_path, write(tmp_path / "b.parquet", "no parquet"))


def test_a_file_that_is_gone_is_replaced_by_the_copy_of_the_last_execution(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        kept(tmp_path, tmp_path / "none.tsv")
    store, said = Store.open(str(tmp_path / "store")), list[str]()
    spec = ScoresSpec(path=str(tmp_path / "none.tsv"))
    assert keep_scores(store, spec, ("strong", "own"), {FILE: "x"}, said.append) == {FILE: "x"}
    assert said == [f"tier strong: {spec.path} cannot be read here; the copy of the last execution is used"]
