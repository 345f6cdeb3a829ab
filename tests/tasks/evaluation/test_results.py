"""Results are files that mteb's tools, trec_eval and spreadsheets read."""

import gzip
import json
from pathlib import Path

import ir_measures
import polars as pl
import pytest

from tasks.evaluation.results import ResultsConfig, task_result, write_results
from tasks.schemas import SCORES
from tasks.summaries import RUN

CONFIG = ResultsConfig(model="nq-relabel", revision="0123abcd", languages={"mine": ("eng-Latn",)})
ROWS = [("q1", "d1", 0.9), ("q1", "d2", 0.5), ("q2", "d 3", 0.25)]


def _scores() -> pl.DataFrame:
    values = {"nDCG@10": (0.25, 0.75), "R@100": (1.0, 0.5), "RR@10": (0.125, 1.0), "Bpref": (0.0, 0.5)}
    rows = [
        ("relabel", dataset, measure, query_id, value, 42)
        for dataset in ("mine", "a/b")
        for measure, found in values.items()
        for query_id, value in zip(("q1", "q2"), found, strict=True)
    ]
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row")


def _run(dataset: str) -> pl.DataFrame:
    rows = [(dataset, query_id, doc_id, 1, score) for query_id, doc_id, score in ROWS]
    return pl.DataFrame([*rows, (dataset, "of dev", "d1", 1, 0.1)], schema=RUN.columns, orient="row")


def test_a_task_result_has_the_names_of_mteb_and_the_means() -> None:
    result = task_result(CONFIG, "mine", _scores().filter(dataset="mine"))
    assert set(result) == {
        "dataset_revision", "task_name", "mteb_version", "scores", "evaluation_time", "kg_co2_emissions",
    }  # fmt: skip
    assert result["task_name"] == "mine"
    assert result["scores"] == {
        "test": [
            {
                "Bpref": 0.25,
                "ndcg_at_10": 0.5,
                "recall_at_100": 0.75,
                "mrr_at_10": 0.5625,
                "main_score": 0.5,
                "hf_subset": "default",
                "languages": ["eng-Latn"],
            }
        ]
    }
    assert result["dataset_revision"] == "local"
    assert task_result(ResultsConfig(model="m", revision="r", data="d5"), "a", _scores())["dataset_revision"] == "d5"
    other = ResultsConfig(model="m", revision="r", main="AP")
    assert task_result(other, "mine", _scores().filter(measure="RR@10"))["scores"]["test"][0]["main_score"] == 0.5625


def test_each_dataset_has_its_result_its_run_and_its_queries(tmp_path: Path) -> None:
    assert write_results(CONFIG, scores=_scores(), run=iter([_run("mine"), _run("a/b")]), out=tmp_path) == {}
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        f"{folder}/nq-relabel/{name}"
        for name_of in ("mine", "a%2Fb")
        for folder, name in (
            ("results", f"0123abcd/{name_of}.json"),
            ("runs", f"{name_of}.test.trec.gz"),
            ("queries", f"{name_of}.test.tsv"),
        )
    }
    result = json.loads((tmp_path / "results/nq-relabel/0123abcd/mine.json").read_text())
    assert result["scores"]["test"][0]["main_score"] == 0.5
    table = pl.read_csv(tmp_path / "queries/nq-relabel/mine.test.tsv", separator="\t")
    assert table.filter(query_id="q2").select("nDCG@10", "R@100").rows() == [(0.75, 0.5)]


def test_the_run_is_one_that_ir_measures_reads_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("one", "two")]
    for place in places:
        write_results(CONFIG, scores=_scores(), run=_run("mine"), out=place)
    packed = [(place / "runs/nq-relabel/mine.test.trec.gz").read_bytes() for place in places]
    assert packed[0] == packed[1]
    lines = gzip.decompress(packed[0]).decode()
    assert lines.splitlines()[0] == "q1 Q0 d1 1 0.9 nq-relabel"
    read = [(one.query_id, one.doc_id, one.score) for one in ir_measures.read_trec_run(lines)]
    assert read == [(query_id, doc_id.replace(" ", "_"), pytest.approx(score)) for query_id, doc_id, score in ROWS]
