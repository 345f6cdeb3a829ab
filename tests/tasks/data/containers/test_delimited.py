"""CSV and TSV below a header: quotation marks, line breaks within fields, and rows that do not fit."""

import csv
import io
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.data.containers.delimited import read_delimited
from tasks.data.containers.kinds import Kind, SourceFile
from tasks.lines import Problem, ReadLimits


def read(tmp_path: Path, text: str, kind: Kind = "csv", **limits: int) -> list[Any]:
    path = tmp_path / "a"
    path.write_bytes(text.encode())
    return list(read_delimited(SourceFile(path, "a", kind), ReadLimits(**limits)))


FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=8)


@given(rows=st.lists(st.tuples(FIELD, FIELD), max_size=4), delimiter=st.sampled_from(",;"))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_writer_of_csv_writes_comes_back(tmp_path: Path, rows: list[tuple[str, str]], delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([("query", "answer"), *rows])
    items = read(tmp_path, text.getvalue())
    assert [item[1] for item in items] == [{"query": query, "answer": answer} for query, answer in rows]


def test_a_record_has_the_line_in_which_it_begins(tmp_path: Path) -> None:
    items = read(tmp_path, 'id,text\r\n1,"a, ""b""\r\n\r\nc"\r\n\r\n2,d\r\n')
    assert items == [("a:2", {"id": "1", "text": 'a, "b"\n\nc'}), ("a:6", {"id": "2", "text": "d"})]


def test_a_row_that_does_not_fit_costs_itself(tmp_path: Path) -> None:
    wrong, broken, good, open_ = read(tmp_path, 'id,text\n1,a,b\n2,"a"b"c"\n3,d\n4,"x\n5,y\n')
    assert wrong == Problem("a:2", "wrong_columns", "3 columns, expected 2 as in the header (id, text)")
    assert (broken.key, broken.reason) == ("a:3", "broken_row")
    assert good == ("a:4", {"id": "3", "text": "d"})
    assert (open_.key, open_.reason) == ("a:5", "broken_file")


def test_a_quotation_mark_that_is_never_closed_takes_no_more_than_a_line_may(tmp_path: Path) -> None:
    text = 'id,text\n1,"a\n' + "2,b\n" * 10 + '3,c"\n4,d\n'
    problem, *rows = read(tmp_path, text, line_bytes=20)
    assert (problem.key, problem.reason) == ("a:2", "row_too_long")
    assert len(rows) > 4


def test_a_tsv_record_is_a_line_and_marks_count_only_around_a_field(tmp_path: Path) -> None:
    text = 'id\ttext\n1\t"a ""b"""\n2\t"a" and "b"\n3\t5" wide\n'
    assert [item[1]["text"] for item in read(tmp_path, text, "tsv")] == ['a "b"', '"a" and "b"', '5" wide']


def test_a_column_that_comes_twice_is_said(tmp_path: Path) -> None:
    problem, row = read(tmp_path, "a,b,a\n1,2,3\n")
    assert (problem.reason, row[1]) == ("bad_header", {"a": "3", "b": "2"})


def test_problems_of_lines_are_passed_on(tmp_path: Path) -> None:
    problem, row = read(tmp_path, "a,b\n" + "x" * 50 + ",1\n1,2\n", line_bytes=20)
    assert (problem.reason, row) == ("line_too_long", ("a:3", {"a": "1", "b": "2"}))


def test_a_header_that_comes_again_is_no_row(tmp_path: Path) -> None:
    first, again, second = read(tmp_path, "id,text\n1,a\nid, text\n2,b\n")
    assert (first[1]["id"], second[1]["id"]) == ("1", "2")
    assert (again.key, again.reason) == ("a:3", "header_again")
