"""Rows of every awkward kind are written in each format and read back: ids, order, texts and scores are the same."""

import csv
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tasks.data.export import ExportConfig, export
from tasks.data.reading.records import IngestError, Passage, Query
from tasks.data.reading.source import CorpusSource, RowSource, open_source
from tasks.data.writing.files import alone_folder
from tasks.texts import clean, hash_text
from tests.trips.data import Doc, Made, evidence_of, quick, rows_made, scored_rows, tables_of

Shown = tuple[str, list[str], list[str]]  # a query, and its positives and negatives as a trainer reads them


def trip(rows: Sequence[Made], form: str, read: Any, more: Mapping[str, Any] | None = None, **config: object) -> Any:
    """Write rows in one format, with further tables, and return what `read` makes of the folder."""
    with tempfile.TemporaryDirectory(prefix="reneg-trip-") as folder:
        asked, out = ExportConfig.model_validate({"formats": [form], **config}), Path(folder)
        export(asked, **tables_of(rows), **(more or {}), out=out)
        return read(out / form)


@dataclass
class Read:
    """A row that was read."""

    dataset: str | None
    query_id: str
    query: str
    positives: list[Doc] = field(default_factory=list)
    negatives: list[Doc] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    extras: dict[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> Shown:
        return self.query, [clean(d.shown) for d in self.positives], [clean(d.shown) for d in self.negatives]


def rows_in(folder: Path) -> list[Read]:
    """Read training rows, with those that stand apart because they have no negatives; nothing may be left out."""
    return [row for place in (folder, alone_folder(folder)) if place.exists() for row in _rows_of(place)]


def _rows_of(folder: Path) -> list[Read]:
    try:
        source = open_source(folder)
    except IngestError:  # no row at all
        return []
    assert isinstance(source, RowSource)
    found = []
    for batch in source.batches():
        assert [problem for problem in batch.problems if problem.reason not in ("metadata", "empty_file")] == []
        rows = [Read(*row) for row in batch.rows.select("dataset", "query_id", "query").iter_rows()]
        passages = batch.passages.select("row", "positive", "doc_id", "title", "text", "score")
        for number, positive, *doc, score in passages.iter_rows():
            (rows[number].positives if positive else rows[number].negatives).append(Doc(*doc))
            rows[number].scores.append(score)
        for number, name, value in batch.extras.select("row", "name", "value").iter_rows():
            rows[number].extras[name] = value
        found += rows
    return found


def in_files(rows: Sequence[Made]) -> list[Made]:
    """Give rows in the order of their files: those without negatives come last."""
    return sorted(rows, key=lambda row: not row.negatives)


@given(rows_made())
@quick
def test_tevatron_rows_come_back_whole(rows: list[Made]) -> None:
    for form in ("tevatron", "datasets"):
        found = trip(rows, form, rows_in)
        assert [(r.dataset, r.query_id, r.query, r.positives, r.negatives) for r in found] == [
            (r.dataset, r.query_id, r.query, [*r.positives], [*r.negatives]) for r in in_files(rows)
        ]


@given(scored_rows())
@quick
def test_flagembedding_rows_come_back_as_they_are_shown_with_scores_and_further_fields(made: Any) -> None:
    rows, scores, extras = made
    found = trip(rows, "flagembedding", rows_in, evidence_of(scores, extras))
    assert [row.shown for row in found] == [shown(row) for row in in_files(rows)]
    assert [row.query_id for row in found] == [hash_text(row.query) for row in in_files(rows)]
    wanted = [[scores.get((row.dataset, row.query_id, d.doc_id)) for d in row.docs] for row in in_files(rows)]
    assert [row.scores for row in found] == wanted
    for row, read in zip(in_files(rows), found, strict=True):
        fields = {name: extras.get((row.dataset, row.query_id, name)) for name in ("prompt", "type")}
        assert read.extras == {name: value for name, value in fields.items() if value}


def shown(row: Made, negatives: int | None = None) -> Shown:
    """Show a row, with the first so many negatives."""
    sides = (row.positives, row.negatives if negatives is None else row.negatives[:negatives])
    positives, others = ([clean(d.shown) for d in side] for side in sides)
    return row.query, positives, others


def joined(rows: Iterable[Shown]) -> list[Shown]:
    """Join rows of one query that follow each other, as files without ids hold them; each text once on a side."""
    made = []
    for query, group in groupby(rows, key=lambda row: row[0]):
        positives, negatives = (
            [*dict.fromkeys(chain(*side))] for side in zip(*(row[1:] for row in group), strict=True)
        )
        made.append((query, positives, negatives))
    return made


SHAPES: dict[str, dict[str, str]] = {
    "n-tuple": {"short": "pad"},
    "n-tuple with nulls": {"short": "keep"},
    "triplet": {},
    "pair": {},
    "labeled-pair": {},
    "labeled-list": {},
}


@pytest.mark.parametrize("file_type", ["parquet", "jsonl"])
@pytest.mark.parametrize("name", SHAPES)
def test_rows_of_sentence_transformers_come_back_as_they_are_shown(name: str, file_type: str) -> None:
    shape, most = name.partition(" ")[0], 2

    @given(rows_made())
    @settings(quick, max_examples=10)
    def try_one(rows: list[Made]) -> None:
        config = {"shape": shape, "file_type": file_type, "num_negatives": most, **SHAPES[name]}
        found = trip(rows, "sentence-transformers", rows_in, **config)
        kept = [row for row in rows if row.negatives or shape != "labeled-list"]
        if shape in ("n-tuple", "triplet") and config.get("short") != "keep":
            kept = in_files(kept)  # rows without negatives are in a file of their own
        expected = [shown(row, 0 if shape == "pair" else most) for row in kept]
        assert joined(row.shown for row in found) == joined(expected)

    try_one()


def collections_in(folder: Path) -> list[tuple[dict[str, tuple[str, str]], dict[str, str], set[tuple[str, str]]]]:
    """Read the BEIR folders below a folder, as documents, queries and pairs; nothing may be left out."""
    found = []
    for place in folder.iterdir():
        source = open_source(place)
        assert isinstance(source, CorpusSource)
        documents, queries = [*source.documents()], [*source.queries()]
        assert all(isinstance(item, Passage) for item in documents)
        assert all(isinstance(item, Query) for item in queries)
        judged = [*source.judgements("train")]
        pairs = {(item.query_id, item.doc_id) for item in judged if item.relevance == 1}
        assert len(pairs) == len(judged)
        with (place / "qrels" / "train.tsv").open(encoding="utf-8", newline="") as file:  # as BEIR's own loader reads
            _, *lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
        assert {(line[0], line[1]) for line in lines} == pairs
        texts = {item.doc_id: (item.title, item.text) for item in documents}
        found.append((texts, {item.query_id: item.text for item in queries}, pairs))
    return sorted(found, key=_by_ids)


def _by_ids(collection: tuple[dict[str, Any], dict[str, Any], Any]) -> list[str]:
    return [*sorted(collection[0]), *sorted(collection[1])]


@given(rows_made())
@quick
def test_beir_collections_come_back_whole(rows: list[Made]) -> None:
    expected = []
    for dataset in {row.dataset for row in rows}:
        own = [row for row in rows if row.dataset == dataset]
        docs = {d.doc_id: (d.title, d.text) for row in own for d in row.docs}
        pairs = {(row.query_id, d.doc_id) for row in own for d in row.positives}
        expected.append((docs, {row.query_id: row.query for row in own}, pairs))
    assert trip(rows, "beir", collections_in) == sorted(expected, key=_by_ids)


def judged_in(folder: Path) -> set[tuple[str, ...]]:
    """Read qrels as trec_eval does: columns between white space."""
    return {tuple(line.split()) for path in folder.iterdir() for line in path.read_text("utf-8").splitlines()}


@given(rows_made())
@quick
def test_trec_qrels_hold_each_pair_or_the_id_that_they_cannot_hold_is_named(rows: list[Made]) -> None:
    ids = [key for row in rows for key in (row.query_id, *(d.doc_id for d in row.docs))]
    if any(key.split() != [key] for key in ids):
        with pytest.raises(ValueError, match="holds spaces, which trec cannot write"):
            trip(rows, "trec", judged_in)
        return
    sides = [
        (row, d, grade) for row in rows for grade, side in (("1", row.positives), ("0", row.negatives)) for d in side
    ]
    assert trip(rows, "trec", judged_in) == {(row.query_id, "0", d.doc_id, grade) for row, d, grade in sides}


def test_a_summary_counts_what_was_written(tmp_path: Path) -> None:
    rows = [Made("d", "q", "what", [Doc("a", "", "x")], [])]
    export(ExportConfig(formats=("tevatron", "flagembedding")), **tables_of(rows), out=tmp_path)
    summary = json.loads((tmp_path / "export.json").read_text(encoding="utf-8"))
    assert (summary["instances"], summary["without_negatives"], summary["datasets"]) == (1, 1, {"d": 1})
