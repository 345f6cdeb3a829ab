"""Judgements and runs: which column holds what."""

import csv
from pathlib import Path

import pytest

from tasks.data.layouts.fields import FieldNames
from tasks.data.reading import qrels
from tasks.data.reading.records import Given, Judgement
from tasks.lines import Problem
from tests.tasks.data.reading.made import file_of, keys_of, read_qrels


@pytest.mark.parametrize("header", ["query-id\tcorpus-id\tscore\n", "query-id corpus-id score\n", ""])
def test_qrels_are_read_with_and_without_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(f"{header}q1\td 1\t2\nq1\td2\t1.0\n", encoding="utf-8")
    first = 2 if header else 1
    assert read_qrels(path) == [
        Judgement(f"train.tsv:{first}", "q1", "d 1", 2),
        Judgement(f"train.tsv:{first + 1}", "q1", "d2", 1),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q1\td1", "wrong_type"),
        ("q1\td1\thigh", "wrong_type"),
        ("q1\td1\t0.5", "wrong_type"),
        ("q1\td1\tinf", "wrong_type"),
        ("q1\td1\t99999999999", "wrong_type"),
        ("\td1\t1", "no_id"),
    ],
)
def test_a_line_of_qrels_that_cannot_be_used_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(f"query-id\tcorpus-id\tscore\n{line}\nq1\td1\t1\n", encoding="utf-8")
    problem, kept = read_qrels(path)
    assert isinstance(problem, Problem)
    assert (problem.key.rpartition("/")[2], problem.reason) == ("train.tsv:2", reason)
    assert isinstance(kept, Judgement)


@pytest.mark.parametrize(
    ("line", "kept"), [(f"q\td\t{2**31 - 1}", True), (f"q\td\t{2**31}", False), ("q d 1", True), ("q d 1.5", False)]
)
def test_a_relevance_is_a_whole_number_that_a_table_can_hold(line: str, kept: bool, tmp_path: Path) -> None:
    (item,) = read_qrels(file_of(tmp_path, line, name="train.tsv"))
    assert isinstance(item, Judgement) is kept


def test_only_the_first_line_of_qrels_may_be_a_header(tmp_path: Path) -> None:
    header = "query-id\tcorpus-id\tscore"
    items = list(read_qrels(file_of(tmp_path, header, "q\td\t1", header, name="train.tsv")))
    assert [type(item) for item in items] == [Judgement, Problem]


@pytest.mark.parametrize(
    "lines",
    [
        ["query-id\tcorpus-id\tscore\tsource", "q1\td1\t2\thuman"],
        ["score\tcorpus-id\tquery-id", "2\td1\tq1"],
        ["query_id,doc_id,relevance", "q1,d1,2.0"],
        ["qid docid grade", "q1 d1 2"],
        ["\ufeffquery-id\tcorpus-id\tscore", "q1\td1\t2"],
        ["q1 0 d1 2"],
        ["q1\tQ0\td1\t2"],
        ["q1\td1\t2\thuman"],
        ["q1,d1,2"],
        ['"q1"\t"d1"\t"2"'],
        ["query-id,corpus-id,score", '"q1","d1",2'],
    ],
)
def test_columns_are_found_by_the_header_or_by_their_number(tmp_path: Path, lines: list[str]) -> None:
    path = file_of(tmp_path, *lines, name="train.tsv")
    assert read_qrels(path) == [Judgement(f"train.tsv:{len(lines)}", "q1", "d1", 2)]


def test_a_header_without_grades_gives_each_pair_the_grade_1(tmp_path: Path) -> None:
    path = file_of(tmp_path, "qid\tpid", "1\t7", name="train.tsv")
    assert read_qrels(path) == [Judgement("train.tsv:2", "1", "7", 1)]


@pytest.mark.parametrize("name", ['"Heroes"_(song)', '"Heroes"', "a,b", 'say "x"', "d 1", "Ünï"])
@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_ids_with_quotation_marks_are_those_that_python_wrote(tmp_path: Path, name: str, delimiter: str) -> None:
    path = tmp_path / "train.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
        writer.writerows([("query-id", "corpus-id", "score"), (name, name, 1)])
    assert read_qrels(path) == [Judgement("train.tsv:2", name, name, 1)]


def test_an_unquoted_id_that_begins_with_a_quotation_mark_stays(tmp_path: Path) -> None:
    path = file_of(tmp_path, 'q1\t"Heroes"_(song)\t1', name="train.tsv")
    assert read_qrels(path) == [Judgement("train.tsv:1", "q1", '"Heroes"_(song)', 1)]


def test_the_settings_name_columns_that_are_called_otherwise(tmp_path: Path) -> None:
    path = file_of(tmp_path, "frage,absatz,note", "q1,d1,3", name="train.csv")
    names = FieldNames(query_id="frage", doc_id="absatz", relevance="note")
    assert list(qrels.read_qrels(path, "train.csv", names=names)) == [Judgement("train.csv:2", "q1", "d1", 3)]


def test_objects_are_judgements_by_the_names_of_their_keys() -> None:
    objects = iter([("a#1", {"corpus-id": "d1", "query-id": 1, "score": 1.0}), ("a#2", {"x": 1, "y": 2})])
    kept, problem = qrels.judgements_of(objects)
    assert kept == Judgement("a#1", "1", "d1", 1)
    assert isinstance(problem, Problem)
    assert problem.detail.startswith("it has x, y, expected query-id")


def test_a_run_gives_candidates_with_rank_and_score(tmp_path: Path) -> None:
    path = file_of(tmp_path, "q1 Q0 d1 1 9.5 bm25", "q1\tQ0\td2\t2\t-1", "q1 d1 1", "q1 Q0 d1 first 1 x", name="a.run")
    kept, tagless, short, unranked = qrels.read_run(path, "a.run")
    assert kept == Given("a.run:1", "q1", "d1", 1, 9.5)
    assert tagless == Given("a.run:2", "q1", "d2", 2, -1.0)
    assert keys_of([short, unranked]) == [("a.run:3", "wrong_type"), ("a.run:4", "wrong_type")]
