"""Export curated instances in the file formats that trainers read. The same instances give the same bytes.

Each format has its own folder below `out`, and its own module in `tasks/data/writing`. `export.json` counts what was
written, and what was left out.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tasks.data.writing.beir import write_beir
from tasks.data.writing.config import FORMATS, ExportConfig, Target
from tasks.data.writing.dataset_folder import write_dataset_folder
from tasks.data.writing.files import Lines
from tasks.data.writing.flagembedding import write_flagembedding
from tasks.data.writing.scores import Evidence
from tasks.data.writing.sentence_transformers import write_sentence_transformers
from tasks.data.writing.tevatron import write_tevatron
from tasks.data.writing.training_set import TrainingSet, join_texts
from tasks.data.writing.trec import write_trec
from tasks.protocols import InParts

DO_NOT_BATCH_FILE = "do_not_batch.parquet"  # pairs of rows that must not share a batch
__all__ = ["FORMATS", "ExportConfig", "export"]

Rows = pl.DataFrame | InParts

_WRITERS: dict[Target, Callable[[ExportConfig, Path, TrainingSet], dict[str, int]]] = {
    "tevatron": write_tevatron,
    "flagembedding": write_flagembedding,
    "sentence-transformers": write_sentence_transformers,
    "beir": write_beir,
    "trec": write_trec,
    "datasets": write_dataset_folder,
}


def export(  # noqa: PLR0913 - tables by name
    config: ExportConfig,
    *,
    instances: Rows,
    queries: Rows,
    passages: Rows,
    out: Path,
    positives: Rows | None = None,
    negatives: Rows | None = None,
    candidates: Rows | None = None,
    decisions: Rows | None = None,
    teacher: Rows | None = None,
    extras: Rows | None = None,
    agreement: pl.DataFrame | None = None,
    people: pl.DataFrame | None = None,
    do_not_batch: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Write instances with their texts below `out`, sorted by dataset and query_id; docs/exports.md shows the files.

    Tables in parts are read part by part: the same part of each, which holds what its instances need. A passage may so
    be in several parts. The rows are sorted on disk, and written in chunks.

    The tables after `out` are needed by some settings only (`ExportConfig.wanted`). `do_not_batch` lists pairs of rows
    that must not share a batch, and becomes a file of its own.

    Raises:
        ValueError: a text is missing or not the one the instance was made of, an instance has no positive, an id cannot
            be written in a format, or a table that the settings need was not given.
    """
    optional = {
        "positives": positives,
        "negatives": negatives,
        "decisions": decisions,
        "teacher": teacher,
        "extras": extras,
        "candidates": candidates,
    }
    evidence = {name: _in_parts(table) for name, table in optional.items() if table is not None}
    fields = _fields(evidence["extras"]) if extras is not None else ()
    rows = TrainingSet(fields, corpus="beir" in config.formats, agreement=agreement, people=people)
    made, asked, texts = (_in_parts(table) for table in (instances, queries, passages))
    for part in made.parts or (0,):
        known = Evidence(**{name: table.at(part) for name, table in evidence.items()})
        rows.add(join_texts(config, made.at(part), asked.at(part), texts.at(part), known, fields))
    out.mkdir(parents=True, exist_ok=True)
    formats = {name: _WRITERS[name](config, out / name, rows) for name in sorted(set(config.formats))}
    left = {name: _not_held(config, name, rows) for name in formats}
    summary = {
        "config": config.model_dump(mode="json", exclude={"facts"}),
        "datasets": rows.datasets,
        "formats": formats,
        "instances": rows.height,
        "not_held": {name: found for name, found in left.items() if found},
        "treatments": rows.treatments,
        "without_negatives": rows.without_negatives,
    }
    if do_not_batch is not None:
        do_not_batch.sort(pl.all()).write_parquet(out / DO_NOT_BATCH_FILE)
        summary["do_not_batch"] = do_not_batch.height
    with Lines(out / "export.json") as file:
        file.write([json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False)])
    return {}


@dataclass(frozen=True)
class _Whole:
    """A frame as a table in parts: its one part, whatever it is called."""

    frame: pl.DataFrame
    parts: tuple[int, ...] = (0,)

    def at(self, part: int) -> pl.DataFrame:
        del part
        return self.frame


def _in_parts(table: Rows) -> InParts:
    return _Whole(table) if isinstance(table, pl.DataFrame) else table


def _fields(extras: InParts) -> tuple[str, ...]:
    """Name the further fields of the source's rows."""
    return tuple(sorted({name for part in extras.parts for name in extras.at(part)["name"].unique()}))


def _not_held(config: ExportConfig, target: Target, rows: TrainingSet) -> dict[str, int]:
    """Count what has no place in a format: rows with further fields of the source, and passages with scores."""
    is_pair = target == "sentence-transformers" and config.shape == "pair"
    keeps_scores = target in ("tevatron", "flagembedding", "datasets", "sentence-transformers") and not is_pair
    keeps_teacher = target == "datasets" or (target == "flagembedding" and config.soft_labels == "none")
    found = {} if target in ("flagembedding", "datasets") else {name: rows.count_extra(name) for name in rows.extras}
    if not (keeps_teacher or (keeps_scores and config.soft_labels == "teacher")):
        found["teacher"] = rows.count("teacher")
    if not keeps_scores and config.soft_labels != "none":
        found["soft_labels"] = rows.count("score")
    if target == "beir":
        found["negatives"] = rows.count_passages(1)
    if target not in ("tevatron", "flagembedding", "datasets"):
        found["provenance"] = rows.count("decided_by")
    return {name: count for name, count in found.items() if count}
