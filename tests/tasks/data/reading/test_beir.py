"""A corpus with queries: passages, queries, and rows that name their passages by id."""

import gzip
from pathlib import Path

from tasks.data.reading import beir, objects
from tasks.data.reading.records import Passage, Query
from tasks.lines import Problem
from tasks.texts import hash_text
from tests.tasks.data.reading.made import (
    file_of,
    keys_of,
    read_corpus,
    read_queries,
)


def test_bytes_that_are_no_utf8_cost_their_line_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"_id": "q1", "text": "caf\xe9"}\n{"_id": "q2", "text": "caf\xc3\xa9"}\n')
    assert read_queries(path) == [
        Problem("a.jsonl:1", "not_utf8", "byte 0xe9 at position 27 is not UTF-8"),
        Query("a.jsonl:2", "q2", "café"),
    ]


def test_a_byte_order_mark_windows_line_ends_and_a_missing_last_one_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"_id": "q1", "text": "a"}\r\n{"_id": "q2", "text": "b"}')
    assert read_queries(path) == [Query("a.jsonl:1", "q1", "a"), Query("a.jsonl:2", "q2", "b")]


def test_control_characters_become_spaces_and_everything_else_stays(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"_id": " d\t1\x1f", "title": "a\x00b", "text": " x\x1fy\n\tz\u2028\u00a0é\ud800. "})
    assert read_corpus(path) == [Passage("a.jsonl:1", "d 1", "a b", "x y\n\tz\u2028\u00a0é .")]


def test_gzip_is_told_by_its_content_and_a_broken_one_keeps_what_could_be_unpacked(tmp_path: Path) -> None:
    lines = "".join(f'{{"_id": "q{number}", "text": "query {hash_text(str(number))}"}}\n' for number in range(2_000))
    packed = gzip.compress(lines.encode(), mtime=0)
    (tmp_path / "plain.jsonl").write_bytes(packed)
    (tmp_path / "half.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    assert len(list(read_queries(tmp_path / "plain.jsonl"))) == 2_000

    *whole, last = read_queries(tmp_path / "half.jsonl.gz")
    assert whole
    assert all(isinstance(item, Query) for item in whole)
    assert isinstance(last, Problem)
    assert (last.key, last.reason) == (f"half.jsonl.gz:{len(whole) + 1}", "broken_gzip")


def test_an_empty_file_is_a_problem_of_its_own(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    assert read_queries(path) == [Problem("a.jsonl:1", "empty_file", "the file holds no line")]


def test_a_corpus_is_read_under_the_names_that_search_engines_use(tmp_path: Path) -> None:
    lines = [{"_id": "d1", "title": "T", "contents": "x"}, {"id": 2, "body": "y"}, {"docid": 3.0, "text": "z"}]
    assert read_corpus(file_of(tmp_path, *lines)) == [
        Passage("a.jsonl:1", "d1", "T", "x"),
        Passage("a.jsonl:2", "2", "", "y"),
        Passage("a.jsonl:3", "3", "", "z"),
    ]


def test_a_passage_of_a_corpus_needs_an_id_and_a_text_that_is_read(tmp_path: Path) -> None:
    lines = [{"text": "x"}, {"_id": "", "text": "x"}, {"_id": "d1", "title": "T", "abstract": "x"}]
    assert keys_of(read_corpus(file_of(tmp_path, *lines))) == [
        ("a.jsonl:1", "no_id"),
        ("a.jsonl:2", "no_id"),
        ("a.jsonl:3", "no_text"),
        ("a.jsonl", "unread_field"),
    ]


def test_queries_are_read_under_several_names_and_what_else_they_hold_is_counted(tmp_path: Path) -> None:
    lines = [{"_id": "q1", "text": "a", "metadata": {}}, {"qid": 2, "query": "b", "lang": "de"}]
    assert read_queries(file_of(tmp_path, *lines)) == [
        Query("a.jsonl:1", "q1", "a"),
        Query("a.jsonl:2", "2", "b"),
        Problem("a.jsonl", "unread_field", "lang is not read; it has content 1 time(s). See ingest.fields"),
    ]


def test_a_row_that_names_no_positive_is_rejected(tmp_path: Path) -> None:
    lines = [{"query_id": "q1", "query": "a", "positive_document_ids": []}, {"query_id": "q1", "query": "a"}]
    items = list(beir.read_references(objects.read_objects(file_of(tmp_path, *lines)), "a.jsonl"))
    assert keys_of(items) == [("a.jsonl:1", "no_positive"), ("a.jsonl:2", "no_positive")]
