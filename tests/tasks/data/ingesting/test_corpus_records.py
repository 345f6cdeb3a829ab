"""A corpus is numbered, and judgements refer to it by number."""

from pathlib import Path

import pytest

from tasks.data.ingesting import corpus_records
from tasks.data.ingesting.corpus_records import read_corpus
from tasks.data.reading.records import IngestError
from tasks.data.reading.source import CorpusSource, open_source
from tests.tasks.data.inputs import write_beir, write_lines


def _source(folder: Path) -> CorpusSource:
    source = open_source(folder)
    assert isinstance(source, CorpusSource)
    return source


def _read(folder: Path, **splits: str) -> corpus_records.r.Records:
    return read_corpus(_source(folder), "d", splits=splits, known="known", longest=100, most_rejects=100)


def test_texts_are_numbered_and_judgements_name_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_records, "_AT_ONCE", 2)  # several chunks
    documents = {f"d{n}": f"text {n}" for n in range(5)}
    queries = {f"q{n}": f"query {n}" for n in range(3)}
    qrels = {"train": "q2 d4 1, q0 d0 2", "test": "q1 d3 1, q0 d9 1", "known": "q1 d2 1"}
    write_beir(tmp_path, documents, queries, **qrels)
    read = _read(tmp_path, train="train", test="test")
    assert read.passages.select("number", "id", "place").rows() == [(n, f"d{n}", n) for n in range(5)]
    assert read.queries.select("id", "named").rows() == [("q0", "test"), ("q1", "test"), ("q2", "train")]
    assert read.labels["train"].select("query", "passage", "value").rows() == [(2, 4, 1.0), (0, 0, 2.0)]
    assert read.labels["test"].select("query", "passage").rows() == [(1, 3)]
    assert read.absent["test"].rows() == [(0, "d9", 1.0)]
    assert read.absent["train"].is_empty()
    assert "counts as one that a model does not find" in read.rejects.frame()["detail"][0]
    assert read.known.select("query", "passage").rows() == [(1, 2)]
    assert read.rejects.frame().select("key", "reason").rows() == [("qrels/test.tsv:3", "unknown_document")]
    assert read.corpus


def test_ids_that_come_again_are_told_apart_by_their_texts(tmp_path: Path) -> None:
    write_beir(tmp_path, {"a": "one", "b": "two"}, {"q": "query"}, train="q a 1", known="")
    with (tmp_path / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "a", "text": "one"}\n{"_id": "b", "text": "dos"}\n{"_id": "c", "text": " "}\n')
    read = _read(tmp_path, train="train")
    assert read.passages["id"].to_list() == ["a", "b"]
    assert read.rejects.frame().select("key", "reason").rows() == [
        ("corpus.jsonl:5", "empty_text"),
        ("corpus.jsonl:3", "duplicate_passage"),
        ("corpus.jsonl:4", "id_conflict"),
    ]


def test_a_split_that_is_not_there_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    write_beir(tmp_path, {"a": "one"}, {"q": "query"}, train="q a 1")
    write_lines(tmp_path / "corpus.jsonl", "{")
    with pytest.raises(IngestError, match="known"):
        _read(tmp_path, train="train")
