"""Any rows in any kind of file and any packing come back as they were, and whatever cuts a file short is said."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.data.reading.files import source_file
from tasks.data.reading.objects import parsed, read_objects
from tasks.lines import Problem, ReadLimits, UnusableError
from tests.tasks.data.containers.written import PACKINGS, TABLES, TEXTS, lines, zstd

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PASSAGE = st.fixed_dictionaries({"docid": TEXT, "text": TEXT})
ROW = st.fixed_dictionaries(
    {
        "query": TEXT,
        "pos": st.lists(TEXT, min_size=1, max_size=3),
        "negative_passages": st.lists(PASSAGE, min_size=1, max_size=3),
        "score": st.floats(allow_nan=False, width=32),
        "count": st.integers(-(2**53), 2**53),
        "note": st.none() | TEXT,
    }
)
ROWS = st.lists(ROW, min_size=1, max_size=5)
WITH_FOLDER = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, data: bytes, **limits: int) -> list[tuple[str, dict[str, Any]] | Problem]:
    path.write_bytes(data)
    return list(read_objects(path, ReadLimits(**limits)))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", TEXTS)
@given(rows=ROWS)
@settings(parent=WITH_FOLDER, max_examples=8)
def test_rows_in_any_text_and_packing_come_back(tmp_path: Path, kind: str, packing: str, rows: list[Any]) -> None:
    items = read(tmp_path / "rows", PACKINGS[packing](TEXTS[kind](rows)))
    mark = ":" if kind in ("lines", "UTF-16") else "#"
    assert items == [(f"rows{mark}{number}", row) for number, row in enumerate(rows, start=1)]


@pytest.mark.parametrize("kind", TABLES)
@given(rows=ROWS)
@WITH_FOLDER
def test_rows_in_any_table_come_back(tmp_path: Path, kind: str, rows: list[Any]) -> None:
    items = read(tmp_path / "rows", TABLES[kind](rows))
    assert items == [(f"rows#{number}", row) for number, row in enumerate(rows, start=1)]


def _is_told(items: list[Any], rows: list[Any]) -> None:
    """What came is the beginning of the rows; and if some are missing, a problem says so."""
    came = [item[1] for item in items if not isinstance(item, Problem)]
    assert came == rows[: len(came)]
    assert len(came) == len(rows) or any(isinstance(item, Problem) for item in items)


@pytest.mark.parametrize("packing", sorted(set(PACKINGS) - {"none"}))
@pytest.mark.parametrize("kind", TEXTS)
@given(rows=ROWS, share=st.floats(0, 1))
@settings(parent=WITH_FOLDER, max_examples=8)
def test_a_packed_file_that_ends_early_is_a_problem(
    tmp_path: Path, kind: str, packing: str, rows: list[Any], share: float
) -> None:
    data = PACKINGS[packing](TEXTS[kind](rows))
    items = read(tmp_path / "rows", data[: int(share * (len(data) - 1))])
    assert any(isinstance(item, Problem) for item in items)
    _is_told(items, rows)


@pytest.mark.parametrize("kind", [*TABLES, "list", "indented list", "list in an object"])
@given(rows=ROWS, share=st.floats(0, 1))
@WITH_FOLDER
def test_a_list_or_a_table_that_ends_early_is_a_problem(
    tmp_path: Path, kind: str, rows: list[Any], share: float
) -> None:
    data = (TABLES | TEXTS)[kind](rows)
    items = read(tmp_path / "rows", data[: int(share * (len(data) - 1))])
    assert any(isinstance(item, Problem) for item in items)
    _is_told(items, rows)


@pytest.mark.parametrize("kind", [*TABLES, *TEXTS])
@pytest.mark.parametrize("packing", PACKINGS)
@given(rows=ROWS, place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@example(rows=[{"a": [1.5]}], place=0.0, byte=0)
@settings(parent=WITH_FOLDER, max_examples=5, derandomize=True)
def test_a_damaged_file_never_ends_in_a_traceback(
    tmp_path: Path, kind: str, packing: str, rows: list[Any], place: float, byte: int
) -> None:
    data = bytearray(PACKINGS[packing]((TABLES | TEXTS)[kind](rows)))
    data[int(place * len(data))] = byte
    read(tmp_path / "rows", bytes(data))


def test_a_download_that_was_cut_gives_the_rows_before_the_cut_and_one_problem(tmp_path: Path) -> None:
    rows = [{"query": f"what is {number}", "text": "x" * (number * 7919 % 911)} for number in range(2_000)]
    for packing, pack in PACKINGS.items():
        data = pack(lines(rows))
        items = read(tmp_path / "rows.jsonl", data[: len(data) // 2])
        *came, last = items
        assert all(not isinstance(item, Problem) for item in came)
        assert isinstance(last, Problem)
        if packing not in ("none", "bz2", "xz"):  # these unpack large blocks
            assert len(came) > 500
        if packing != "none":
            assert (last.reason, last.key) == (
                "broken_gzip" if packing == "gzip" else "broken_file",
                f"rows.jsonl:{len(came) + 1}",
            )


def test_a_file_of_another_kind_is_a_problem_that_says_what_it_is(tmp_path: Path) -> None:
    [problem] = read(tmp_path / "rows.jsonl", b"%PDF-1.7 ...")
    assert problem == Problem("rows.jsonl", "not_read", "this is a PDF document; give the texts as JSON lines")


def test_columns_without_names_are_no_objects(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text("q1 Q0 d1 1 0.5 me\nq1 Q0 d2 2 0.4 me\n")
    file = source_file(tmp_path / "run.txt")
    assert file.kind == "columns"
    [problem] = read_objects(file)
    assert isinstance(problem, Problem)
    assert problem.reason == "not_read"


@pytest.mark.parametrize("kind", [*TABLES, *TEXTS])
def test_a_row_over_a_limit_is_rejected_and_the_others_are_read(tmp_path: Path, kind: str) -> None:
    rows = [{"a": "x"}, {"a": "y" * 3_000}, {"a": "z"}]
    first, problem, last = read(tmp_path / "rows", (TABLES | TEXTS)[kind](rows), line_bytes=1_000)
    assert isinstance(problem, Problem)
    assert problem.reason == ("line_too_long" if kind in ("lines", "UTF-16") else "row_too_long")
    assert [first[1], last[1]] == [rows[0], rows[2]]


def test_every_packing_is_read_up_to_the_limit_of_what_it_unpacks_to(tmp_path: Path) -> None:
    rows = [{"a": f"{number:050}"} for number in range(200)]
    for pack in (PACKINGS["bz2"], PACKINGS["xz"], zstd):
        for kind in ("lines", "list"):
            *came, last = read(tmp_path / "rows", pack(TEXTS[kind](rows)), unpacked_bytes=6_000)
            assert isinstance(last, Problem)
            assert last.reason == "too_much_unpacked"
            assert len(came) < 101


def test_what_a_parser_cannot_use_becomes_a_problem_with_its_place() -> None:
    def parse(where: str, value: int) -> int:
        if value > 1:
            raise UnusableError("too_large", f"{value} at {where}")
        return value

    before = Problem("a:1", "x", "y")
    items = parsed(iter([before, ("a:2", 1), ("a:3", 2)]), parse)
    assert list(items) == [before, 1, Problem("a:3", "too_large", "2 at a:3")]
