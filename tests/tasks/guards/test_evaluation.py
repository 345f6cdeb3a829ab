"""Evaluation sets of several kinds are read: their queries, and what is relevant to them."""

import json
from pathlib import Path

import polars as pl
import pytest

from tasks.guards.config import EvaluationConfig
from tasks.guards.evaluation import EvaluationError, read_evaluation
from tasks.guards.sketches import BANDS
from tasks.guards.tables import EVALUATION


def write_lines(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def write_beir(folder: Path, split: str = "test") -> Path:
    """Two queries, one of them of the split; two passages, one of them relevant."""
    write_lines(folder / "corpus.jsonl", *({"_id": f"d{n}", "title": "T", "text": f"text {n}"} for n in (1, 2, 3)))
    write_lines(folder / "queries.jsonl", *({"_id": f"q{n}", "text": f"query {n}"} for n in (1, 2)))
    header = "query-id\tcorpus-id\tscore"
    write_lines(folder / "qrels" / f"{split}.tsv", header, "q1\td1\t1", "q1\td2\t0")
    write_lines(folder / "qrels" / "train.tsv", header, "q2\td3\t1")
    return folder


def read(source: Path, *sets: str) -> list[tuple[str, str, str, str]]:
    made = read_evaluation(EvaluationConfig(sets=sets), source=source)
    assert made["evaluation"].schema == EVALUATION.empty().schema
    assert (made["evaluation"]["bands"].list.len() == BANDS).all()
    return made["evaluation"].select("set", "kind", "id", "text").rows()


def test_of_a_beir_folder_the_judged_queries_and_their_relevant_passages_count_but_not_the_training_split(
    tmp_path: Path,
) -> None:
    write_beir(tmp_path / "0")
    assert read(tmp_path, "nq") == [("nq", "passage", "d1", "T text 1"), ("nq", "query", "q1", "query 1")]


def test_rows_give_queries_and_positives(tmp_path: Path) -> None:
    write_lines(tmp_path / "0" / "rows.jsonl", {"query": "where", "pos": ["In the river."], "neg": ["No."]})
    assert [row[1::2] for row in read(tmp_path, "rows")] == [("passage", "In the river."), ("query", "where")]


def test_files_of_queries_and_texts_alone(tmp_path: Path) -> None:
    write_lines(tmp_path / "0" / "test_queries.txt", "where does it live", "", "  水獭吃什么 ")
    write_lines(tmp_path / "1" / "q.jsonl", {"id": 7, "question": "why"}, {"id": 8, "text": "Because."}, {"other": 1})
    write_lines(tmp_path / "2" / "queries.tsv", "_id\ttext", "a\twho")
    found = read(tmp_path, "lines", "objects", "columns")
    assert [row for row in found if row[0] == "lines"] == [
        ("lines", "query", "test_queries.txt:1", "where does it live"),
        ("lines", "query", "test_queries.txt:3", "水獭吃什么"),
    ]
    assert [row for row in found if row[0] == "objects"] == [
        ("objects", "passage", "8", "Because."),
        ("objects", "query", "7", "why"),
    ]
    assert [row for row in found if row[0] == "columns"] == [("columns", "query", "a", "who")]


def test_a_set_that_cannot_be_used_is_told_with_the_remedy(tmp_path: Path) -> None:
    write_lines(tmp_path / "0" / "other.jsonl", {"a": 1})
    with pytest.raises(EvaluationError, match=r"mine holds no text\. A BEIR folder"):
        read(tmp_path, "mine")
    folder = write_beir(tmp_path / "1")
    (folder / "qrels" / "test.tsv").unlink()
    with pytest.raises(EvaluationError, match="the split `train` only"):
        read_evaluation(EvaluationConfig(sets=("a",)), source=_at_zero(tmp_path / "again", folder))


def _at_zero(folder: Path, of: Path) -> Path:
    folder.mkdir()
    of.rename(folder / "0")
    return folder


def test_figures_count_what_there_is_and_no_set_gives_an_empty_table(tmp_path: Path) -> None:
    write_beir(tmp_path / "0", split="dev")
    figures = read_evaluation(EvaluationConfig(sets=("x",)), source=tmp_path)["figures"]
    assert dict(figures.select("measure", "value").iter_rows()) == {"evaluation_queries": 1, "evaluation_passages": 1}
    assert read_evaluation(EvaluationConfig(), source=tmp_path)["evaluation"].equals(EVALUATION.empty())
    assert isinstance(figures, pl.DataFrame)
