"""Opening a source: what its folder holds, and in which layout."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tasks.data.reading import source
from tasks.data.reading.records import Batch, Given, IngestError, Judgement, Passage, Query
from tasks.data.reading.source import CorpusSource, RowSource, batches_of_file, files_of_rows, open_source
from tasks.lines import Problem
from tests.tasks.data.reading.made import FLAG, TEVATRON, file_of, keys_of
from tests.tasks.records import mutable_records


def _rows(folder: Path) -> RowSource:
    found = open_source(folder)
    assert isinstance(found, RowSource)
    return found


def _corpus(folder: Path) -> CorpusSource:
    found = open_source(folder)
    assert isinstance(found, CorpusSource)
    return found


def test_the_format_is_told_by_the_first_row_that_shows_one(tmp_path: Path) -> None:
    for name, row in (("tevatron", TEVATRON), ("flagembedding", FLAG)):
        file_of(tmp_path / name, "not json", {"note": "nothing known"}, row)
        assert open_source(tmp_path / name).form == name


def test_a_folder_with_corpus_and_queries_is_beir_packed_or_not(tmp_path: Path) -> None:
    file_of(tmp_path, name="queries.jsonl")
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b""))
    assert open_source(tmp_path).form == "beir"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], r"in 1 file\(s\); a.jsonl:1: empty_file"),
        (["nonsense"], "a.jsonl:1: broken_json"),
        ([{"first": "a", "second": "b"}], "a.jsonl:1 has first, second. Expected"),
    ],
)
def test_an_unknown_format_is_refused_with_what_came_and_what_was_expected(
    tmp_path: Path, lines: list[object], says: str
) -> None:
    file_of(tmp_path, *lines)
    with pytest.raises(IngestError, match=says):
        open_source(tmp_path)


def test_rows_come_from_all_files_in_name_order_and_what_is_passed_over_is_named(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", "more/c.json", ".hidden.jsonl"):
        file_of(tmp_path, TEVATRON, name=name)
    (tmp_path / "d.xlsx").write_bytes(b"PK\x03\x04....xl/workbook.xml")
    found = _rows(tmp_path)
    assert [file.name for file in found.files] == ["a.jsonl.gz", "b.jsonl", "more/c.json"]
    said = [(".hidden.jsonl", "metadata"), ("d.xlsx", "not_read")]
    assert keys_of(found.passed_over) == said
    first, *others = found.batches()
    assert (keys_of(first.problems), [batch.rows["where"].to_list() for batch in others]) == (
        said,
        [["a.jsonl.gz:1"], ["b.jsonl:1"], ["more/c.json:1"]],
    )


def test_only_the_files_of_the_training_split_are_read(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        file_of(tmp_path, TEVATRON, name=name)
    found = _rows(tmp_path)
    assert [file.name for file in found.files] == ["train.jsonl"]
    assert found.passed_over == [Problem("test.jsonl", "other_split", "its name says split test; only train is read")]


def test_a_missing_split_is_refused_with_the_splits_there_are(tmp_path: Path) -> None:
    file_of(tmp_path, {"_id": "d1", "text": "one"}, name="corpus.jsonl")
    file_of(tmp_path, {"_id": "q1", "text": "first?"}, name="queries.jsonl")
    file_of(tmp_path, name="qrels/dev.tsv")
    (tmp_path / "qrels/test.tsv.gz").write_bytes(gzip.compress(b"q1\td1\t1\n"))
    found = _corpus(tmp_path)
    assert list(found.judgements("test")) == [Judgement("qrels/test.tsv.gz:1", "q1", "d1", 1)]
    with pytest.raises(IngestError, match=r"qrels/train\.tsv not found; splits there are: dev, test"):
        found.judgements("train")


def test_a_corpus_without_queries_is_no_beir_folder_and_is_passed_over_beside_rows(tmp_path: Path) -> None:
    file_of(tmp_path, {"_id": "d1", "text": "one"}, name="corpus.jsonl")
    with pytest.raises(IngestError, match=r"corpus.jsonl:1 has _id, text\. Expected"):
        open_source(tmp_path)
    file_of(tmp_path, TEVATRON, name="rows.jsonl")
    found = _rows(tmp_path)
    assert (found.form, keys_of(found.passed_over)) == ("tevatron", [("corpus.jsonl", "not_read")])


def test_what_was_recognised_is_said_by_role(tmp_path: Path) -> None:
    file_of(tmp_path / "rows", {"question": "a?", "answer": "b", "neg_2": "c", "neg_1": "d"})
    assert _rows(tmp_path / "rows").recognised == {
        "query": "question",
        "positive": "answer",
        "negative": "neg_1, neg_2",
    }
    file_of(tmp_path / "beir", {"id": "d1", "contents": "one"}, name="corpus.jsonl")
    file_of(tmp_path / "beir", {"id": "q1", "text": "first?"}, name="queries.jsonl")
    assert _corpus(tmp_path / "beir").recognised == {
        "query_id": "id",
        "query": "text",
        "doc_id": "id",
        "text": "contents",
    }


def test_each_row_of_a_mixed_folder_is_read_by_its_own_layout_unless_one_is_asked_for(tmp_path: Path) -> None:
    file_of(tmp_path, TEVATRON, {"anchor": "how?", "positive": "so"}, FLAG | {"query": "why?"})
    batches = list(_rows(tmp_path).batches())
    assert [batch.rows["query"].to_list() for batch in batches] == [["what is rust?", "how?", "why?"]]
    found = open_source(tmp_path, "tevatron")
    assert isinstance(found, RowSource)
    (batch,) = found.batches()
    assert batch.rows["query"].to_list() == ["what is rust?"]
    assert batch.problems == [
        Problem(
            "a.jsonl:2", "other_layout", "the row is sentence-transformers, the source is tevatron (ingest.format)"
        ),
        Problem("a.jsonl:3", "other_layout", "the row is flagembedding, the source is tevatron (ingest.format)"),
    ]


def test_the_folders_of_the_hub_are_a_corpus_with_its_splits(tmp_path: Path) -> None:
    file_of(tmp_path, {"_id": "d1", "title": "", "text": "one"}, name="corpus/corpus-00000-of-00001.jsonl")
    file_of(tmp_path, {"_id": "q1", "text": "first?"}, name="queries/queries-00000-of-00001.jsonl")
    judged = {"query-id": "q1", "corpus-id": "d1", "score": 2.0}
    file_of(tmp_path, judged, name="default/test-00000-of-00001.jsonl")
    found = _corpus(tmp_path)
    where = "corpus/corpus-00000-of-00001.jsonl:1"
    assert list(found.documents()) == [Passage(where, "d1", "", "one")]
    assert list(found.judgements("test")) == [Judgement("default/test-00000-of-00001.jsonl:1", "q1", "d1", 2)]


def test_rows_with_ids_and_a_corpus_give_queries_judgements_and_negatives(tmp_path: Path) -> None:
    file_of(tmp_path, {"docid": 1, "text": "one"}, {"docid": 2, "text": "two"}, name="corpus.jsonl")
    row = {
        "query_id": "q1",
        "query_text": "first?",
        "query_image": None,
        "positive_document_ids": [1],
        "negative_document_ids": ["2", ""],
        "answer": "yes",
    }
    file_of(tmp_path, row, name="train.jsonl")
    found = _corpus(tmp_path)
    assert found.form == "tevatron-ids"
    assert [item.doc_id for item in found.documents() if isinstance(item, Passage)] == ["1", "2"]
    assert list(found.queries()) == [
        Query("train.jsonl:1", "q1", "first?"),
        Problem("train.jsonl:1", "no_id", "negative_document_ids 2: negative_document_ids is missing or empty"),
        Problem("train.jsonl", "unread_field", "answer is not read; it has content 1 time(s). See ingest.fields"),
    ]
    assert list(found.judgements("train")) == [Judgement("train.jsonl:1", "q1", "1", 1)]
    assert list(found.negatives()) == [Given("train.jsonl:1", "q1", "2", 1)]


def test_a_run_gives_candidates_and_must_be_named_where_there_are_several(tmp_path: Path) -> None:
    file_of(tmp_path, {"_id": "d1", "text": "one"}, name="corpus.jsonl")
    file_of(tmp_path, {"_id": "q1", "text": "first?"}, name="queries.jsonl")
    file_of(tmp_path, "q1 Q0 d1 1 9.5 bm25", name="runs/bm25.trec")
    assert list(_corpus(tmp_path).negatives()) == [Given("runs/bm25.trec:1", "q1", "d1", 1, 9.5)]
    file_of(tmp_path, "q1 Q0 d1 1 0.5 dense", name="runs/dense.run")
    with pytest.raises(IngestError, match=r"runs/bm25.trec, runs/dense.run. Name it in ingest.run"):
        open_source(tmp_path)
    found = open_source(tmp_path, run="dense.run")
    assert isinstance(found, CorpusSource)
    assert [item.score for item in found.negatives() if isinstance(item, Given)] == [0.5]


def test_a_parquet_file_gives_the_rows_that_its_lines_give(tmp_path: Path) -> None:
    rows = [TEVATRON | {"query_id": f"q{number}", "subset": "nq"} for number in range(5)]
    file_of(tmp_path / "lines", *rows)
    (tmp_path / "columns").mkdir()
    pl.DataFrame(rows).write_parquet(tmp_path / "columns" / "a.parquet", row_group_size=2)
    (lines,) = _rows(tmp_path / "lines").batches()
    columns = list(_rows(tmp_path / "columns").batches())
    joined = pl.concat([one.rows.drop("row", "where") for one in columns])
    assert joined.equals(lines.rows.drop("row", "where"))
    assert pl.concat([one.passages.drop("row") for one in columns]).equals(lines.passages.drop("row"))
    wheres = [where for one in columns for where in one.rows["where"]]
    assert wheres == [f"a.parquet#{number}" for number in range(1, 6)]


def test_a_parquet_file_of_another_layout_is_read_row_by_row(tmp_path: Path) -> None:
    pl.DataFrame([FLAG, FLAG | {"query": "b"}]).write_parquet(tmp_path / "a.parquet")
    (batch,) = _rows(tmp_path).batches()
    assert batch.rows["query"].to_list() == ["what is rust?", "b"]
    assert batch.passages["score"].to_list() == [None, 0.5, None] * 2


def test_the_error_of_an_unknown_format_does_not_repeat_a_whole_row(tmp_path: Path) -> None:
    file_of(tmp_path, {"k" * 100_000: 1})
    with pytest.raises(IngestError) as error:
        open_source(tmp_path)
    assert len(str(error.value)) < 1_000


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(source) == set()


@pytest.mark.parametrize(
    ("names", "form", "rows"),
    [
        (["b/a.jsonl", "a.csv", "b.jsonl"], "auto", ["a.csv", "b/a.jsonl", "b.jsonl"]),
        (["train-0.jsonl", "test.jsonl", "more.jsonl"], "tevatron", ["more.jsonl", "train-0.jsonl"]),
        (["dev.jsonl", "test.jsonl"], "auto", ["dev.jsonl", "test.jsonl"]),
        (["runs/a.jsonl", "b.jsonl"], "auto", ["b.jsonl"]),
        (["runs/a.jsonl"], "auto", ["runs/a.jsonl"]),
        (["corpus.jsonl", "queries.jsonl", "rows.jsonl"], "auto", []),
        (["rows.jsonl"], "beir", []),
    ],
)
def test_names_tell_which_files_are_read_as_rows_and_in_which_order(
    tmp_path: Path, names: list[str], form: str, rows: list[str]
) -> None:
    assert files_of_rows(names, form, "train") == rows
    if rows:
        for name in names:
            file_of(tmp_path, TEVATRON, name=name)
        opened = open_source(tmp_path)
        assert isinstance(opened, RowSource)
        assert [file.name for file in opened.files] == rows


def test_batches_that_were_read_apart_take_the_place_of_a_file(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        file_of(tmp_path, TEVATRON | {"query_id": name}, name=name)
    opened = open_source(tmp_path)
    assert isinstance(opened, RowSource)
    (other,) = batches_of_file(opened.files[1], opened.options)
    asked: list[str] = []

    def apart(name: str) -> Iterator[Batch] | None:
        asked.append(name)
        return iter([other]) if name == "a.jsonl" else None

    ids = [batch.rows["query_id"].to_list() for batch in opened.batches(apart)]
    assert (ids, asked) == ([["b.jsonl"], ["b.jsonl"]], ["a.jsonl", "b.jsonl"])
