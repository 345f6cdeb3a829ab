"""The cross-encoder of the planted benchmark, on a tiny model of random weights."""

import gzip
import json
from pathlib import Path

import polars as pl

from benchmarks.planted_teacher import read_graded, score_pairs, scored, train_cross_encoder
from tests.benchmarks.planted_toy import RELEVANT, TOPICS, toy
from tests.tasks.training.tables import build_tiny_model


def start(folder: Path) -> Path:
    folder.mkdir()
    build_tiny_model(folder)
    (folder / "bert" / "vocab.txt").write_text((folder / "vocab.txt").read_text())
    return folder / "bert"


def test_it_is_trained_kept_and_gives_probabilities(tmp_path: Path) -> None:
    pairs = [(f"what about {topic}", f"{topic} {end}") for topic in TOPICS for end in RELEVANT]
    labels = [float(end == "are nice") for _ in TOPICS for end in RELEVANT]
    losses = train_cross_encoder(start(tmp_path / "start"), pairs, labels, tmp_path / "model")
    assert len(losses) == 3 and all(loss > 0 for loss in losses)
    found = score_pairs(tmp_path / "model", pairs)
    assert found.shape == (40,) and ((found > 0) & (found < 1)).all()
    assert (found == score_pairs(tmp_path / "model", pairs)).all()
    collection, planted = toy(tmp_path)
    table = scored(collection, planted, tmp_path / "model")
    assert table.height == planted.candidates.height + planted.positives.height
    assert table["score"].is_between(0, 1).all() and table.columns == ["dataset", "query_id", "doc_id", "score"]
    assert not pl.Series(table["score"]).is_null().any()


def test_the_graded_pairs_are_those_with_texts(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"_id": f"{n}", "title": "", "text": f"text {n}"}) + "\n" for n in range(3))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "what"}) + "\n")
    rows = ["query-id\tcorpus-id\tscore", "q\t0\t3", "q\t1\t1", "q\t9\t3", "other\t2\t2"]
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(rows) + "\n")
    assert read_graded(tmp_path) == ([("what", "text 0"), ("what", "text 1")], [1.0, 0.0])
