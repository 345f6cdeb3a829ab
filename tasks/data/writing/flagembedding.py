"""Write rows as FlagEmbedding reads them: texts of passages, with scores, prompt and type where the source had them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import json_lists, json_rows, json_values, write_rows
from tasks.data.writing.training_set import Chunk, TrainingSet


def write_flagembedding(config: ExportConfig, folder: Path, rows: TrainingSet) -> dict[str, int]:
    """Write `train.jsonl`, and rows without negatives apart, because FlagEmbedding fails on them.

    `pos_scores` and `neg_scores` are the soft labels, or without these the teacher's scores. All rows have the same
    keys, because FlagEmbedding takes them from the first row: an empty text where a row has no prompt or type, and null
    where a passage has no score. Rows with a null are counted (`partly_scored`).
    """
    scores = "score" if rows.has("score") else "teacher"
    marks = {"scores": scores} if rows.count(scores) else {}
    marks |= _marks(config)
    counts = Counter(partly_scored=0) if "scores" in marks else Counter[str]()

    def lines_of(chunk: Chunk) -> pl.Series:
        lines, partly_scored = _lines(chunk, marks, rows.extras)
        if "scores" in marks:
            counts["partly_scored"] += partly_scored
        return lines

    return {**write_rows(folder, rows, lines_of), **counts}


def unscored_lines(config: ExportConfig, chunk: Chunk) -> pl.Series:
    """Return the line of each row, without its end, for a source without scores and further fields."""
    return _lines(chunk, _marks(config), ())[0]


def _marks(config: ExportConfig) -> dict[str, str]:
    """Name what stands beside the passages besides scores: the ending of the keys, and the column."""
    return {name: name for name in ("decided_by", "origin")} if config.provenance else {}


def _lines(chunk: Chunk, marks: Mapping[str, str], extras: Sequence[str]) -> tuple[pl.Series, int]:
    """Return the line of each row, and in how many a passage has no score, where `marks` has scores."""
    names, columns = ["query"], [json_values(chunk.rows["query"])]
    sides = (("pos", chunk.positives), ("neg", chunk.negatives))
    for ending, source in {"": "", **{f"_{name}": source for name, source in marks.items()}}.items():
        for name, side in sides:
            names.append(f"{name}{ending}")
            values = side.passages[source] if source else side.shown
            columns.append(json_lists(json_values(values), side.counts))
    for name in extras:
        names.append(name)
        columns.append(json_values(chunk.rows[name]))
    partly_scored = 0
    if "scores" in marks:
        of_positives, of_negatives = (scores.str.contains("null", literal=True) for scores in columns[3:5])
        partly_scored = int((of_positives | of_negatives).sum())
    return json_rows(names, columns), partly_scored
