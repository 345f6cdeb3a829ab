"""The kind of a file is told by its content, and a file that is no data is named with what to do."""

import gzip
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from tasks.data.containers.kinds import NotReadableError, SourceFile, delimiter_of, source_file, wrapped_list
from tests.tasks.data.containers.written import PACKINGS, TABLES, TEXTS

ROWS = [{"query": "q", "pos": ["a"]}, {"query": "r", "pos": ["b"]}]
PASSAGES = {"query_id": "q", "positive_passages": [{"docid": "d", "text": "t"}]}


def kind(tmp_path: Path, data: bytes | str, name: str = "file") -> str:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return source_file(path).kind


@pytest.mark.parametrize("ending", ["", ".txt", ".jsonl", ".json", ".csv", ".parquet"])
def test_the_content_decides_and_not_the_ending(tmp_path: Path, ending: str) -> None:
    for name, write in TEXTS.items():
        for packing, pack in PACKINGS.items():
            (tmp_path / f"a{ending}").write_bytes(pack(write(ROWS)))
            wanted = "lines" if name in ("lines", "UTF-16") else "json"
            found = source_file(tmp_path / f"a{ending}", "more/a")
            assert found == SourceFile(tmp_path / f"a{ending}", "more/a", wanted, packing)  # type: ignore[arg-type]
    for name, write in TABLES.items():
        assert kind(tmp_path, write(ROWS), f"a{ending}") == name.split()[0].lower()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (json.dumps(PASSAGES), "lines"),
        (json.dumps(PASSAGES) + "\n" + json.dumps(PASSAGES), "lines"),
        (json.dumps(PASSAGES, indent=2), "json"),
        (json.dumps({"version": 1, "data": [PASSAGES]}), "json"),
        (json.dumps({"version": {"data": [{}]}, "data": [PASSAGES]}, indent=1), "json"),
        ('{"query": "cut in\n' + json.dumps(PASSAGES) + "\n", "lines"),
        ('{"data": [' + ", ".join([json.dumps(PASSAGES)] * 2_000), "json"),
        ('{"text": "' + "x" * 100_000 + '"}', "lines"),
        ('{"a": ', "lines"),
        ("\n\n  [\n", "json"),
        ("", "lines"),
        (" \n", "lines"),
        ("query,answer\nwhat is it,\"a, b\"\n", "csv"),
        ("query;answer\nwhat is it;a\n", "csv"),
        ("q1,d1,1\nq1,d2,0\n", "csv"),
        ("query\tanswer\nwhat is it\ta\n", "tsv"),
        ("q1\td1\t1\n", "tsv"),
        ("q1 0 d1 1\nq1 0 d2 0\n", "columns"),
        ("query-id corpus-id score\nq1 d1 1\n", "columns"),
        ("q1 Q0 d1 1 0.5 me\n", "columns"),
        ("no JSON, then\n{}\n", "lines"),
    ],
)  # fmt: skip
def test_texts_are_told_apart(tmp_path: Path, text: str, wanted: str) -> None:
    assert kind(tmp_path, text) == wanted


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "Git LFS pointer.*run `git lfs pull`"),
        (b"/annex/objects/SHA256E-s5--ab.jsonl\n", "git-annex pointer.*`git annex get`"),
        (b"\n<!DOCTYPE html><html>", "an HTML page"),
        (b"<?xml version='1.0'?><rows/>", "XML"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (b"\x80\x04\x95", "a Python pickle, which can run programs"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x89PNG\r\n", "an image"),
        (b"\x04\x22\x4d\x18abc", "packed with lz4"),
        (b"a\0b", "a binary file of an unknown kind"),
        (b"Some prose.\nMore of it.\n", "a text that is neither JSON nor a table.*It begins with 'Some prose"),
        (gzip.compress(TABLES["parquet"](ROWS), mtime=0), "packed with gzip as a whole; unpack it"),
        (gzip.compress(b"%PDF-1.7\n", mtime=0), "a PDF document"),
        (b"PK\x03\x04....xl/workbook.xml", "an Excel workbook; save the table as CSV"),
        (b"PK\x03\x04....word/document.xml", "a Word document"),
        (b"PK\x03\x04....archive/data.pkl", "a PyTorch checkpoint"),
    ],
)
def test_what_is_no_data_is_named_with_what_to_do(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(NotReadableError, match=says):
        kind(tmp_path, data)


def test_archives_are_named_with_the_address_that_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.write(tmp_path / "a.jsonl", "a.jsonl")
    for name, mode in (("rows.tar", "w"), ("rows.tar.gz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as tar:  # type: ignore[call-overload]
            tar.add(tmp_path / "a.jsonl", "a.jsonl")
        with pytest.raises(NotReadableError, match=r"a tar archive; .* source\.path to tar://::") as tarred:
            source_file(tmp_path / name)
        assert tarred.value.archive == "tar"
    with pytest.raises(NotReadableError, match=r"a zip archive; .* source\.path to zip://::") as zipped:
        source_file(tmp_path / "rows.zip")
    assert zipped.value.archive == "zip"


def test_a_text_in_another_encoding_keeps_its_kind(tmp_path: Path) -> None:
    assert kind(tmp_path, '{"query": "é"}\n'.encode("latin-1")) == "lines"
    assert kind(tmp_path, "\ufeff[{}]") == "json"
    assert kind(tmp_path, "query,answer\na,b\n".encode("utf-16")) == "csv"


def test_a_packed_file_that_is_cut_keeps_the_kind_of_what_can_be_read(tmp_path: Path) -> None:
    for packing in ("gzip", "zstd"):
        rows = [{"query": f"{number * 2654435761 % 2**32}"} for number in range(20_000)]
        data = PACKINGS[packing](TEXTS["list"](rows))
        assert kind(tmp_path, data[: len(data) // 2]) == "json"
        assert kind(tmp_path, data[:8]) == "lines"


def test_only_a_list_at_the_top_of_an_object_wraps_rows() -> None:
    assert wrapped_list(b'{"a": "\\"data\\": [{", "rows": [{"x": 1}]}') == "rows"
    assert wrapped_list(b'{"a": {"data": [{"x": 1}]}}') is None
    assert wrapped_list(b'{"data": ["x"]}') is None


def test_the_separator_of_a_header_is_the_commonest() -> None:
    assert [delimiter_of(header) for header in ("a\tb,c", "a,b", "a;b;c,d")] == ["\t", ",", ";"]
