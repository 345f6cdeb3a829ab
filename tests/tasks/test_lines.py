"""Lines of files that other people made: what is over a limit costs its line, and little memory."""

import gzip
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks import lines as lines_module
from tasks import packed as packed_module
from tasks.lines import (
    Problem,
    Problems,
    ReadLimits,
    UnusableError,
    count_lines_within,
    is_utf8,
    parse_object,
    read_lines,
    read_lines_within,
    split_lines,
)
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of

FEW = ReadLimits(line_bytes=10)
_MEGABYTE = 2**20
# Reads a file in a process of its own; prints what came, and the growth of the peak of its memory in bytes.
MEASURE = """
import resource, sys
from pathlib import Path
from tasks.lines import Problem, ReadLimits, read_lines
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
items = list(read_lines(Path(sys.argv[1]), "a", ReadLimits(line_bytes=int(sys.argv[2]))))
print([item.reason if isinstance(item, Problem) else item[0] for item in items])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def written(folder: Path, data: bytes, *, packed: bool = False) -> Path:
    path = folder / "a.jsonl"
    path.write_bytes(gzip.compress(data, 9, mtime=0) if packed else data)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_over_the_limit_is_rejected_and_the_lines_around_it_are_read(tmp_path: Path, packed: bool) -> None:
    path = written(tmp_path, b"0123456789\n01234567890\n\n0123456789\r\n0123456789", packed=packed)
    said = "the line is 11 bytes long, at most 10 expected (ingest.limits.line_bytes)"
    assert list(read_lines(path, "a", FEW)) == [
        ("a:1", "0123456789"),
        Problem("a:2", "line_too_long", said),
        Problem("a:4", "line_too_long", said),
        ("a:5", "0123456789"),
    ]


def test_an_over_long_line_at_the_end_needs_no_line_end(tmp_path: Path) -> None:
    [problem] = read_lines(written(tmp_path, b"x" * 3_000_000), "a", FEW)
    assert problem == Problem(
        "a:1", "line_too_long", "the line is 3000000 bytes long, at most 10 expected (ingest.limits.line_bytes)"
    )


@pytest.mark.parametrize("length", [_MEGABYTE + 10, _MEGABYTE + 11, 2 * _MEGABYTE + 11])
def test_the_line_after_an_over_long_one_begins_at_its_beginning(length: int) -> None:
    stream = io.BytesIO(b"x" * length + b"\n" + b"next\n")
    assert list(split_lines(stream, 10)) == [(b"", length), (b"next\n", 4)]


def test_a_short_gzip_file_with_one_huge_line_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'{"a": "')
        for _ in range(128):
            file.write(b"x" * _MEGABYTE)
        file.write(b'"}\n{}\n')
    assert path.stat().st_size < _MEGABYTE
    command = [sys.executable, "-c", MEASURE, str(path), str(4 * _MEGABYTE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    came, grown = done.stdout.splitlines()
    assert came == "['line_too_long', 'a:2']"
    assert int(grown) < 24 * _MEGABYTE  # without the limit: five times the line


def test_a_gzip_file_is_read_up_to_the_limit_of_what_it_unpacks_to(tmp_path: Path) -> None:
    path = written(tmp_path, b"12345\n" * 100, packed=True)
    *whole, last = read_lines(path, "a", ReadLimits(unpacked_bytes=60))
    assert whole == [(f"a:{number}", "12345") for number in range(1, 11)]
    assert last == Problem(
        "a:11",
        "too_much_unpacked",
        "the file unpacks to more than 60 bytes; its rest is not read "
        "(ingest.limits.unpacked_bytes, ingest.limits.unpacked_ratio)",
    )
    assert len(list(read_lines(written(tmp_path, b"12345\n" * 100), "a", ReadLimits(unpacked_bytes=60)))) == 100


def test_a_gzip_file_may_be_packed_tightly_as_long_as_it_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, b"12345\n" * 10_000, packed=True)
    assert path.stat().st_size < 400
    assert len(list(read_lines(path, "a", ReadLimits(unpacked_ratio=100)))) == 10_000
    monkeypatch.setattr(packed_module, "_SMALL", 1_000)
    *_, last = read_lines(path, "a", ReadLimits(unpacked_ratio=100))
    assert isinstance(last, Problem)
    assert last.reason == "too_much_unpacked"
    assert len(list(read_lines(path, "a", ReadLimits(unpacked_ratio=600)))) == 10_000


def test_one_endless_line_is_given_up_at_the_limit_too(tmp_path: Path) -> None:
    path = written(tmp_path, b"x" * (8 * _MEGABYTE), packed=True)
    [problem] = read_lines(path, "a", ReadLimits(line_bytes=10, unpacked_bytes=2 * _MEGABYTE))
    assert isinstance(problem, Problem)
    assert (problem.key, problem.reason) == ("a:1", "too_much_unpacked")


def test_an_over_long_line_does_not_count_as_tightly_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_module, "_SMALL", 1_000)
    path = written(tmp_path, b"x" * _MEGABYTE + b"\n12345\n", packed=True)
    problem, row = read_lines(path, "a", ReadLimits(line_bytes=10))
    assert isinstance(problem, Problem)
    assert (problem.reason, row) == ("line_too_long", ("a:2", "12345"))


def test_a_broken_gzip_names_the_line_after_the_last_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n')[:-4])
    items = list(read_lines(path, "a", ReadLimits()))
    assert items[:2] == [("a:1", '{"a": 1}'), ("a:2", '{"a": 2}')]
    assert isinstance(items[2], Problem)
    assert (items[2].key, items[2].reason) == ("a:3", "broken_gzip")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "too_deep"),
        ('{"a": ' * 100_000, "too_deep"),
        ('{"a": ' + "[" * 64 + "]" * 64 + "}", "too_deep"),
        ('{"a": ' + "1" * 5_000 + "}", "broken_json"),
        ('{"a": ', "broken_json"),
        ("[1]", "wrong_type"),
        ("", "broken_json"),
    ],
    ids=["lists", "objects", "one too deep", "huge integer", "cut", "list", "empty"],
)
def test_a_line_that_is_no_object_within_the_limits_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UnusableError) as error:
        parse_object(text, 64)
    assert error.value.reason == reason
    assert len(error.value.detail) < 300


def test_nesting_up_to_the_limit_is_read() -> None:
    assert parse_object('{"a": ' + "[" * 63 + "]" * 63 + "}", 64).keys() == {"a"}
    assert parse_object('{"a": 1e999, "b": [{}]}', 3) == {"a": float("inf"), "b": [{}]}


def test_problems_are_listed_up_to_a_number_and_counted_after_it() -> None:
    problems = Problems(1)
    problems.extend([Problem("a:1", "x", "first"), Problem("a:2", "y", "second")])
    problems.append(Problem("a:3", "x", "third"))
    problems.append(Problem("a:4", "y", "fourth"))
    assert list(problems) == [
        Problem("a:1", "x", "first"),
        Problem("more", "x", "1 more are not listed (ingest.limits.rejects is 1)"),
        Problem("more", "y", "2 more are not listed (ingest.limits.rejects is 1)"),
    ]


def test_the_default_limits_stay_as_they_are() -> None:
    assert settings_of(ReadLimits) == {
        "line_bytes": (33_554_432, ">=1"),
        "depth": (64, ">=1"),
        "passages": (10_000, ">=1"),
        "unpacked_bytes": (34_359_738_368, ">=1"),
        "unpacked_ratio": (200, ">=1"),
        "rejects": (1_000_000, ">=0"),
    }


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(lines_module) == set()


@pytest.mark.parametrize(
    "data", [b"one\n\ntwo\r\nthree", b"\xef\xbb\xbfone\n\xff\nthree\n", b"\n\n", b"a" * 40 + b"\nb\n"]
)
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_ranges_of_a_file_together_hold_its_lines_each_once_under_its_number(
    tmp_path: Path, data: bytes, count: int
) -> None:
    path, limits = tmp_path / "a.jsonl", ReadLimits(line_bytes=20)
    path.write_bytes(data)
    bounds = [len(data) * number // count for number in range(count + 1)]
    ranges = [range(bounds[number], bounds[number + 1]) for number in range(count)]
    found, before = [], 0
    for within in ranges:
        found += list(read_lines_within(path, "a", limits, within, before))
        before += count_lines_within(path, within)
    assert found == list(read_lines(path, "a", limits))
    assert before == len(data.splitlines())


def test_of_a_file_only_the_range_and_its_last_line_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"line\n" * 2**19 + b"x" * 2**22)
    read = 0

    class Counted(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            nonlocal read
            size = super().readinto(buffer)
            read += size or 0
            return size or 0

    monkeypatch.setattr(Path, "open", lambda self, mode: io.BufferedReader(Counted(self, mode)))
    within = range(2**21, 2**21 + 100)
    assert list(read_lines_within(path, "a", FEW, within, 7)) == [(f"a:{number}", "line") for number in range(8, 28)]
    assert count_lines_within(path, within) == 20
    assert list(read_lines_within(path, "a", FEW, range(3 * 2**20, 3 * 2**20 + 100))) == []  # within a long line
    assert read < 2**21


def test_a_text_with_the_mark_of_another_encoding_is_told_from_utf8(tmp_path: Path) -> None:
    texts = {"utf-8": True, "utf-8-sig": True, "utf-16": False, "utf-32": False}
    for encoding in texts:
        (tmp_path / encoding).write_bytes("text".encode(encoding))
    assert {encoding: is_utf8(tmp_path / encoding) for encoding in texts} == texts
