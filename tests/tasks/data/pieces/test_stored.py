"""Batches as frames in the store: they come back as they were."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tasks.data.layouts.fields import FieldNames
from tasks.data.pieces.read import ReadConfig
from tasks.data.pieces.stored import RANGE, RANGES, WHOLE, ReadApart, batch_of_frame, frame_of
from tasks.data.reading.files import source_file
from tasks.data.reading.records import Batch, Passage, Row, batch_of
from tasks.data.reading.rows import RowOptions
from tasks.data.reading.source import batches_of_file
from tasks.lines import Problem
from tests.tasks.data.containers.written import parquet
from tests.tasks.data.inputs import row_of, write_lines
from tests.tasks.data.pieces.made import read_file, stored


def assert_same(found: Batch, batch: Batch) -> None:
    for name in ("rows", "passages", "extras"):
        assert_frame_equal(getattr(found, name), getattr(batch, name))
    assert (found.problems, dict(found.repeats)) == (batch.problems, dict(batch.repeats))


def passage(name: str, score: float | None = None) -> Passage:
    return Passage("a:1", name, "", f"of {name}", score)


def test_a_batch_comes_back_with_its_scores_extras_repeats_and_problems() -> None:
    problem = Problem("a:9", "broken_json", "said")
    rows = [
        Row("a:1", None, "q1", "one", [passage("d1", 0.5)], [passage("d2"), passage("d1", -1.0)], [], {"prompt": "p"}),
        Row("a:2", "other", "q2", "two", [passage("d3")], [], [], repeats=["a:3", "a:4"]),
        Row("a:5", None, "q3", "", [], [passage("d4")], [], {"prompt": "", "type": "t"}),
    ]
    for batch in (batch_of(rows, [problem, problem]), batch_of(rows, []), batch_of([], [problem]), batch_of([], [])):
        assert_same(batch_of_frame(stored(frame_of(batch, "a"))), batch)


@pytest.mark.parametrize("unusual", [{}, {"query": None}, {"negative_passages": [None]}], ids=["none", "lost", "kept"])
def test_batches_that_were_read_by_column_come_back_with_their_unusual_rows(
    tmp_path: Path, unusual: dict[str, object]
) -> None:
    rows = [row_of("q1", "d1", "d2"), row_of("q2", "d1 d3", "d2", **unusual), row_of("q3", "d4", "d5")]
    (tmp_path / "a.parquet").write_bytes(parquet(rows))
    (tmp_path / "b.jsonl").write_text('{"query": "x", "pos": ["p"], "neg": [], "type": "t"}\n[]\n')
    for name in ("a.parquet", "b.jsonl"):
        batches = list(batches_of_file(source_file(tmp_path / name), RowOptions()))
        assert batches
        for batch in batches:
            assert_same(batch_of_frame(stored(frame_of(batch, name))), batch)


def frames_of(*names: str) -> list[pl.DataFrame]:
    rows = [Row(f"{name}:1", None, f"q{n}", "text", [passage("d1")], [], []) for n, name in enumerate(names)]
    return [frame_of(batch_of([row], []), name) for row, name in zip(rows, names, strict=True)]


def ranges_of(*rows: tuple[str, int, int, str]) -> pl.DataFrame:
    return pl.DataFrame([(*row, 1, [], None) for row in rows], schema=RANGES.columns, orient="row")


def whole(*names: str) -> pl.DataFrame:
    return ranges_of(*((name, 0, 1, WHOLE) for name in names))


def places(batches: Iterator[Batch] | None) -> list[list[str]] | None:
    return None if batches is None else [batch.rows["where"].to_list() for batch in batches]


def test_files_are_taken_in_their_order_and_those_that_nobody_asks_for_are_passed_over() -> None:
    frames = frames_of("a/z", "a/z", "a.b", "b", "c")
    apart = ReadApart(whole("a/z", "a.b", "b", "c", "none"), frames, RowOptions())
    taken = {name: places(apart.batches(name)) for name in ("a", "a/z", "b", "bb", "d", "none")}
    assert taken == {"a": None, "a/z": [["a/z:1"], ["a/z:1"]], "b": [["b:1"]], "bb": None, "d": None, "none": []}
    assert apart.files == 3
    assert ReadApart(RANGES.empty(), [], RowOptions()).batches("a") is None


def test_a_file_of_which_a_range_is_missing_is_not_taken_and_the_next_one_is() -> None:
    ranges = [("a", 0, 2, RANGE), ("b", 0, 2, WHOLE), ("c", 0, 2, RANGE), ("c", 1, 2, RANGE)]
    apart = ReadApart(ranges_of(*ranges), frames_of("a", "b", "c", "c"), RowOptions())
    assert [places(apart.batches(name)) for name in "abc"] == [None, [["b:1"]], [["c:1", "c:1"]]]


def test_only_the_frame_at_hand_is_read() -> None:
    asked: list[str] = []

    def frames() -> Iterator[pl.DataFrame]:
        for frame in frames_of("a", "a", "b"):
            asked.append(frame["file"][0])
            yield frame

    batches = ReadApart(whole("a", "b"), frames(), RowOptions()).batches("a")
    assert asked == []
    assert batches is not None
    next(batches)
    assert asked == ["a"]
    next(batches)
    assert asked == ["a", "a"]


def test_batches_of_ranges_are_cut_where_those_of_the_whole_file_end_and_fields_are_told_once(tmp_path: Path) -> None:
    lines: list[object] = [row_of(f"q{n}", "d1", unread=n) for n in range(2_100)]
    lines[999], lines[1_000], lines[1_500] = row_of("q", "d1 d2", "", negative_passages=[7]), "broken", row_of("q", "")
    lines[1_040:1_075] = ["broken", row_of("q", "", unread=1)] * 17  # the second of two ranges begins with them
    write_lines(tmp_path / "a.jsonl", *lines, "broken")
    options = RowOptions(names=FieldNames(title="heading"))
    config = ReadConfig(fields=options.names)
    batches = list(batches_of_file(source_file(tmp_path / "a.jsonl"), options))
    for count in (2, 5, 300):
        made = [read_file(tmp_path, config, number, count) for number in range(count)]
        frames = [frame for one in made for frame in one["read"]]
        apart = ReadApart(pl.concat(one["ranges"] for one in made), frames, options)
        found = list(apart.batches("a.jsonl") or ())
        assert len(found) == len(batches) == 3
        for one, other in zip(found, batches, strict=True):
            assert_same(one, other)
