"""Names and ids as people have them: what is written is read back the same, by our reader and by the format's own."""

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from infra.storage.artifacts import write_directory
from infra.storage.store import Store
from tasks import schemas
from tasks.data.export import ExportConfig, export
from tasks.texts import combine_hashes, hash_passage, hash_text
from tests.tasks.data.inputs import ingest_all, reasons_of

NAMES = (
    "BeIR/nq", "./data/nq", "../nq", "/data/nq.jsonl", "https://host/nq", "C:\\data\\nq", "a:b", "nq/", "nq.", " nq ",
    "医療系質問応答データセット第三版日本語訓練用検索評価データ集", "é" * 300, "con", ".hidden", "%2e%2e/nq",
)  # fmt: skip
QUOTED = ('"Heroes"_(song)', "d2", '"open', 'in"side', "it's")


def written(out: Path, form: str, rows: dict[str, tuple[list[str], list[str]]], dataset: str = "d") -> Path:
    """Export instances, by query id their positives and negatives; a text says its id."""
    ids = sorted({doc_id for row in rows.values() for side in row for doc_id in side})
    hashes = {doc_id: hash_passage("", f"text of {doc_id}") for doc_id in ids}
    asked = {query_id: f"about {query_id}" for query_id in rows}
    queries = [(dataset, query_id, text, hash_text(text), "train") for query_id, text in asked.items()]
    passages = [(dataset, doc_id, "", f"text of {doc_id}", hashes[doc_id]) for doc_id in ids]
    instances = [
        (dataset, query_id, positives, negatives, "default",
         combine_hashes([hash_text(asked[query_id]), *(hashes[doc_id] for doc_id in (*positives, *negatives))]))
        for query_id, (positives, negatives) in rows.items()
    ]  # fmt: skip
    export(
        ExportConfig.model_validate({"formats": [form]}),
        instances=pl.DataFrame(instances, schema=schemas.INSTANCES.columns, orient="row"),
        queries=pl.DataFrame(queries, schema=schemas.QUERIES.columns, orient="row"),
        passages=pl.DataFrame(passages, schema=schemas.PASSAGES.columns, orient="row"),
        out=out,
    )
    return out / form


def test_ids_with_quotes_are_read_back_by_us_and_by_the_csv_reader_of_beir(tmp_path: Path) -> None:
    rows = {f"q{n}": ([doc_id], ["d2"] if doc_id != "d2" else []) for n, doc_id in enumerate(QUOTED)}
    folder = written(tmp_path / "out", "beir", rows) / "d"
    expected = [(query_id, positives[0]) for query_id, (positives, _) in sorted(rows.items())]
    with (folder / "qrels" / "train.tsv").open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
    assert [(line[0], line[1]) for line in lines] == expected
    out = ingest_all(folder, test_split=None)
    assert out["positives"].select("query_id", "doc_id").sort("query_id").rows() == expected
    assert reasons_of(out) == []


@pytest.mark.parametrize("form", ["beir", "trec"])
def test_a_dataset_named_by_a_path_is_exported_under_a_name_that_the_store_keeps(tmp_path: Path, form: str) -> None:
    store = Store.open(str(tmp_path / "store"))
    names = set()
    for number, name in enumerate(NAMES):
        out = tmp_path / str(number)
        folder = written(out, form, {"q1": (["d1"], [])}, dataset=name)
        (made,) = folder.iterdir()
        assert len(made.name.encode()) <= 255
        names.add(made.name)
        kept = write_directory(store, "export", out)
        assert f"{form}/{made.name}" in {"/".join(file.split("/")[:2]) for file in kept.files}
        assert json.loads((out / "export.json").read_text(encoding="utf-8"))["datasets"] == {name: 1}
    assert len(names) == len(NAMES)
