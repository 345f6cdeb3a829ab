"""Files that were cut, changed or swapped on their way: an error or counted rejects, never a traceback or silence."""

import bz2
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.config.load import load_config
from flows.config.section import ConfigError
from flows.planning.starter import Machine, starter
from flows.planning.survey import survey
from tasks.data.reading.records import IngestError
from tasks.quality.gold_set import GoldConfig, GoldError, read_gold
from tasks.quality.sheet import Origin, SheetError, check, read_rows
from tests.trips.data import quick
from tests.trips.method import take_in

ROWS = 6
_CORPUS_ROWS = [{"_id": f"d{n}", "title": f"Title {n}", "text": f"text number {n}"} for n in range(ROWS)]
_QUERIES = [{"_id": f"q{n}", "text": f"what is number {n}"} for n in range(ROWS)]


def _lines(rows: list[Any]) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def _passage(n: int, side: str) -> dict[str, str]:
    return {"docid": f"{side}{n}", "title": "", "text": f"{side} number {n} é"}


TEVATRON = _lines(
    [
        {
            "query_id": f"q{n}",
            "query": f"what is number {n}",
            "positive_passages": [_passage(n, "right")],
            "negative_passages": [_passage(n, "wrong")],
        }
        for n in range(ROWS)
    ]
)
FLAG = _lines(
    [
        {"query": f"what is {n}", "pos": [f"right {n}"], "neg": [f"wrong {n}", "bus"], "neg_scores": [0.5, 0.25]}
        for n in range(ROWS)
    ]
)
_QRELS = "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(ROWS))
BEIR = {"corpus.jsonl": _lines(_CORPUS_ROWS), "queries.jsonl": _lines(_QUERIES), "qrels/train.tsv": _QRELS.encode()}
PAIRS = pl.DataFrame(
    {
        "anchor": [f"what is {n}" for n in range(ROWS)],
        "positive": [f'right, "{n}"' for n in range(ROWS)],
        "negative": [f"wrong {n}" for n in range(ROWS)],
    }
)


def _table(write: Callable[[IO[bytes]], object]) -> bytes:
    """Give the bytes of a table in one of polars' formats."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


_NESTED = pl.DataFrame([json.loads(line) for line in TEVATRON.splitlines()])
# A folder by name: its files, of which the first is damaged.
FOLDERS: Mapping[str, Mapping[str, bytes]] = {
    "tevatron": {"x.jsonl": TEVATRON},
    "flagembedding": {"x.jsonl": FLAG},
    "gzip": {"x.jsonl.gz": gzip.compress(TEVATRON, mtime=0)},
    "bzip2": {"x.jsonl.bz2": bz2.compress(FLAG)},
    "xz": {"x.jsonl.xz": lzma.compress(TEVATRON)},
    "two shards": {
        "a.jsonl.gz": gzip.compress(TEVATRON, mtime=0),
        "b.jsonl": TEVATRON.replace(b': "q', b': "r').replace(b"what", b"who"),
    },
    "utf-16": {"x.jsonl": TEVATRON.decode().encode("utf-16")},
    "parquet": {"x.parquet": _table(_NESTED.write_parquet)},
    "arrow": {"x.arrow": _table(PAIRS.write_ipc)},
    "arrow stream": {"x.arrow": _table(_NESTED.write_ipc_stream)},
    "csv": {"x.csv": _table(PAIRS.write_csv)},
    "tsv": {"x.tsv": _table(lambda file: PAIRS.write_csv(file, separator="\t"))},
    "list": {"x.json": json.dumps(PAIRS.to_dicts(), indent=1).encode()},
    "zstd": {"x.jsonl.zst": pa.compress(FLAG, codec="zstd", asbytes=True)},
    "corpus": BEIR,
    "queries": {"queries.jsonl": BEIR["queries.jsonl"], **BEIR},
    "qrels": {"qrels/train.tsv": BEIR["qrels/train.tsv"], **BEIR},
}
PACKED = ("gzip", "bzip2", "xz", "zstd", "two shards", "parquet", "arrow", "arrow stream")


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Cut a file, overwrite, insert, remove or repeat a piece of it, or put something else in its place."""
    begin = draw(st.integers(0, len(data)))
    end = min(len(data), begin + draw(st.integers(1, 40)))
    piece = draw(
        st.binary(max_size=8) | st.sampled_from([b"\n", b"\x00", b"\xff\xfe", b'"', b"\t", b"NaN", b"{}", b"[" * 99])
    )
    return draw(
        st.sampled_from(
            [
                data[:begin],
                data[begin:],
                data[:begin] + piece + data[end:],
                data[:begin] + piece + data[begin:],
                data[:begin] + data[begin:end] * 3 + data[end:],
                piece,
                gzip.compress(data, mtime=0)[: begin + 1],
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
                b"<!DOCTYPE html><html>404</html>",
            ]
        )
    )


def files_into(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_damaged_source_gives_an_error_or_rejects(name: str) -> None:
    files = FOLDERS[name]
    first = next(iter(files))

    @given(damaged(files[first]))
    @quick
    def try_one(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="reneg-damaged-") as folder:
            files_into(Path(folder), {**files, first: data})
            try:
                out = take_in(Path(folder), test_split=None)
            except IngestError as error:
                assert str(error)
                assert len(str(error)) < 3_000
                return
            is_cut_at_a_line = name not in PACKED and set(data.split(b"\n")) <= {*files[first].split(b"\n"), b""}
            # A line of CSV that lost its end is a whole row still.
            is_cut_at_a_line |= name in ("csv", "tsv") and data.count(b"\n") < files[first].count(b"\n")
            complete = ROWS <= out["queries"].height <= out["positives"].height
            assert complete or out["rejects"].height or is_cut_at_a_line or data == b""

    try_one()


@pytest.mark.parametrize("name", [name for name in PACKED if name != "two shards"])
def test_a_download_that_ends_early_is_never_taken_for_a_whole_one(name: str, tmp_path: Path) -> None:
    ((file, data),) = FOLDERS[name].items()
    for cut in range(1, len(data), 7):
        (tmp_path / file).write_bytes(data[:cut])
        try:
            out = take_in(tmp_path)
        except IngestError:
            continue
        assert out["rejects"].height, cut


@pytest.mark.parametrize("name", ["tevatron", "parquet", "csv", "qrels"])
def test_a_first_configuration_of_a_damaged_source_can_be_read_if_there_is_one(name: str) -> None:
    files = FOLDERS[name]
    first = next(iter(files))

    @given(damaged(files[first]))
    @settings(quick, max_examples=6)
    def try_one(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="reneg-damaged-") as folder:
            files_into(Path(folder) / "in", {**files, first: data})
            try:
                found = survey(Path(folder) / "in")
            except ConfigError:
                return
            path = Path(folder) / "my.yaml"
            path.write_text(starter(found, "mine", "in", Machine(2**34)), encoding="utf-8")
            assert load_config(path).source.path == f"{folder}/in"

    try_one()


GOLD = _lines(
    [
        {"query": f"what is {n}", "positives": [f"right {n}"], "passage": f"other {n}", "label": "relevant"}
        for n in range(ROWS)
    ]
)


@given(damaged(GOLD) | damaged(gzip.compress(GOLD, mtime=0)))
@quick
def test_a_damaged_gold_set_gives_an_error_or_rejects(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="reneg-damaged-") as folder:
        files_into(Path(folder), {"gold.jsonl": data})
        try:
            out = read_gold(GoldConfig(), source=Path(folder))
        except GoldError as error:
            assert "gold: no usable row" in str(error)
            return
        assert (
            out["gold"].height == ROWS or out["rejects"].height or set(data.split(b"\n")) <= {*GOLD.split(b"\n"), b""}
        )


SHEET = "dataset,query_id,doc_id,query,passage,label\n" + "".join(
    f'd,q{n},d{n},what is {n},"it, is {n}",relevant\n' for n in range(ROWS)
)
SHEETS = {
    "commas": SHEET.encode("utf-8-sig"),
    "tabs": SHEET.replace("it, is", "it is").replace(",", "\t").encode(),
    "lines": _lines([{"query": f"what is {n}", "passage": f"it is {n}", "label": "relevant"} for n in range(ROWS)]),
}


@pytest.mark.parametrize("name", SHEETS)
def test_a_damaged_sheet_gives_an_error_or_rejects(name: str) -> None:
    @given(damaged(SHEETS[name]))
    @quick
    def try_one(data: bytes) -> None:
        try:
            rows = read_rows(data)
        except SheetError as error:
            assert len(str(error)) < 1_000
            return
        made = check(rows, {}, Origin("c", "me", "2026-01-01T00:00:00.000000Z"))
        assert made.labels.height + made.blank + made.repeated + made.rejects.height == len(rows)

    try_one()


CONFIG = b"""# A configuration
name: mine
source: {path: rows.jsonl}
nightly: {cron: "30 2 * * *", end_by: "07:00"}
mine: {depth: 60, relative_margin: 0.05}
tiers:
  - name: strong
    engine: {kind: openai, model: m-1, base_url: "http://127.0.0.1:1/v1"}
treatments: [default, relabel]
policies: {nq: {skip: true}}
"""


@given(damaged(CONFIG))
@quick
def test_a_damaged_configuration_is_read_or_refused_line_by_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="reneg-damaged-") as folder:
        path = Path(folder) / "my.yaml"
        path.write_bytes(data)
        try:
            load_config(path)
        except ConfigError as error:
            assert all(line.startswith(f"{path}: ") for line in str(error).splitlines())


def test_the_undamaged_files_are_read_whole(tmp_path: Path) -> None:
    for number, (name, files) in enumerate(FOLDERS.items()):
        files_into(tmp_path / str(number), files)
        out = take_in(tmp_path / str(number), test_split=None)
        expected = 2 * ROWS if name == "two shards" else ROWS
        assert (out["queries"].height, out["positives"].height) == (expected, expected), name
        lost = out["rejects"].filter(~pl.col("reason").is_in(["metadata", "duplicate_text"]))
        assert lost.height == 0 or name == "two shards", name
