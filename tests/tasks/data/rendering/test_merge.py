"""The merge of lines: the bytes are those that an export writes by itself, however the rows are cut into parts."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.export import export
from tasks.data.rendering.merge import merge_lines
from tasks.data.rendering.render import render, render_config
from tasks.data.writing.config import ExportConfig, Target
from tests.tasks.data.writing.sets import Row, Texts, generated, in_parts, tables

LINES: tuple[Target, ...] = ("flagembedding", "tevatron")


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _rendered(config: ExportConfig, frames: Mapping[str, pl.DataFrame], count: int) -> dict[str, list[pl.DataFrame]]:
    parts = in_parts(frames, count)
    made = [render(config, **{name: parts[name].at(part) for name in parts}) for part in range(count)]
    return {name: [one[name] for one in made] for name in made[0]}


@settings(max_examples=40, deadline=None)
@given(generated(), st.integers(1, 4), st.booleans())
def test_merged_lines_are_the_bytes_of_a_whole_export(made: tuple[list[Row], Texts], count: int, more: bool) -> None:
    rows, texts = made
    frames = tables(rows, texts)
    config = ExportConfig(formats=(*LINES, "datasets") if more else LINES)
    lines = _rendered(render_config(config, LINES), frames, count)
    tallies = pl.concat(lines.pop("tallies"))
    with tempfile.TemporaryDirectory() as folder:
        whole, merged = Path(folder) / "whole", Path(folder) / "merged"
        export(config, **frames, out=whole)
        rendered = config.model_copy(update={"rendered": LINES})
        export(rendered, **lines, tallies=tallies, **(frames if more else {}), out=merged)
        assert _files(merged) == _files(whole)


def test_a_format_without_a_line_has_an_empty_file(tmp_path: Path) -> None:
    assert merge_lines(tmp_path, ("tevatron",), [], []) == {"tevatron": {"rows": 0, "without_negatives": 0}}
    assert _files(tmp_path) == {"tevatron/train.jsonl": b""}


def test_a_row_without_negatives_stands_apart(tmp_path: Path) -> None:
    rows: list[Row] = [("d", "q2", ["d1"], []), ("d", "q1", ["d1"], ["d2"])]
    lines = _rendered(ExportConfig(), tables(rows), 2)
    counts = merge_lines(tmp_path, ("tevatron",), lines["index"], lines["texts"])
    assert counts == {"tevatron": {"rows": 1, "without_negatives": 1}}
    found = {
        name: [json.loads(line)["query_id"] for line in data.splitlines()] for name, data in _files(tmp_path).items()
    }
    assert found == {"tevatron/train.jsonl": ["q1"], "tevatron-without-negatives/train.jsonl": ["q2"]}


@pytest.mark.parametrize("change", ["fewer", "other"])
def test_lines_that_are_not_those_of_the_index_are_refused(tmp_path: Path, change: str) -> None:
    lines = _rendered(ExportConfig(), tables([("d", "q1", ["d1"], ["d2"]), ("d", "q2", ["d1"], ["d3"])]), 1)
    (texts,) = lines["texts"]
    wrong = texts.head(1) if change == "fewer" else texts.with_columns(pl.col("line") + " ")
    with pytest.raises(ValueError, match="rerun render"):
        merge_lines(tmp_path, ("tevatron",), lines["index"], [wrong])


def test_formats_that_are_not_rendered_need_the_tables(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="beir need instances, queries and passages"):
        export(ExportConfig(formats=("beir",)), out=tmp_path)
