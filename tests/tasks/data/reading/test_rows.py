"""Training rows: what a row holds becomes a record, what it does not becomes a problem."""

from pathlib import Path

import pytest

from tasks.data.layouts.fields import FieldNames, RowFormat
from tasks.data.reading.records import Passage, Row
from tasks.data.reading.rows import RowOptions, read_rows
from tasks.lines import Problem, ReadLimits
from tasks.texts import hash_passage, hash_text
from tests.tasks.data.reading.made import FLAG, TEVATRON, file_of, keys_of, read, read_line


def test_a_tevatron_row_keeps_its_ids_titles_and_order(tmp_path: Path) -> None:
    [row] = read(file_of(tmp_path, TEVATRON | {"subset": "nq"}), "tevatron")
    assert row == Row(
        "a.jsonl:1",
        "nq",
        "q1",
        "what is rust?",
        [Passage("a.jsonl:1", "d1", "Rust", "An oxide.")],
        [Passage("a.jsonl:1", "d2", "", "A language.")],
        [],
    )


def test_a_flagembedding_row_takes_its_ids_from_its_texts_and_keeps_the_scores(tmp_path: Path) -> None:
    [row] = read(file_of(tmp_path, FLAG | {"prompt": "p", "type": "normal"}), "flagembedding")
    assert isinstance(row, Row)
    assert row.query_id == hash_text("what is rust?")
    assert [item.doc_id for item in row.positives] == [hash_passage("", "An oxide.")]
    assert [(item.text, item.score) for item in row.negatives] == [
        ("A language.", 0.5),
        ("A game.", None),
    ]


@pytest.mark.parametrize(
    ("scores", "detail"),
    [
        ([0.5], "neg_scores holds 1 values for 2 negatives; left out"),
        ("high", "neg_scores holds a string for 2 negatives; left out"),
        ([0.5, float("nan")], "neg_scores holds what is no finite number; left out"),
        ([True, 1], "neg_scores holds what is no finite number; left out"),
    ],
)
def test_scores_that_do_not_fit_the_negatives_are_left_out_and_the_row_stays(
    tmp_path: Path, scores: object, detail: str
) -> None:
    [row] = read(file_of(tmp_path, FLAG | {"neg_scores": scores}), "flagembedding")
    assert isinstance(row, Row)
    assert [item.score for item in row.negatives] == [None, None]
    assert row.problems == [Problem("a.jsonl:1", "bad_scores", detail)]


def test_scores_stay_with_their_negatives_when_one_of_these_is_unusable(tmp_path: Path) -> None:
    row_in = FLAG | {"neg": ["A language.", " ", "A game."], "neg_scores": [1, 2, 3]}
    [row] = read(file_of(tmp_path, row_in), "flagembedding")
    assert isinstance(row, Row)
    assert [item.score for item in row.negatives] == [1.0, 3.0]
    assert row.problems == [Problem("a.jsonl:1", "empty_text", "neg 2: text is empty")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"query": None}, "no_query"),
        ({"query": " \n"}, "empty_text"),
        ({"query": 7}, "wrong_type"),
        ({"query_id": 1.5}, "wrong_type"),
        ({"query_id": True}, "wrong_type"),
        ({"subset": []}, "wrong_type"),
        ({"positive_passages": None}, "no_positive"),
        ({"positive_passages": []}, "no_positive"),
        ({"positive_passages": "d1"}, "no_positive"),
        ({"negative_passages": 3}, "wrong_type"),
        ({"positive_passages": [{"docid": "d1", "title": " ", "text": ""}]}, "no_positive"),
    ],
)
def test_a_row_that_cannot_be_used_is_rejected_with_its_reason(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    items = list(read(file_of(tmp_path, TEVATRON | change, TEVATRON), "tevatron"))
    assert keys_of(items) == [("a.jsonl:1", reason)]
    assert isinstance(items[1], Row)


@pytest.mark.parametrize(
    ("passage", "problem"),
    [
        ("d3", ("wrong_type", "negative_passages 1: the passage is a string, expected an object")),
        (
            {"docid": [], "text": "x"},
            ("wrong_type", "negative_passages 1: docid is a list, expected a string or a whole number"),
        ),
        ({"docid": "d3", "text": ""}, ("empty_text", "negative_passages 1: passage d3 has neither title nor text")),
        ({"docid": "d3", "text": 5}, ("wrong_type", "negative_passages 1: text is a number, expected a string")),
    ],
)
def test_an_unusable_passage_does_not_cost_the_row(tmp_path: Path, passage: object, problem: tuple[str, str]) -> None:
    negatives = [passage, *TEVATRON["negative_passages"]]
    [row] = read(file_of(tmp_path, TEVATRON | {"negative_passages": negatives}), "tevatron")
    assert isinstance(row, Row)
    assert [item.doc_id for item in row.negatives] == ["d2"]
    assert row.problems == [Problem("a.jsonl:1", *problem)]


def test_an_integer_is_an_id_and_a_title_alone_is_a_passage(tmp_path: Path) -> None:
    positives = [{"docid": 7, "title": "Rust", "text": None}]
    [row] = read(file_of(tmp_path, TEVATRON | {"query_id": 1, "positive_passages": positives}), "tevatron")
    assert isinstance(row, Row)
    assert (row.query_id, row.positives) == ("1", [Passage("a.jsonl:1", "7", "Rust", "")])


def test_broken_lines_are_named_by_number_and_the_rest_is_kept(tmp_path: Path) -> None:
    deep, long = "[" * 100_000, '{"query_id": ' + "1" * 5_000 + "}"
    path = file_of(tmp_path, TEVATRON, '{"query_id": "q2", ', "", "[1]", deep, long, TEVATRON)
    items = read(path, "tevatron")
    assert keys_of(items) == [
        ("a.jsonl:2", "broken_json"),
        ("a.jsonl:4", "wrong_type"),
        ("a.jsonl:5", "too_deep"),
        ("a.jsonl:6", "broken_json"),
    ]
    assert [item.where for item in items if isinstance(item, Row)] == ["a.jsonl:1", "a.jsonl:7"]


@pytest.mark.parametrize("score", [2**31 - 1, -(2**31) + 1, 0.5])
def test_a_score_that_a_table_can_hold_is_kept(score: float, tmp_path: Path) -> None:
    [row] = read(file_of(tmp_path, FLAG | {"neg_scores": [score, 1]}), "flagembedding")
    assert isinstance(row, Row)
    assert [item.score for item in row.negatives] == [score, 1.0]
    assert row.problems == []


@pytest.mark.parametrize("score", [2**31, -(2**31), True, "1"])
def test_a_score_that_is_too_large_or_no_number_is_left_out(score: object, tmp_path: Path) -> None:
    [row] = read(file_of(tmp_path, FLAG | {"neg_scores": [score, 1]}), "flagembedding")
    assert isinstance(row, Row)
    assert [item.score for item in row.negatives] == [None, None]
    assert [problem.reason for problem in row.problems] == ["bad_scores"]


@pytest.mark.parametrize(
    ("form", "row"),
    [("tevatron", TEVATRON), ("flagembedding", FLAG)],
)
def test_a_row_of_more_passages_than_are_read_is_rejected(
    tmp_path: Path, form: RowFormat, row: dict[str, object]
) -> None:
    passages = sum(len(value) for name, value in row.items() if isinstance(value, list) and name != "neg_scores")
    path = file_of(tmp_path, row, row)
    assert not keys_of(read(path, form, limits=ReadLimits(passages=passages)))
    assert read(path, form, limits=ReadLimits(passages=passages - 1)) == [
        Problem(
            f"a.jsonl:{line}",
            "too_many_passages",
            f"{passages} passages, at most {passages - 1} expected (ingest.limits.passages)",
        )
        for line in (1, 2)
    ]


def test_an_id_that_would_fill_the_tables_is_rejected(tmp_path: Path) -> None:
    long = "x" * 10_001
    path = file_of(
        tmp_path, TEVATRON | {"query_id": long}, TEVATRON | {"subset": long}, TEVATRON | {"query_id": long[:-1]}
    )
    first, second, third = read(path, "tevatron")
    assert first == Problem("a.jsonl:1", "id_too_long", "query_id has 10001 characters, at most 10000 expected")
    assert second == Problem("a.jsonl:2", "id_too_long", "subset has 10001 characters, at most 10000 expected")
    assert isinstance(third, Row)


def test_a_row_without_an_id_is_named_by_its_query(tmp_path: Path) -> None:
    for nothing in ({"query_id": None}, {"query_id": "  "}, {"query_id": ""}):
        assert read_line(tmp_path, TEVATRON | nothing).query_id == hash_text("what is rust?")
    assert read_line(tmp_path, TEVATRON | {"query_id": 7.0}).query_id == "7"


def test_passages_without_an_id_are_named_by_their_texts(tmp_path: Path) -> None:
    row = read_line(tmp_path, TEVATRON | {"positive_passages": [{"docid": "", "title": "", "text": "x"}]})
    assert row.positives[0].doc_id == hash_passage("", "x")


def test_one_positive_may_stand_without_its_list(tmp_path: Path) -> None:
    row = read_line(tmp_path, {"query": "a", "pos": "p", "neg": "n", "pos_scores": 0.9, "neg_scores": 0.1})
    assert [(item.text, item.score) for item in (*row.positives, *row.negatives)] == [("p", 0.9), ("n", 0.1)]


def test_scores_prompt_and_type_of_flagembedding_are_kept(tmp_path: Path) -> None:
    more = {
        "pos_scores": [0.98],
        "prompt": "Represent this: ",
        "type": "normal",
        "query_instruction_for_retrieval": "Q:",
    }
    row = read_line(tmp_path, FLAG | more)
    assert [item.score for item in row.positives] == [0.98]
    assert row.extras == {"prompt": "Represent this: ", "type": "normal", "query_instruction_for_retrieval": "Q:"}


def test_a_row_of_dpr_has_its_hard_negatives_first(tmp_path: Path) -> None:
    passage = {"title": "Rust", "text": "An oxide.", "passage_id": 12, "score": 3.5}
    line = {
        "question": "what is rust?",
        "answers": ["oxide"],
        "dataset": "nq_train",
        "positive_ctxs": [passage],
        "negative_ctxs": [passage | {"text": "A game.", "passage_id": 13}],
        "hard_negative_ctxs": [passage | {"text": "A language.", "passage_id": 14}],
    }
    row, unread = read(file_of(tmp_path, line))
    assert isinstance(row, Row)
    assert (row.dataset, row.positives) == ("nq_train", [Passage("a.jsonl:1", "12", "Rust", "An oxide.", 3.5)])
    assert [item.doc_id for item in row.negatives] == ["14", "13"]
    assert keys_of([unread]) == [("a.jsonl", "unread_field")]


def test_what_nobody_reads_is_counted_for_each_file(tmp_path: Path) -> None:
    passages = [{"docid": "d1", "text": "x", "url": "u"}]
    lines = [TEVATRON | {"answers": ["a"], "positive_passages": passages}, TEVATRON | {"answers": []}] * 2
    problems = [item for item in read(file_of(tmp_path, *lines)) if isinstance(item, Problem)]
    assert [(item.key, item.detail.partition(" is")[0]) for item in problems] == [
        ("a.jsonl", "positive_passages.url"),
        ("a.jsonl", "answers"),
    ]
    assert "it has content 2 time(s)" in problems[1].detail


def test_a_field_that_the_settings_name_in_vain_is_told_once_for_the_file(tmp_path: Path) -> None:
    lines = [{"query": "a", "positive": "b", "negative": "c"}] * 2
    problems = [
        item
        for item in read(file_of(tmp_path, *lines), negative=("negative", "worse"), text="text")
        if isinstance(item, Problem)
    ]
    assert problems == [
        Problem("a.jsonl", "no_such_field", "ingest.fields names 'worse', which no row of the file has")
    ]


def test_a_passage_whose_text_has_an_unknown_name_is_rejected_with_its_keys(tmp_path: Path) -> None:
    passages = [{"docid": "d1", "title": "Rust", "abstract": "An oxide."}]
    (problem, *_) = read(file_of(tmp_path, TEVATRON | {"positive_passages": passages}))
    assert isinstance(problem, Problem)
    assert "passage d1 has no text, but keys that are not read: abstract. Set ingest.fields.text" in problem.detail
    row = read_line(tmp_path, TEVATRON | {"positive_passages": passages, "negative_passages": []}, text="abstract")
    assert row.positives[0].text == "An oxide."


def test_what_stands_under_source_and_is_no_name_is_no_dataset(tmp_path: Path) -> None:
    pair = {"query": "a", "answer": "b"}
    assert read_line(tmp_path, pair | {"source": "nq"}).dataset == "nq"
    row, unread = read(file_of(tmp_path, pair | {"source": "https://a.example/b"}))
    assert isinstance(row, Row)
    assert (row.dataset, keys_of([unread])) == (None, [("a.jsonl", "unread_field")])
    assert read_line(tmp_path, TEVATRON | {"subset": 3}).dataset == "3"


def test_a_row_without_a_known_query_or_positive_names_its_keys(tmp_path: Path) -> None:
    items = read(file_of(tmp_path, {"first": "a", "positive": "b"}, {"query": "a", "good": "b"}))
    assert [item.detail for item in items[:2] if isinstance(item, Problem)] == [
        "no field of the row is known as a query; it has first, positive. See ingest.fields",
        "the row has no usable positive; it has query, good. See ingest.fields",
    ]
    assert read_line(tmp_path, {"first": "a", "good": "b"}, query="first", positive="good").query == "a"


@pytest.mark.parametrize("label", [None, "", float("nan")])
def test_a_passage_without_its_label_is_no_positive(label: object) -> None:
    found = {"query": "a", "passage": "b", "label": label}
    [problem] = read_rows(iter([("x:1", found)]), "x")
    assert isinstance(problem, Problem)
    assert (problem.reason, "label is empty" in problem.detail) == ("unclear_label", True)
    [row, *_] = read_rows(iter([("x:1", found)]), "x", RowOptions(names=FieldNames(labels="none")))
    assert isinstance(row, Row)


def test_a_query_with_a_label_and_no_passage_is_a_problem() -> None:
    problem, _unread = read_rows(iter([("x:1", {"query": "a", "label": 1})]), "x")
    assert isinstance(problem, Problem)
    assert problem.reason == "no_positive"


def test_an_empty_cell_of_a_negative_is_no_problem() -> None:
    cells = [
        ("x:1", {"query": "a", "positive": "b", "negative": " "}),
        ("x:2", {"query": "a", "positive": "c", "negative": "d"}),
    ]
    [row] = read_rows(iter(cells), "x")
    assert isinstance(row, Row)
    assert ([one.text for one in row.negatives], row.problems, row.repeats) == (["d"], [], ["x:2"])
