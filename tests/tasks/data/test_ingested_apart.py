"""Ingest of files that were read apart: each output is equal to the byte to that of ingest which reads them itself."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.data.ingest import IngestConfig, IngestError, ingest
from tests.tasks.data.containers.written import arrow, parquet
from tests.tasks.data.inputs import PLACES, TABLES, Tables, row_of, write_beir, write_lines
from tests.tasks.data.pieces.made import read_apart


def rows_in_two_files(folder: Path) -> None:
    """Conflicts, repeated queries and texts, long texts and broken lines, in each file and across both."""
    first = [row_of("q1", "d1 d2", "d3 d4=of"), row_of("q2", "d1=other", "d5"), "{broken", row_of("q1", "d9=more")]
    write_lines(folder / "a.jsonl", *first, row_of("q3", f"d6={'long' * 9}", "d7 d7"), row_of("q4", ""))
    second = [row_of("q5", "d1", "d5=else"), row_of("q1", "d1", query="other"), row_of("q6", "d8=of", score=3)]
    write_lines(folder / "b.jsonl", *second, row_of("q7", "d10", subset="other"), '"no row"')


def rows_by_column(folder: Path) -> None:
    rows = [row_of(f"q{n}", f"d{n} d{n + 1}", f"d{n + 2} d{n + 3}", subset=f"s{n % 2}") for n in range(40)]
    rows[7]["query"], rows[9]["negative_passages"], rows[11]["positive_passages"] = None, [None], []
    (folder / "a.parquet").write_bytes(parquet(rows[:25]))
    (folder / "b.arrow").write_bytes(arrow(rows[20:], stream=True))


def many_rows(folder: Path) -> None:
    """More than one batch in the first file; the second batch has a problem, and rows with conflicts around it."""
    lines: list[object] = [row_of(f"q{n}", f"d{n}=t{n % 400}", f"d{n + 1}=t{n}") for n in range(1_300)]
    lines[1_150], lines[1_050], lines[1_250] = "broken", row_of("q3", "d5", query="another"), row_of("q9", "d1=new")
    write_lines(folder / "a.jsonl", *lines)
    write_lines(folder / "b.jsonl", *lines[900:])


def triplets(folder: Path) -> None:
    lines = [{"anchor": f"a{n // 3}", "positive": f"p{n}", "negative": f"n{n % 4}"} for n in range(12)]
    write_lines(folder / "a.jsonl", *lines[:7])
    write_lines(folder / "b.jsonl", *lines[7:], {"anchor": "a0", "positive": "p0", "negative": ""})


def labelled(folder: Path) -> None:
    write_lines(folder / "a.jsonl", *({"query": f"q{n // 2}", "document": f"t{n}", "label": n % 2} for n in range(8)))
    write_lines(folder / "b.jsonl", {"query": "q9", "docs": ["x", "y"], "labels": [0, 1]})


def scored(folder: Path) -> None:
    flag = {"query": "x", "pos": ["p"], "neg": ["c", "b", "c"], "neg_scores": [3, 2.5, None], "prompt": "say"}
    write_lines(folder / "a.jsonl", flag, flag | {"query": "y", "pos_scores": [1], "type": "t", "neg": []})
    (folder / "b.json").write_text(json.dumps([flag | {"query": "z", "unread": 1}]))


def numbered_passages(folder: Path) -> None:
    """Passages are numbered within each row; and the queries of the second file repeat the ids of the first."""
    for name in ("a", "b"):
        texts = [[{"docid": str(n), "text": f"{name} {q} {n}"} for n in range(3)] for q in range(4)]
        rows = [row_of(f"q{q}", "", query=f"{name}{q}", positive_passages=texts[q]) for q in range(4)]
        write_lines(folder / f"{name}.jsonl", *rows)


def ids_of_each_file(folder: Path) -> None:
    for name in ("a", "b", "c"):
        write_lines(folder / f"{name}.jsonl", *(row_of(f"{name}{q}", f"doc{q}={name}{q}") for q in range(4)))


def splits(folder: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00003", "test", "validation", "extra"):
        write_lines(folder / "data" / f"{name}.jsonl", row_of(f"q-{name}", f"d-{name}", "d1 d2"))
    (folder / "README.md").write_text("what this is")
    (folder / "picture.png").write_bytes(b"\x89PNG")


def tables_and_packings(folder: Path) -> None:
    (folder / "a.csv").write_text("query,positive,negative\nx,y,z\nx,y2,z\nv,w,\nlost\n")
    rows = [row_of("q1", "d1", "d2"), row_of("q2", "d3")]
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    (folder / "c.jsonl.gz").write_bytes((folder / "b.jsonl.gz").read_bytes()[:-20])
    (folder / "d.jsonl").write_bytes("".join(json.dumps(row_of("q3", "d9")) + "\n" for _ in "ab").encode("utf-16"))
    (folder / "e.jsonl").write_text(json.dumps(row_of("q4", "d4")) + '\n{"query_id": "q5", "que')


def corpus(folder: Path) -> None:
    write_beir(
        folder, {f"d{n}": f"text {n // 2}" for n in range(8)}, {"q1": "one", "q2": "two"}, train="q1 d1 1, q2 d9 1"
    )


def references(folder: Path) -> None:
    write_lines(folder / "corpus.jsonl", *({"docid": f"d{n}", "title": "", "text": f"text {n}"} for n in range(4)))
    row = {"query_id": "q1", "query_text": "one", "positive_document_ids": ["d1"], "negative_document_ids": ["d2"]}
    write_lines(folder / "train.jsonl", row)


LAYOUTS: list[Callable[[Path], None]] = [
    rows_in_two_files, rows_by_column, many_rows, triplets, labelled, scored, numbered_passages, ids_of_each_file,
    splits, tables_and_packings, corpus, references,
]  # fmt: skip


def made(source: Path, before: Tables | None, read: dict[str, Any] | None = None, **config: object) -> Tables:
    """Run ingest, after an earlier one if it is given, and return the bytes of each table, part by part."""
    said = {} if before is None else {name: pl.concat(before[name]) for name in PLACES}
    out = ingest(IngestConfig.model_validate({"dataset": "d"} | config), source=source, **(read or {}), **said)
    frames = {name: [out[name]] if isinstance(out[name], pl.DataFrame) else list(out[name]) for name in TABLES}
    return {**frames, "facts": out["facts"]}


def assert_same(source: Path, scratch: Path, before: Tables | None = None, count: int = 1, **config: Any) -> Tables:
    """Check that files which were read apart, each in so many ranges, change no output; returns the outputs."""
    whole = made(source, before, **config)
    settings = IngestConfig.model_validate({"dataset": "d"} | config)
    found = made(source, before, read_apart(source, scratch, settings, count), **config)
    facts = dict(found["facts"])
    apart = facts.pop("files_read_apart", 0)
    assert facts == whole["facts"]
    assert list(facts) == list(whole["facts"])
    for name in TABLES:
        assert len(found[name]) == len(whole[name])
        for one, other in zip(found[name], whole[name], strict=True):
            assert one.schema == other.schema
            assert one.equals(other)
    return {**whole, "apart": apart}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_the_same_tables_and_facts_and_so_does_what_it_grows_by(
    tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    layout(source)
    settings: dict[str, Any] = {"max_chars": 30, "holdout": 0.2, "test_split": None}
    first = assert_same(source, tmp_path / "first", **settings)
    assert (first["apart"] > 0) == (layout not in (corpus, references))
    write_lines(source / "data" / "more.jsonl", *(row_of(f"new{n}", f"n{n}", "d1 d2=other") for n in range(9)))
    later = assert_same(source, tmp_path / "later", first, count=3, **settings)
    grown = later["facts"]["query_generations"] != first["facts"]["query_generations"]
    assert grown == (later["apart"] > 0) == (layout not in (corpus, references))


@pytest.mark.parametrize(
    "settings",
    [{"limits": {"rejects": 2}}, {"limits": {"passages": 2}}, {"fields": {"query": "asked"}}, {"format": "tevatron"},
     {"query_parts": 3, "passage_parts": 2}, {"subset": {"rows": 3}}],
    ids=str,
)  # fmt: skip
def test_settings_of_the_reader_mean_the_same_in_files_that_are_read_apart(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows_in_two_files(source)
    write_lines(source / "c.jsonl", {"asked": "x", "pos": ["y"], "neg": ["z", "v", "w"]})
    assert_same(source, tmp_path / "apart", count=2, **settings)


def test_a_file_that_was_not_read_apart_is_read_by_ingest_between_the_others(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a", "b", "c"):
        write_lines(source / f"{name}.jsonl", *(row_of(f"{name}{n}", f"d{n} {name}", "d1=x") for n in range(3)))
    whole = made(source, None)
    read = read_apart(source, tmp_path / "apart", IngestConfig(dataset="d"), 2)
    for missing in ("a", "b", "c"):
        found = made(source, None, read | {"ranges": read["ranges"].filter(pl.col("file") != f"{missing}.jsonl")})
        assert found["facts"].pop("files_read_apart") == 2
        assert found["facts"] == whole["facts"]
        assert all(one.equals(other) for name in TABLES for one, other in zip(found[name], whole[name], strict=True))


def test_a_source_without_a_usable_row_is_refused_alike(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_lines(source / "a.jsonl", row_of("q1", ""), "broken")
    said = []
    for read in (None, read_apart(source, tmp_path / "apart", IngestConfig(dataset="d"))):
        with pytest.raises(IngestError) as refused:
            made(source, None, read)
        said.append(str(refused.value))
    assert said[0] == said[1]
