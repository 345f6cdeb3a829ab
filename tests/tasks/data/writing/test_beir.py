"""BEIR folders: what BEIR's own loader and our reader read is what was written."""

import csv
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.writing.beir import write_beir
from tasks.data.writing.config import ExportConfig
from tests.tasks.data.writing.sets import Row, Texts, generated, training_set

IDS = ['"Heroes"_(song)', "d2", '"open', 'a"b', "\u2028line", "'single'"]


def loaded(folder: Path) -> tuple[dict[str, dict[str, str]], dict[str, str], dict[str, dict[str, int]]]:
    """Read a folder as BEIR's GenericDataLoader does: corpus, queries, qrels."""
    corpus, queries = {}, {}
    with (folder / "corpus.jsonl").open(encoding="utf8") as lines:
        for line in map(json.loads, lines):
            corpus[line.get("_id")] = {"text": line.get("text"), "title": line.get("title")}
    with (folder / "queries.jsonl").open(encoding="utf8") as lines:
        for line in map(json.loads, lines):
            queries[line.get("_id")] = line.get("text")
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    with (folder / "qrels" / "train.tsv").open(encoding="utf-8") as lines:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
        next(reader)
        for query_id, corpus_id, score in reader:
            qrels[query_id][corpus_id] = int(score)
    return corpus, queries, dict(qrels)


def test_ids_that_begin_with_a_quotation_mark_are_read_as_they_are(tmp_path: Path) -> None:
    texts: Texts = {key: ("", f"text of {key}") for key in IDS}
    rows: list[Row] = [("d", '"q1"', IDS[:1], []), ("d", "q2", IDS[1:], [])]
    counts = write_beir(ExportConfig(), tmp_path, training_set(rows, texts=texts))
    corpus, queries, qrels = loaded(tmp_path / "d")
    assert set(corpus) == set(IDS)
    assert set(queries) == {'"q1"', "q2"}
    assert qrels == {'"q1"': {IDS[0]: 1}, "q2": dict.fromkeys(IDS[1:], 1)}
    assert counts == {"documents": 6, "queries": 2, "qrels": 6}


@settings(max_examples=30, deadline=None)
@given(generated(st.just("d")))
def test_whatever_the_ids_are_beirs_loader_reads_them(made: tuple[list[Row], Texts]) -> None:
    rows, texts = made
    with tempfile.TemporaryDirectory() as folder:
        write_beir(ExportConfig(), Path(folder), training_set(rows, texts=texts))
        corpus, queries, qrels = loaded(Path(folder) / "d")
    used = {key for row in rows for key in (*row[2], *row[3])}
    assert corpus == {key: {"title": texts[key][0], "text": texts[key][1]} for key in used}
    assert queries == {row[1]: f"about {row[1]}" for row in rows}
    assert qrels == {row[1]: dict.fromkeys(row[2], 1) for row in rows}


@pytest.mark.parametrize("broken", ["d\t1", "d\n1", "d\r1"])
def test_an_id_with_a_tab_or_a_line_break_is_refused(tmp_path: Path, broken: str) -> None:
    rows: list[Row] = [("d", "q", [broken], [])]
    with pytest.raises(ValueError, match="of d holds a tab or a line break, which beir cannot write"):
        write_beir(ExportConfig(), tmp_path, training_set(rows, texts={broken: ("", "text")}))
