"""Read evaluation sets: their queries, and the passages that are relevant to them.

A set is a BEIR folder, a folder or file of rows in any layout that ingest reads, or files of queries or texts: `.txt`
with one text a line, or objects (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`) with a `query`, `question` or `text`.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tasks.data.layouts.fields import QUERY, QUERY_ID, TITLE
from tasks.data.reading.files import list_files
from tasks.data.reading.objects import read_objects
from tasks.data.reading.records import IngestError
from tasks.data.reading.source import CorpusSource, RowSource, open_source
from tasks.guards.config import EvaluationConfig
from tasks.guards.sketches import bucket_keys, plain, shingle
from tasks.guards.tables import EVALUATION, count_figures
from tasks.lines import Problem, ReadLimits, read_lines
from tasks.texts import clean, hash_text, show_passage

CONTAMINATION = "contamination"
QUERY_KIND, PASSAGE_KIND = "query", "passage"
_LIMITS = ReadLimits()
_TRAIN, _TEST = "train", "test"
_TEXTS = ("text", "contents", "content", "body", "passage", "document")
Texts = Iterator[tuple[str, str, str]]  # kind, id, text


class EvaluationError(ValueError):
    """An evaluation set cannot be used."""


def read_evaluation(config: EvaluationConfig, *, source: Path) -> dict[str, pl.DataFrame]:
    """Read the evaluation sets, each from its folder `0`, `1`, … below `source`.

    Returns:
        evaluation: their texts; a text that stands twice in a set, under one id. figures: `queries` and `passages`.

    Raises:
        EvaluationError: a set holds no text, or is judged for training only.
    """
    sets = [_texts_of_set(name, source / str(number)) for number, name in enumerate(config.sets)]
    rows = pl.concat(sets) if sets else _frame("", [])
    bands = bucket_keys(shingle(rows["text"]))
    same = pl.Series("same", [hash_text(text) for text in plain(rows["text"])], dtype=pl.String)
    made = rows.with_columns(same, bands=pl.Series(bands.tolist(), dtype=pl.List(pl.UInt64)))
    counts = {
        "evaluation_queries": made.filter(pl.col("kind") == QUERY_KIND).height,
        "evaluation_passages": made.filter(pl.col("kind") == PASSAGE_KIND).height,
    }
    return {
        "evaluation": made.select(*EVALUATION.columns).sort(EVALUATION.key),
        "figures": count_figures(CONTAMINATION, counts),
    }


def _texts_of_set(name: str, folder: Path) -> pl.DataFrame:
    try:
        opened = open_source(folder, split=_TEST)
    except IngestError:
        opened = None
    if isinstance(opened, CorpusSource):
        found = list(_of_corpus(name, opened))
    elif isinstance(opened, RowSource) and opened.recognised:
        found = list(_of_rows(opened))
    else:
        found = list(_of_files(folder))
    if not found:
        raise EvaluationError(
            f"guards.evaluation: {name} holds no text. A BEIR folder, rows of queries and positives, or files of "
            "queries or texts expected: .txt with one a line, or objects with `query`, `question` or `text`"
        )
    return _frame(name, found)


def _frame(name: str, texts: list[tuple[str, str, str]]) -> pl.DataFrame:
    rows = pl.DataFrame(texts, schema=dict.fromkeys(("kind", "id", "text"), pl.String), orient="row")
    rows = rows.with_columns(set=pl.lit(name)).sort("kind", "id")
    return rows.unique(["kind", "text"], keep="first", maintain_order=True).unique(
        ["kind", "id"], keep="first", maintain_order=True
    )


def _of_corpus(name: str, source: CorpusSource) -> Texts:
    """Yield the queries that are judged in other splits than `train`, and what is relevant to them."""
    splits = [split for split in source.judged if split != _TRAIN]
    if source.judged and not splits:
        raise EvaluationError(
            f"guards.evaluation: {name} has judgements of the split `train` only; give a set with a test split, or its "
            "queries alone"
        )
    asked, relevant = set[str](), set[str]()
    for split in splits:
        for item in source.judgements(split):
            if not isinstance(item, Problem) and item.relevance > 0:
                asked.add(item.query_id)
                relevant.add(item.doc_id)
    for query in source.queries():
        if not isinstance(query, Problem) and (query.query_id in asked or not splits):
            yield QUERY_KIND, query.query_id, query.text
    for passage in source.documents():
        if not isinstance(passage, Problem) and passage.doc_id in relevant:
            yield PASSAGE_KIND, passage.doc_id, show_passage(passage.title, passage.text)


def _of_rows(source: RowSource) -> Texts:
    """Yield the queries of rows, and their positives."""
    for batch in source.batches():
        for query_id, query in batch.rows.select("query_id", "query").iter_rows():
            yield QUERY_KIND, query_id, query
        positives = batch.passages.filter("positive").select("doc_id", "title", "text")
        for doc_id, title, text in positives.iter_rows():
            yield PASSAGE_KIND, doc_id, show_passage(title, text)


def _of_files(folder: Path) -> Texts:
    """Yield the texts of files that hold queries or texts alone. A file whose name says `quer` holds queries."""
    for path in sorted(path for path in folder.rglob("*.txt") if path.is_file()):
        kind = QUERY_KIND if "quer" in path.name.lower() else PASSAGE_KIND
        for item in read_lines(path, path.relative_to(folder).as_posix(), _LIMITS):
            if not isinstance(item, Problem) and (text := clean(item[1])):
                yield kind, item[0], text
    for file in list_files(folder)[0]:
        if file.name.lower().endswith(".txt"):
            continue
        of_queries = "quer" in file.name.lower()
        for found in read_objects(file):
            if isinstance(found, Problem):
                continue
            where, values = found
            key = next((key for key in (*QUERY, *_TEXTS) if isinstance(values.get(key), str)), None)
            text = clean(str(values[key])) if key else ""
            if not text:
                continue
            identifier = next((str(values[key]) for key in QUERY_ID if values.get(key) not in (None, "")), where)
            if of_queries or key in QUERY:
                yield QUERY_KIND, identifier, text
            else:
                yield PASSAGE_KIND, identifier, show_passage(clean(str(values.get(TITLE[0]) or "")), text)
