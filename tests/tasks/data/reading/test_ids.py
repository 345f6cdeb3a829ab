"""Ids that only number the rows of a file or the passages of a row."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as some

from tasks.data.reading import ids
from tasks.data.reading.source import RowSource, open_source
from tasks.texts import hash_passage
from tests.tasks.data.reading.made import file_of


def _row(query: str, *passages: str, text: str | None = None) -> dict[str, Any]:
    """A row; `"1=water"` is a passage with id and text, the first one a positive."""
    pairs = [passage.split("=") for passage in passages]
    objects = [{"docid": doc_id, "title": "", "text": text} for doc_id, text in pairs]
    return {
        "query_id": query,
        "query": text or f"about {query}",
        "positive_passages": objects[:1],
        "negative_passages": objects[1:],
    }


def _read(folder: Path) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Return the ids of queries and passages, and the problems."""
    found = open_source(folder)
    assert isinstance(found, RowSource)
    batches = list(found.batches())
    rows, passages = pl.concat([one.rows for one in batches]), pl.concat([one.passages for one in batches])
    problems = [(item.key, item.reason) for one in batches for item in one.problems]
    return rows["query_id"].to_list(), passages["doc_id"].to_list(), problems


def test_passages_numbered_within_their_rows_are_named_by_their_texts_and_told_once(tmp_path: Path) -> None:
    file_of(tmp_path, _row("q1", "0=water", "1=bus"), _row("q2", "0=tram", "1=egg"), _row("q3", "0=pan", "1=bus"))
    queries, passages, problems = _read(tmp_path)
    assert queries == ["q1", "q2", "q3"]
    assert passages == [hash_passage("", text) for text in ("water", "bus", "tram", "egg", "pan", "bus")]
    assert problems == [("a.jsonl", "local_ids")]


def test_numbers_that_name_the_same_text_everywhere_stay(tmp_path: Path) -> None:
    file_of(tmp_path, _row("q1", "1=water", "2=bus"), _row("q2", "2=bus", "1=water"))
    assert _read(tmp_path) == (["q1", "q2"], ["1", "2", "2", "1"], [])


def test_an_id_with_two_texts_among_ids_that_are_no_row_numbers_is_left_to_ingest(tmp_path: Path) -> None:
    file_of(tmp_path, _row("q1", "17=water", "2=bus"), _row("q2", "2=tram", "17=water"))
    assert _read(tmp_path) == (["q1", "q2"], ["17", "2", "2", "17"], [])
    file_of(tmp_path, _row("q1", "d1=water", "d2=bus"), _row("q2", "d1=tram", "d2=egg"))
    assert _read(tmp_path)[1] == ["d1", "d2", "d1", "d2"]


def test_query_ids_that_begin_anew_in_each_file_keep_all_rows(tmp_path: Path) -> None:
    file_of(tmp_path, _row("1", "x=water", text="first?"), _row("2", "y=bus", text="second?"), name="a.jsonl")
    file_of(tmp_path, _row("1", "z=tram", text="third?"), _row("2", "y=bus", text="second?"), name="b.jsonl")
    queries, passages, problems = _read(tmp_path)
    assert queries == ["1", "2", "b.jsonl/1", "2"]
    assert passages == ["x", "y", "z", "y"]
    assert problems == [("b.jsonl", "ids_reused")]


def test_the_same_query_id_in_two_datasets_is_not_reused(tmp_path: Path) -> None:
    file_of(tmp_path, _row("1", "x=water", text="first?") | {"subset": "nq"}, name="a.jsonl")
    file_of(tmp_path, _row("1", "x=tram", text="third?") | {"subset": "hotpot"}, name="b.jsonl")
    assert _read(tmp_path) == (["1", "1"], ["x", "x"], [])


def test_passage_ids_that_begin_anew_in_each_file_are_named_by_their_texts(tmp_path: Path) -> None:
    file_of(tmp_path, _row("q1", "p1=water", "p2=bus"), name="a.jsonl")
    file_of(tmp_path, _row("q2", "p1=tram", "p2=egg"), name="b.jsonl")
    queries, passages, problems = _read(tmp_path)
    assert queries == ["q1", "q2"]
    assert passages == ["p1", "p2", hash_passage("", "tram"), hash_passage("", "egg")]
    assert problems == [("b.jsonl", "local_ids")]


def test_one_changed_text_among_shared_passages_leaves_their_ids(tmp_path: Path) -> None:
    file_of(tmp_path, _row("q1", "p1=water", "p2=bus", "p3=egg"), name="a.jsonl")
    file_of(tmp_path, _row("q2", "p1=tram", "p2=bus", "p3=egg"), name="b.jsonl")
    assert _read(tmp_path) == (["q1", "q2"], ["p1", "p2", "p3", "p1", "p2", "p3"], [])


@settings(deadline=None, max_examples=100)
@given(some.lists(some.lists(some.tuples(some.integers(0, 30), some.integers(0, 2)), max_size=12), max_size=9))
def test_ids_are_compared_with_the_first_texts_of_all_earlier_files(files: list[list[tuple[int, int]]]) -> None:
    seen = ids._Seen()
    first: dict[int, int] = {}
    for rows in files:
        names, texts = (np.array([row[n] for row in rows], np.uint64) for n in range(2))
        same, other = seen.compare(names, texts)
        assert same.tolist() == [first.get(name) == text for name, text in rows]
        assert other.tolist() == [first.get(name, text) != text for name, text in rows]
        seen.note(names, texts)
        seen.end_file()
        first = dict(reversed(rows)) | first


def test_many_files_leave_few_runs() -> None:
    seen = ids._Seen()
    for number in range(300):
        names = np.arange(number * 7, number * 7 + 10, dtype=np.uint64)  # three of them came before
        seen.note(names, names)
        seen.end_file()
    sizes = [run.size for run, _ in seen._runs]
    assert sum(sizes) == 300 * 7 + 3
    assert all(longer >= 2 * shorter for longer, shorter in pairwise(sizes))
