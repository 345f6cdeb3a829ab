"""The readers, one line at a time: what a line holds becomes records, what it does not becomes a problem."""

import gzip
import json
from pathlib import Path

import pytest

from tasks.data import readers
from tasks.data import readers as readers_module
from tasks.data.readers import IngestError, Judgement, Passage, Problem, Query, Row
from tasks.texts import hash_passage, hash_text
from tests.tasks.records import mutable_records

TEVATRON = {
    "query_id": "q1",
    "query": "what is rust?",
    "positive_passages": [{"docid": "d1", "title": "Rust", "text": "An oxide."}],
    "negative_passages": [{"docid": "d2", "title": "", "text": "A language."}],
}
FLAG = {"query": "what is rust?", "pos": ["An oxide."], "neg": ["A language.", "A game."], "neg_scores": [0.5, None]}


def _file(folder: Path, *lines: object, name: str = "a.jsonl") -> Path:
    path = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def _problems(items: list[object]) -> list[tuple[str, str]]:
    return [(item.key, item.reason) for item in items if isinstance(item, Problem)]


def test_a_tevatron_row_keeps_its_ids_titles_and_order(tmp_path: Path) -> None:
    [row] = readers.read_rows(_file(tmp_path, TEVATRON | {"subset": "nq"}), "tevatron")
    assert row == Row(
        "a.jsonl:1",
        "nq",
        "q1",
        "what is rust?",
        [Passage("a.jsonl:1", "d1", "Rust", "An oxide.")],
        [Passage("a.jsonl:1", "d2", "", "A language.")],
        [None],
        [],
    )


def test_a_flagembedding_row_takes_its_ids_from_its_texts_and_keeps_the_scores(tmp_path: Path) -> None:
    [row] = readers.read_rows(_file(tmp_path, FLAG | {"prompt": "p", "type": "normal"}), "flagembedding")
    assert isinstance(row, Row)
    assert row.query_id == hash_text("what is rust?")
    assert [item.doc_id for item in row.positives] == [hash_passage("", "An oxide.")]
    assert [(item.text, score) for item, score in zip(row.negatives, row.scores, strict=True)] == [
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
    [row] = readers.read_rows(_file(tmp_path, FLAG | {"neg_scores": scores}), "flagembedding")
    assert isinstance(row, Row)
    assert row.scores == [None, None]
    assert row.problems == [Problem("a.jsonl:1", "bad_scores", detail)]


def test_scores_stay_with_their_negatives_when_one_of_these_is_unusable(tmp_path: Path) -> None:
    row_in = FLAG | {"neg": ["A language.", " ", "A game."], "neg_scores": [1, 2, 3]}
    [row] = readers.read_rows(_file(tmp_path, row_in), "flagembedding")
    assert isinstance(row, Row)
    assert row.scores == [1.0, 3.0]
    assert row.problems == [Problem("a.jsonl:1", "empty_text", "neg 2: text is empty")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"query": None}, "no_query"),
        ({"query": " \n"}, "empty_text"),
        ({"query": 7}, "wrong_type"),
        ({"query_id": None}, "no_id"),
        ({"query_id": "  "}, "no_id"),
        ({"query_id": 1.5}, "wrong_type"),
        ({"query_id": True}, "wrong_type"),
        ({"subset": 3}, "wrong_type"),
        ({"positive_passages": None}, "no_positive"),
        ({"positive_passages": []}, "no_positive"),
        ({"positive_passages": "d1"}, "wrong_type"),
        ({"negative_passages": {"docid": "d2"}}, "wrong_type"),
        ({"positive_passages": [{"docid": "d1", "title": " ", "text": ""}]}, "no_positive"),
    ],
)
def test_a_row_that_cannot_be_used_is_rejected_with_its_reason(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    items = list(readers.read_rows(_file(tmp_path, TEVATRON | change, TEVATRON), "tevatron"))
    assert _problems(list(items)) == [("a.jsonl:1", reason)]
    assert isinstance(items[1], Row)


@pytest.mark.parametrize(
    ("passage", "problem"),
    [
        ("d3", ("wrong_type", "negative_passages 1: the passage is a string, expected an object")),
        ({"text": "no id"}, ("no_id", "negative_passages 1: docid is missing or empty")),
        ({"docid": "d3", "text": ""}, ("empty_text", "negative_passages 1: passage d3 has neither title nor text")),
        ({"docid": "d3", "text": 5}, ("wrong_type", "negative_passages 1: text is a number, expected a string")),
    ],
)
def test_an_unusable_passage_does_not_cost_the_row(tmp_path: Path, passage: object, problem: tuple[str, str]) -> None:
    negatives = [passage, *TEVATRON["negative_passages"]]
    [row] = readers.read_rows(_file(tmp_path, TEVATRON | {"negative_passages": negatives}), "tevatron")
    assert isinstance(row, Row)
    assert [item.doc_id for item in row.negatives] == ["d2"]
    assert row.problems == [Problem("a.jsonl:1", *problem)]


def test_an_integer_is_an_id_and_a_title_alone_is_a_passage(tmp_path: Path) -> None:
    positives = [{"docid": 7, "title": "Rust", "text": None}]
    [row] = readers.read_rows(_file(tmp_path, TEVATRON | {"query_id": 1, "positive_passages": positives}), "tevatron")
    assert isinstance(row, Row)
    assert (row.query_id, row.positives) == ("1", [Passage("a.jsonl:1", "7", "Rust", "")])


def test_broken_lines_are_named_by_number_and_the_rest_is_kept(tmp_path: Path) -> None:
    deep, long = "[" * 100_000, '{"query_id": ' + "1" * 5_000 + "}"
    path = _file(tmp_path, TEVATRON, '{"query_id": "q2", ', "", "[1]", deep, long, TEVATRON)
    items = list(readers.read_rows(path, "tevatron"))
    assert _problems(list(items)) == [
        ("a.jsonl:2", "broken_json"),
        ("a.jsonl:4", "wrong_type"),
        ("a.jsonl:5", "broken_json"),
        ("a.jsonl:6", "broken_json"),
    ]
    assert [item.where for item in items if isinstance(item, Row)] == ["a.jsonl:1", "a.jsonl:7"]


def test_bytes_that_are_no_utf8_cost_their_line_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"_id": "q1", "text": "caf\xe9"}\n{"_id": "q2", "text": "caf\xc3\xa9"}\n')
    assert list(readers.read_queries(path)) == [
        Problem("a.jsonl:1", "not_utf8", "byte 0xe9 at position 27 is not UTF-8"),
        Query("a.jsonl:2", "q2", "café"),
    ]


def test_a_byte_order_mark_windows_line_ends_and_a_missing_last_one_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"_id": "q1", "text": "a"}\r\n{"_id": "q2", "text": "b"}')
    assert list(readers.read_queries(path)) == [Query("a.jsonl:1", "q1", "a"), Query("a.jsonl:2", "q2", "b")]


def test_control_characters_become_spaces_and_everything_else_stays(tmp_path: Path) -> None:
    path = _file(tmp_path, {"_id": " d\t1\x1f", "title": "a\x00b", "text": " x\x1fy\n\tz\u2028\u00a0é\ud800. "})
    assert list(readers.read_corpus(path)) == [Passage("a.jsonl:1", "d 1", "a b", "x y\n\tz\u2028\u00a0é .")]


def test_gzip_is_told_by_its_content_and_a_broken_one_keeps_what_could_be_unpacked(tmp_path: Path) -> None:
    lines = "".join(f'{{"_id": "q{number}", "text": "query {hash_text(str(number))}"}}\n' for number in range(2_000))
    packed = gzip.compress(lines.encode(), mtime=0)
    (tmp_path / "plain.jsonl").write_bytes(packed)
    (tmp_path / "half.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    assert len(list(readers.read_queries(tmp_path / "plain.jsonl"))) == 2_000

    *whole, last = readers.read_queries(tmp_path / "half.jsonl.gz")
    assert whole
    assert all(isinstance(item, Query) for item in whole)
    assert isinstance(last, Problem)
    assert (last.key, last.reason) == (f"half.jsonl.gz:{len(whole) + 1}", "broken_gzip")


def test_an_empty_file_is_a_problem_of_its_own(tmp_path: Path) -> None:
    path = _file(tmp_path)
    assert list(readers.read_queries(path)) == [Problem("a.jsonl:1", "empty_file", "the file holds no line")]


@pytest.mark.parametrize("header", ["query-id\tcorpus-id\tscore\n", "query-id corpus-id score\n", ""])
def test_qrels_are_read_with_and_without_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(f"{header}q1\td 1\t2\nq1\td2\t1.0\n", encoding="utf-8")
    first = 2 if header else 1
    name = f"{tmp_path.name}/train.tsv"
    assert list(readers.read_qrels(path)) == [
        Judgement(f"{name}:{first}", "q1", "d 1", 2),
        Judgement(f"{name}:{first + 1}", "q1", "d2", 1),
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
    problem, kept = readers.read_qrels(path)
    assert isinstance(problem, Problem)
    assert (problem.key.rpartition("/")[2], problem.reason) == ("train.tsv:2", reason)
    assert isinstance(kept, Judgement)


def test_the_format_is_told_by_the_first_row_that_shows_one(tmp_path: Path) -> None:
    for name, row in (("tevatron", TEVATRON), ("flagembedding", FLAG)):
        (tmp_path / name).mkdir()
        _file(tmp_path / name, "not json", {"note": "nothing known"}, row)
        assert readers.detect(tmp_path / name) == name


def test_a_folder_with_corpus_and_queries_is_beir_packed_or_not(tmp_path: Path) -> None:
    _file(tmp_path, name="queries.jsonl")
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b""))
    assert readers.detect(tmp_path) == "beir"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], r"in 1 file\(s\); a.jsonl:1: empty_file"),
        (["nonsense"], "a.jsonl:1: broken_json"),
        ([{"anchor": "a", "positive": "b"}], "a.jsonl:1 has anchor, positive. Expected"),
    ],
)
def test_an_unknown_format_is_refused_with_what_came_and_what_was_expected(
    tmp_path: Path, lines: list[object], says: str
) -> None:
    _file(tmp_path, *lines)
    with pytest.raises(IngestError, match=says):
        readers.detect(tmp_path)


def test_rows_come_from_all_jsonl_files_in_name_order_or_from_the_only_file(tmp_path: Path) -> None:
    _file(tmp_path, name="b.jsonl")
    assert [path.name for path in readers.row_files(tmp_path)] == ["b.jsonl"]
    for name in ("a.jsonl.gz", "stats.json", ".hidden.jsonl"):
        _file(tmp_path, name=name)
    assert [path.name for path in readers.row_files(tmp_path)] == ["a.jsonl.gz", "b.jsonl"]
    (tmp_path / "alone").mkdir()
    _file(tmp_path / "alone", name="train.txt")
    assert [path.name for path in readers.row_files(tmp_path / "alone")] == ["train.txt"]


def test_a_missing_split_is_refused_with_the_splits_there_are(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    for name in ("dev.tsv", "test.tsv.gz"):
        _file(tmp_path / "qrels", name=name)
    assert readers.qrels_file(tmp_path, "test").name == "test.tsv.gz"
    with pytest.raises(IngestError, match=r"qrels/train\.tsv not found; splits there are: dev, test"):
        readers.qrels_file(tmp_path, "train")


def test_a_corpus_without_queries_is_no_beir_folder(tmp_path: Path) -> None:
    _file(tmp_path, {"_id": "d1", "text": "one"}, name="corpus.jsonl")
    with pytest.raises(IngestError, match=r"corpus.jsonl:1 has _id, text\. Expected"):
        readers.detect(tmp_path)
    _file(tmp_path, TEVATRON, name="rows.jsonl")
    assert readers.detect(tmp_path) == "tevatron"


@pytest.mark.parametrize("score", [2**31 - 1, -(2**31) + 1, 0.5])
def test_a_score_that_a_table_can_hold_is_kept(score: float, tmp_path: Path) -> None:
    [row] = readers.read_rows(_file(tmp_path, FLAG | {"neg_scores": [score, 1]}), "flagembedding")
    assert isinstance(row, Row)
    assert row.scores == [score, 1.0]
    assert row.problems == []


@pytest.mark.parametrize("score", [2**31, -(2**31), True, "1"])
def test_a_score_that_is_too_large_or_no_number_is_left_out(score: object, tmp_path: Path) -> None:
    [row] = readers.read_rows(_file(tmp_path, FLAG | {"neg_scores": [score, 1]}), "flagembedding")
    assert isinstance(row, Row)
    assert row.scores == [None, None]
    assert [problem.reason for problem in row.problems] == ["bad_scores"]


@pytest.mark.parametrize(
    ("line", "kept"), [(f"q\td\t{2**31 - 1}", True), (f"q\td\t{2**31}", False), ("q d 1", True), ("q d 1.5", False)]
)
def test_a_relevance_is_a_whole_number_that_a_table_can_hold(line: str, kept: bool, tmp_path: Path) -> None:
    (item,) = readers.read_qrels(_file(tmp_path, line, name="train.tsv"))
    assert isinstance(item, Judgement) is kept


def test_only_the_first_line_of_qrels_may_be_a_header(tmp_path: Path) -> None:
    header = "query-id\tcorpus-id\tscore"
    items = list(readers.read_qrels(_file(tmp_path, header, "q\td\t1", header, name="train.tsv")))
    assert [type(item) for item in items] == [Judgement, Problem]


def test_the_byte_that_is_no_utf8_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "\xff"}\n')
    (problem,) = readers.read_objects(path)
    assert problem == Problem("a.jsonl:1", "not_utf8", "byte 0xff at position 8 is not UTF-8")


def test_a_broken_gzip_names_the_line_after_the_last_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    packed = gzip.compress(b'{"a": 1}\n{"a": 2}\n')
    path.write_bytes(packed[:-4])
    items = list(readers.read_lines(path, "a"))
    assert items[:2] == [("a:1", '{"a": 1}'), ("a:2", '{"a": 2}')]
    assert isinstance(items[2], Problem)
    assert (items[2].key, items[2].reason) == ("a:3", "broken_gzip")


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(readers_module) == set()
