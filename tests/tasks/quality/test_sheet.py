"""A filled-in sheet read back: what spreadsheets and people do to it, and that nothing vanishes unseen."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.quality import sheet as sheet_module
from tasks.quality.sheet import Checked, Origin, Pair, SheetError, Shown, check, read_rows, shown_on
from tasks.schemas import HUMAN
from tasks.texts import hash_passage, hash_text
from tests.tasks.quality.pool import build, draw
from tests.tasks.records import mutable_records

ORIGIN = Origin("nq-000001", "ann", "2026-03-01T00:00:00.000000Z")


def sheet_of(tmp_path: Path, size: int = 6, **texts: str) -> tuple[bytes, dict[Pair, Shown]]:
    """Draw a sheet; returns its bytes and what it showed."""
    frames = build(**texts)
    draw(frames, tmp_path, size=size)
    data = (tmp_path / "sheet.csv").read_bytes()
    return data, dict(shown_on(data, frames["candidates"]))


def edited(data: bytes, edit: Any, encoding: str = "utf-8-sig", delimiter: str = ",") -> bytes:
    """Let a person (or a spreadsheet) at the rows."""
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    for number, row in enumerate(rows):
        edit(number, row)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(encoding)


def label_all(number: int, row: dict[str, str]) -> None:
    row["label"] = "relevant"


def reasons(checked: Checked) -> list[str]:
    return checked.rejects["reason"].to_list()


def test_a_sheet_comes_back_as_it_was_given_whatever_its_texts_begin_with(tmp_path: Path) -> None:
    texts = {"text": '=1+{}\nand ＝2, "quoted"', "query": "-what?", "doc": "+n{}"}
    data, shown = sheet_of(tmp_path, **texts)
    assert {pair[2][0] for pair in shown} == {"+"}
    checked = check(read_rows(edited(data, label_all)), shown, ORIGIN)
    assert (checked.labels.height, checked.rejects.height) == (6, 0)
    assert dict(checked.labels.schema) == HUMAN.columns
    assert checked.labels["query_hash"].unique().to_list() == [hash_text("-what?")]
    assert set(checked.labels["text_hash"]) <= {hash_passage("", texts["text"].format(n)) for n in range(60)}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_spreadsheets_delimiter_line_ends_and_dropped_apostrophes_are_forgiven(
    tmp_path: Path, delimiter: str
) -> None:
    data, shown = sheet_of(tmp_path, text="=1+{}\nsecond line")

    def damage(number: int, row: dict[str, str]) -> None:
        row["label"] = "Not relevant "
        row["passage"] = row["passage"].lstrip("'").replace("\n", "\r\n")

    checked = check(read_rows(edited(data, damage, delimiter=delimiter)), shown, ORIGIN)
    assert (checked.labels["label"].to_list(), reasons(checked)) == (["not_relevant"] * 6, [])


def test_blank_labels_are_skipped_and_every_other_row_is_a_label_or_a_reject_with_its_reason(tmp_path: Path) -> None:
    data, shown = sheet_of(tmp_path)

    def fill(number: int, row: dict[str, str]) -> None:
        row["label"] = ["", "relevant", "perhaps", "unsure", "relevant", "relevant"][number]
        if number == 4:
            row["doc_id"] = "1.23E+05"
        if number == 5:
            row["passage"] = "another text, from the row below"

    rows = read_rows(edited(data, fill) + b"d,q\n")
    checked = check(rows, shown, ORIGIN)
    assert checked.blank == 1
    assert checked.labels.height == 2
    assert reasons(checked) == ["unknown_label", "unknown_pair", "other_text", "broken_row"]
    assert checked.rejects["key"].to_list() == ["row 3", "row 5", "row 6", "row 7"]
    assert "numbers" in checked.rejects["detail"][1]


def test_two_labels_of_one_person_for_the_same_texts_are_both_rejected_and_a_repetition_is_counted(
    tmp_path: Path,
) -> None:
    data, shown = sheet_of(tmp_path)
    rows = read_rows(edited(data, label_all))
    other = {**rows[0], "label": "not_relevant"}
    checked = check([*rows, other, dict(rows[1])], shown, ORIGIN)
    assert (checked.labels.height, checked.repeated, reasons(checked)) == (5, 1, ["contradiction"] * 2)
    by_another = {**other, "annotator": "ben"}
    checked = check([*rows, by_another], shown, ORIGIN)
    assert (checked.labels.height, reasons(checked)) == (7, [])


def test_json_lines_may_name_pairs_by_ids_or_by_texts_alone(tmp_path: Path) -> None:
    _, shown = sheet_of(tmp_path)
    pair = next(iter(shown))
    lines: list[object] = [
        {"dataset": pair[0], "query_id": pair[1], "doc_id": pair[2], "label": "relevant", "at": "2026-01-02T03:04:05"},
        {"query": " what ", "passage": "free", "title": "T", "label": "unsure", "annotator": "cy", "comment": "half"},
        {"query": "what", "label": "relevant"},
        {"query": "what", "passage": "free", "label": "relevant", "at": "yesterday"},
        {"query": ["what"], "passage": "free", "label": "relevant"},
        {"query": "what", "passage": "free", "label": "relevant", "at": "9999-12-31T23:59:59-12:00"},
        {"query": "two\u2028lines", "passage": "of\u0085one", "label": "relevant", "annotator": "dee"},
    ]
    data = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + '\n{"broken\n[1]\n'
    checked = check(read_rows(data.encode()), shown, ORIGIN)
    by_text = checked.labels.filter(pl.col("annotator") == "cy").row(0, named=True)
    assert (by_text["query_hash"], by_text["text_hash"]) == (hash_text("what"), hash_passage("T", "free"))
    assert (by_text["comment"], by_text["label"]) == ("half", "unsure")
    assert checked.labels.filter(pl.col("annotator") == "ann")["at"][0].startswith("2026-01-0")
    assert checked.labels.filter(pl.col("annotator") == "dee").height == 1  # what splits lines elsewhere does not here
    assert reasons(checked) == ["no_pair", "wrong_time", "wrong_type", "wrong_time", "broken_row", "broken_row"]


def test_labels_without_a_name_are_rejected_and_not_mixed_up(tmp_path: Path) -> None:
    data, shown = sheet_of(tmp_path)
    checked = check(read_rows(edited(data, label_all)), shown, Origin("nq-000001", "", ORIGIN.at))
    assert (checked.labels.height, set(reasons(checked))) == (0, {"no_annotator"})


def test_a_file_that_is_no_sheet_is_refused_with_what_to_do(tmp_path: Path) -> None:
    data, _ = sheet_of(tmp_path)
    with pytest.raises(SheetError, match=r"UTF-8 expected.*CSV UTF-8"):
        read_rows("Größe,".encode("latin-1") + data)
    with pytest.raises(SheetError, match="columns doc_id, label are missing"):
        read_rows(data.replace(b"doc_id", b"id").replace(b'"label"', b'"Label"'))
    with pytest.raises(SheetError, match="missing"):
        read_rows(b"")


def test_a_passage_longer_than_a_csv_reader_takes_by_itself_is_read(tmp_path: Path) -> None:
    data, _ = sheet_of(tmp_path)
    long = "x" * 200_000
    row = ",".join(long for _ in data.partition(b"\n")[0].split(b","))
    assert read_rows(data.partition(b"\n")[0] + b"\n" + row.encode())[0]["passage"] == long


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(sheet_module) == {"Checked"}


def test_a_row_of_json_lines_that_is_too_long_or_too_deep_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet_module, "_LONGEST_LINE", 40)
    long = '{"query": "' + "x" * 40 + '"}'
    assert read_rows(f'{{"query": "a"}}\n{long}\n{{"query": "b"}}'.encode()) == [{"query": "a"}, {}, {"query": "b"}]
    monkeypatch.undo()
    assert read_rows(('{"a": ' * 100_000 + "\n").encode()) == [{}]
