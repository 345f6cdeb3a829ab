"""Reading one file of a source, or a range of its lines, as a part of its own."""

from pathlib import Path

import pytest

from tasks.data.ingest_config import IngestConfig
from tasks.data.pieces import read
from tasks.data.pieces.read import ReadConfig
from tasks.data.pieces.stored import batch_of_frame
from tasks.lines import ReadLimits
from tests.tasks.data.inputs import row_of, write_lines
from tests.tasks.data.pieces.made import read_file


def test_a_file_becomes_one_frame_for_each_batch_with_what_is_wrong_in_it(tmp_path: Path) -> None:
    rows = [row_of(f"q{number}", f"d{number}", "x") for number in range(1_001)]
    write_lines(tmp_path / "below" / "a.jsonl", *rows, "{broken")
    made = read_file(tmp_path)
    assert made["ranges"].drop("unread", "fields").rows() == [("below/a.jsonl", 0, 1, "whole", None)]
    assert {name for frame in made["read"] for name in frame["file"]} == {"below/a.jsonl"}
    first, second = map(batch_of_frame, made["read"])
    assert (first.rows.height, first.passages.height, first.problems) == (1_000, 2_000, [])
    assert second.rows["query_id"].to_list() == ["q1000"]
    assert [(one.key, one.reason) for one in second.problems] == [("below/a.jsonl:1002", "broken_json")]


def test_ranges_of_a_file_hold_each_line_once_under_its_number_in_the_range(tmp_path: Path) -> None:
    lines = [row_of(f"q{n}", "d1", subset="x" * (n * 37 % 90)) for n in range(30)]
    write_lines(tmp_path / "a.jsonl", *lines[:10], "", *lines[10:], "broken")
    found, fields, before = [], set(), 0
    for number in range(7):
        made = read_file(tmp_path, number=number, count=7)
        assert made["ranges"].drop("unread", "fields", "lines").rows() == [("a.jsonl", number, 7, "range")]
        fields |= {field for some in made["ranges"]["fields"].drop_nulls() for field in some}
        for batch in map(batch_of_frame, made["read"]):
            found += [(before, *row) for row in batch.rows.select("where", "query_id").iter_rows()]
            found += [(before, one.key, one.reason) for one in batch.problems]
        before += made["ranges"]["lines"].sum()
    assert before == 32
    numbers = [lines + int(where.removeprefix("a.jsonl:")) for lines, where, _ in found]
    assert numbers == [*range(1, 11), *range(12, 32), 32]
    assert [said for *_, said in found] == [*(f"q{n}" for n in range(30)), "broken_json"]
    assert fields == {"query_id", "query", "positive_passages", "negative_passages", "subset"}


@pytest.mark.parametrize("content", ["", "%PDF-1.7", "no rows here"], ids=["empty", "another kind", "a text"])
def test_a_file_without_rows_has_no_row_in_any_frame(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    assert all(frame["query"].is_null().all() for frame in read_file(tmp_path)["read"])


def test_what_cannot_be_cut_is_read_by_the_first_part_as_a_whole(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.csv", "query,positive", "x,y", "z,w")
    made = [read_file(tmp_path, number=number, count=3) for number in range(3)]
    assert [one["ranges"]["read"].to_list() for one in made] == [["whole"], [], []]
    assert [len(one["read"]) for one in made] == [1, 0, 0]


def test_what_would_not_fit_into_memory_and_rows_that_are_joined_are_left_to_ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "a.jsonl", *({"anchor": f"q{number}", "positive": "x"} for number in range(9)))
    assert len(read_file(tmp_path)["read"]) == 1
    assert read_file(tmp_path, number=1, count=2)["ranges"].is_empty()
    assert read_file(tmp_path, number=1, count=2)["read"] == []
    write_lines(tmp_path / "a.jsonl", {"anchor": "q", "positive": "x"}, *(row_of(f"q{n}", "d1") for n in range(9)))
    assert read_file(tmp_path, number=1, count=2)["ranges"].is_empty()  # the file's first row has no id
    monkeypatch.setattr(read, "_MOST_BYTES", 100)
    assert read_file(tmp_path)["ranges"].is_empty()


def test_only_what_decides_how_a_file_is_read_is_a_setting_of_the_stage() -> None:
    config = IngestConfig(dataset="d", positive_from=0.5, limits=ReadLimits(rejects=3, depth=9))
    assert config.reading == ReadConfig(positive_from=0.5, limits=ReadLimits(depth=9))
    assert config.reading.options == config.row_options.__class__(positive_from=0.5, limits=ReadLimits(depth=9))
    others = {
        "holdout": 0.3,
        "query_parts": 7,
        "max_chars": 9,
        "dataset": "e",
        "limits": ReadLimits(rejects=4, depth=9),
    }
    assert config.model_copy(update=others).reading == config.reading
    assert IngestConfig(dataset="d", format="tevatron").reading.options.form == "tevatron"
