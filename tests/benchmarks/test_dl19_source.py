"""TREC DL 2019 as a source with judges from a file goes through the whole method; the collection may be absent."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.dl19_source import JUDGES, Source, write_source
from flows.config.load import parse_config
from flows.curation.lookup import look_at
from flows.curation.records import load_curation, open_curation
from flows.runs.execute import execute
from infra.storage.artifacts import Table, read_table
from tasks import schemas
from tests.flows.nightly import Nights

DATA = Path(__file__).parents[3] / "shared" / "data" / "trec_dl19"


def write_collection(folder: Path) -> Path:
    """Two queries of our own in the collection's layout, with grades and one judge."""
    (folder / "qrels").mkdir(parents=True)
    grades = {
        ("1", "10"): 3,
        ("1", "9"): 3,
        ("1", "11"): 2,
        ("1", "12"): 0,
        ("2", "10"): 0,
        ("2", "12"): 2,
        ("2", "11"): 1,
    }
    rows = "".join(f"{query}\t{doc}\t{grade}\n" for (query, doc), grade in grades.items())
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    texts = {"9": "Otters live in rivers.", "10": "The otter lives near rivers.", "11": "Rivers.", "12": "Herons wade."}
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as out:
        out.writelines(json.dumps({"_id": id_, "title": "", "text": text}) + "\n" for id_, text in texts.items())
    queries = {"1": "where do otters live", "2": "what do herons do"}
    lines = [json.dumps({"_id": id_, "text": text}) + "\n" for id_, text in queries.items()]
    (folder / "queries.jsonl").write_text("".join(lines))
    with gzip.open(folder / "candidates.jsonl.gz", "wt") as out:
        for id_ in queries:
            found = [
                {"docid": doc, "rank": n, "score": 9.0 - n} for n, doc in enumerate(("10", "9", "11", "12", "13"), 1)
            ]
            out.write(json.dumps({"query_id": id_, "candidates": found}) + "\n")
    table = pl.DataFrame(
        [(*pair, grade) for pair, grade in grades.items()], schema=["query_id", "doc_id", "gpt4o_umbrela"], orient="row"
    )
    with gzip.open(folder / "judges.tsv.gz", "wb") as out:
        out.write(table.write_csv(separator="\t").encode())
    return folder


def decided(tmp_path: Path, source: Source, tiers: list[dict[str, Any]]) -> tuple[Nights, str, pl.DataFrame]:
    nights = Nights(tmp_path)
    model = nights.asked(source.folder)["encoder"]
    asked = source.config(
        tiers, encoder=model, complete={"max_unparsed": 0.0}, sample={"size": 12}, decide={"mode": "last"}
    )
    done = execute(nights.workspace, open_curation(nights.workspace, parse_config(asked, "test")), nights.compute)
    _, runs = look_at(nights.workspace, load_curation(nights.workspace.store, done.curation))
    (decide,) = [run for run in runs if run.name == "decide"]
    pieces = sum((manifest.tables["decisions"] for manifest in decide.manifests), ())
    return nights, done.curation, read_table(nights.workspace.store, Table("decisions", pieces), schemas.VERDICTS)


def test_the_highest_grade_is_the_positive_and_judged_candidates_are_the_negatives(tmp_path: Path) -> None:
    source = write_source(write_collection(tmp_path / "data"), tmp_path / "source")
    assert (source.folder / "qrels" / "train.tsv").read_text().splitlines()[1:] == ["1\t9\t3", "2\t12\t2"]
    assert (source.folder / "qrels" / "known.tsv").read_text().splitlines()[1:] == ["1\t10\t3", "1\t11\t2"]
    assert (source.folder / "runs" / "bm25.trec").read_text().splitlines()[0] == "1 Q0 10 1 8.0 bm25"
    assert source.grades.rows() == [("1", "10", 3), ("1", "11", 2), ("1", "12", 0), ("2", "10", 0), ("2", "11", 1)]
    nights, _, decisions = decided(tmp_path, source, [source.tier("gpt4o_umbrela")])
    assert nights.judge.asked == []
    assert decisions.select("query_id", "doc_id", "state").rows() == [
        ("1", "10", "relevant"),
        ("1", "11", "relevant"),
        ("1", "12", "not_relevant"),
        ("2", "10", "not_relevant"),
        ("2", "11", "not_relevant"),
    ]


@pytest.mark.skipif(not DATA.exists(), reason="the collection is not there")
def test_every_judged_candidate_of_the_collection_has_a_verdict_of_every_judge_in_the_file(tmp_path: Path) -> None:
    source = write_source(DATA, tmp_path / "source")
    counts = (source.grades.height, source.grades["query_id"].n_unique())
    tiers = [source.tier(column) for column in JUDGES]
    _, _, decisions = decided(tmp_path, source, tiers)
    found = decisions.join(source.grades, on=["query_id", "doc_id"])
    assert (decisions.height, found.height, counts[1]) == (found.height, counts[0] - _copies(source), 43)
    assert decisions.filter(pl.col("state") == "unparsed").is_empty()


def _copies(source: Source) -> int:
    """Count candidates whose text a candidate or the positive of their query has too: ingest keeps one of them."""
    corpus = pl.read_ndjson(source.folder / "corpus.jsonl").select(doc_id="_id", text="text")
    train = pl.read_csv(source.folder / "qrels" / "train.tsv", separator="\t", infer_schema=False)
    named = pl.concat(
        [source.grades.select("query_id", "doc_id"), train.select(query_id="query-id", doc_id="corpus-id")]
    )
    texts = named.join(corpus, on="doc_id").select("query_id", "text")
    return texts.height - texts.n_unique()
