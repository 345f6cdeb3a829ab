"""Write rows as Tevatron reads them, and as the paper's data is published: passages with ids, titles and texts."""

from pathlib import Path

import polars as pl

from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import json_lists, json_objects, json_rows, json_values, write_rows
from tasks.data.writing.training_set import Chunk, Side, TrainingSet

_NAMES = ("query_id", "query", "positive_passages", "negative_passages", "subset")
_MARKS = ("score", "decided_by", "origin")


def write_tevatron(_config: ExportConfig, folder: Path, rows: TrainingSet) -> dict[str, int]:
    """Write `train.jsonl`, and rows without negatives apart, because Tevatron draws from the negatives."""
    return write_rows(folder, rows, tevatron_lines)


def tevatron_lines(chunk: Chunk) -> pl.Series:
    """Return the line of each row, without its end."""
    passages = (json_lists(json_objects(fields_of(side)), side.counts) for side in (chunk.positives, chunk.negatives))
    query_id, query, subset = (json_values(chunk.rows[name]) for name in ("query_id", "query", "dataset"))
    return json_rows(_NAMES, (query_id, query, *passages, subset))


def fields_of(side: Side, *more: str) -> pl.DataFrame:
    """Return the fields of each passage: docid, text, title, and those that the settings add."""
    marks = [name for name in (*_MARKS, *more) if name in side.passages.columns]
    return side.passages.select(pl.col("doc_id").alias("docid"), "text", "title", *marks)
