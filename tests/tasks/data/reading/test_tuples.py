"""Pairs, triplets, n-tuples, labelled pairs and labelled lists of sentence-transformers."""

from pathlib import Path

import pytest

from tasks.data.reading.records import Row
from tasks.data.reading.tuples import bare_scores, label_of
from tasks.lines import Problem, UnusableError
from tasks.texts import hash_text
from tests.tasks.data.reading.made import file_of, keys_of, read, read_line


def _texts(row: Row) -> tuple[list[str], list[str]]:
    return [item.text for item in row.positives], [item.text for item in row.negatives]


def _scores(row: Row) -> tuple[list[float | None], list[float | None]]:
    return [item.score for item in row.positives], [item.score for item in row.negatives]


def test_rows_that_repeat_their_query_are_one_row_with_each_passage_once(tmp_path: Path) -> None:
    lines = [
        {"anchor": "a", "positive": "p1", "negative": "n1"},
        {"anchor": "a", "positive": "p1", "negative": "n2"},
        {"anchor": "a", "positive": "p2", "negative_1": "n2", "negative_2": "n3"},
    ]
    row = read_line(tmp_path, *lines)
    assert (row.query_id, _texts(row)) == (hash_text("a"), (["p1", "p2"], ["n1", "n2", "n3"]))


def test_rows_with_ids_or_other_queries_between_them_stay_apart(tmp_path: Path) -> None:
    lines = [{"anchor": "a", "positive": "p1"}, {"anchor": "b", "positive": "p"}, {"anchor": "a", "positive": "p2"}]
    named = [{"id": number, "anchor": "a", "positive": "p"} for number in range(2)]
    rows = read(file_of(tmp_path, *lines, *named))
    assert [row.query_id for row in rows if isinstance(row, Row)] == [*map(hash_text, "aba"), "0", "1"]


def test_a_labelled_pair_is_a_positive_or_a_negative_of_its_query(tmp_path: Path) -> None:
    pairs = [{"sentence1": "a", "sentence2": text, "label": label} for text, label in (("p", 1), ("n", 0), ("m", 0.0))]
    assert _texts(read_line(tmp_path, *pairs)) == (["p"], ["n", "m"])
    assert _texts(read_line(tmp_path, *pairs[1:])) == ([], ["n", "m"])


def test_scores_of_pairs_are_refused_until_a_threshold_is_given(tmp_path: Path) -> None:
    pairs = [{"sentence1": "a", "sentence2": text, "score": score} for text, score in (("p", 0.9), ("n", 0.2))]
    path = file_of(tmp_path, *pairs)
    items = read(path)
    assert keys_of(items) == [("a.jsonl:1", "unclear_label"), ("a.jsonl:2", "unclear_label")]
    assert isinstance(items[0], Problem)
    assert "score is 0.9, expected 0 or 1. Set ingest.positive_from" in items[0].detail
    row = read_line(tmp_path, *pairs, positive_from=0.5)
    assert (_texts(row), _scores(row)) == ((["p"], ["n"]), ([0.9], [0.2]))
    plain, unread = read(file_of(tmp_path, pairs[0]), labels="none")
    assert isinstance(plain, Row)
    assert (_texts(plain), keys_of([unread])) == ((["p"], []), [("a.jsonl", "unread_field")])


@pytest.mark.parametrize(
    "line",
    [
        {"query": "a", "docs": ["p", "n"], "labels": [1, 0]},
        {"anchor": "a", "positive": ["p", "n"], "labels": [1, 0]},
        {"query": "a", "docs": ["p", "n"], "labels": ["1", "0"]},
        {"query": "a", "docs": [{"text": "p", "label": 1}, {"text": "n", "label": 0}]},
        {"query": "a", "passages": {"is_selected": [True, False], "passage_text": ["p", "n"]}},
    ],
)
def test_the_labels_of_a_list_stand_beside_it_or_in_its_passages(tmp_path: Path, line: dict[str, object]) -> None:
    assert _texts(read_line(tmp_path, line)) == (["p"], ["n"])


def test_scores_of_a_list_are_kept_where_a_threshold_is_given(tmp_path: Path) -> None:
    row = read_line(tmp_path, {"query": "a", "docs": ["p", "n"], "scores": [0.8, 0.1]}, positive_from=0.5)
    assert (_texts(row), _scores(row)) == ((["p"], ["n"]), ([0.8], [0.1]))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"query": "a", "docs": ["p", "n"], "labels": [1]}, "bad_labels"),
        ({"query": "a", "docs": ["p", "n"]}, "bad_labels"),
        ({"query": "a", "docs": [], "labels": []}, "no_positive"),
        ({"query": "a", "docs": ["p"], "labels": [2]}, "unclear_label"),
        ({"query": "a", "docs": ["p"], "labels": ["yes"]}, "unclear_label"),
    ],
)
def test_labels_that_do_not_fit_cost_the_row(tmp_path: Path, line: dict[str, object], reason: str) -> None:
    assert keys_of(read(file_of(tmp_path, line))) == [("a.jsonl:1", reason)]


def test_the_scores_of_an_n_tuple_are_those_of_its_passages(tmp_path: Path) -> None:
    line = {"query": "a", "positive": "p", "negative_1": "m", "negative_2": "n", "scores": [0.9, 0.4, 0.3]}
    row = read_line(tmp_path, line)
    assert (_texts(row), _scores(row)) == ((["p"], ["m", "n"]), ([0.9], [0.4, 0.3]))
    margin = read(file_of(tmp_path, {"query": "a", "positive": "p", "negative": "n", "label": 3.5}))
    assert keys_of(margin) == [("a.jsonl", "unread_field")]


def test_a_column_that_a_row_leaves_empty_is_no_passage(tmp_path: Path) -> None:
    row = read_line(tmp_path, {"query": "a", "positive": "p", "negative_1": "n", "negative_2": None})
    assert (_texts(row), row.problems) == ((["p"], ["n"]), [])


def test_a_label_is_true_a_number_or_a_number_in_quotes() -> None:
    assert label_of(True, "label", None) == (True, None)
    assert label_of("0", "label", None) == (False, None)
    assert label_of(2, "label", 2) == (True, None)
    with pytest.raises(UnusableError, match="label is None, expected a number"):
        label_of(None, "label", None)


def test_bare_scores_fit_all_passages_or_are_none() -> None:
    assert bare_scores([1, 2, 3], 1, 2) == ([1.0], [2.0, 3.0])
    assert bare_scores([1, None, 3], 1, 2) is None
    assert bare_scores([1], 1, 2) is bare_scores(0.5, 1, 0) is None
