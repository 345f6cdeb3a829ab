"""JSON lists and objects over several lines: each row on its own, and a broken one costs itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.data.containers.json_values import read_json
from tasks.data.containers.kinds import SourceFile
from tasks.lines import Problem, ReadLimits


def read(tmp_path: Path, text: str | bytes, **limits: int) -> list[Any]:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_json(SourceFile(path, "a.json", "json"), ReadLimits(**limits)))


def test_a_broken_value_costs_itself(tmp_path: Path) -> None:
    text = '[1, "a", {"a":1]}, {"b": "}]\\"["}, null, [{}], {"c": 2},, ]'
    items = read(tmp_path, text)
    assert [item for item in items if not isinstance(item, Problem)] == [
        ("a.json#5", {"b": '}]"['}),
        ("a.json#8", {"c": 2}),
    ]
    assert [(item.key, item.reason, item.detail) for item in items if isinstance(item, Problem)] == [
        ("a.json#1", "wrong_type", "a number stands where an object is expected"),
        ("a.json#2", "wrong_type", "a string stands where an object is expected"),
        ("a.json#3", "broken_json", "Expecting ',' delimiter at column 7"),
        ("a.json#4", "wrong_type", "a bracket that closes nothing stands where an object is expected"),
        ("a.json#6", "wrong_type", "null stands where an object is expected"),
        ("a.json#7", "wrong_type", "a list stands where an object is expected"),
    ]


@pytest.mark.parametrize(
    "text", ['[{"a": 1}', '[{"a": 1},', '[{"a": 1}, {"b"', '[{"a": 1}, {"b": "x\\', '{"data": [{"a": 1}]']
)
def test_a_list_that_ends_early_is_a_problem(tmp_path: Path, text: str) -> None:
    first, last = read(tmp_path, text)
    assert first == ("a.json#1", {"a": 1})
    assert (last.key, last.reason) == ("a.json#2", "broken_file")


def test_members_beside_the_list_are_named(tmp_path: Path) -> None:
    text = json.dumps({"version": 1, "data": [{"a": 1}], "licence": "x", "test": [{"a": 2}]})
    assert read(tmp_path, text) == [
        ("a.json#1", {"a": 1}),
        Problem("a.json", "not_read", "beside the list 'data', the file has test"),
        Problem("a.json", "metadata", "beside the list 'data', the file has version, licence"),
    ]


def test_objects_over_several_lines_and_several_lists_are_read(tmp_path: Path) -> None:
    rows: list[Any] = [{"a": [{"b": 1}]}, {"a": []}]
    wanted = [("a.json#1", rows[0]), ("a.json#2", rows[1])]
    assert read(tmp_path, "\n".join(json.dumps(row, indent=2) for row in rows)) == wanted
    assert read(tmp_path, "\ufeff" + "\n".join(json.dumps([row]) for row in rows)) == wanted


@pytest.mark.parametrize("length", [10, 65_530, 65_536, 200_000])
def test_a_value_may_lie_across_the_pieces_that_are_read(tmp_path: Path, length: int) -> None:
    rows = [{"a": 'é\\"' * length}, {"b": "x" * length, "c": [[], {}]}, {"d": 1}]
    for text in (json.dumps(rows), json.dumps(rows, ensure_ascii=False, indent=1)):
        assert [item[1] for item in read(tmp_path, text)] == rows


def test_limits_of_length_and_depth_cost_one_row(tmp_path: Path) -> None:
    rows = [{"a": "x" * 200_000}, {"a": [[[1]]]}, {"b": 1}]
    long, deep, good = read(tmp_path, json.dumps(rows), line_bytes=1_000, depth=3)
    assert (long.key, long.reason) == ("a.json#1", "row_too_long")
    assert long.detail == "200009 bytes, at most 1000 expected (ingest.limits.line_bytes)"
    assert (deep.key, deep.reason) == ("a.json#2", "too_deep")
    assert good == ("a.json#3", {"b": 1})


def test_a_row_that_is_no_utf8_costs_itself(tmp_path: Path) -> None:
    bad, good = read(tmp_path, b'[{"a": "\xff"}, {"a": 1}]')
    assert (bad.reason, good) == ("not_utf8", ("a.json#2", {"a": 1}))


def test_a_list_without_rows_is_said(tmp_path: Path) -> None:
    [problem] = read(tmp_path, "[]")
    assert problem == Problem("a.json#1", "empty_file", "the file holds no object")


def test_a_member_without_a_colon_is_a_problem(tmp_path: Path) -> None:
    items = read(tmp_path, '{"data": [{"a": 1}], "b" 1}')
    assert items[0] == ("a.json#1", {"a": 1})
    assert items[1].reason == "broken_json"
