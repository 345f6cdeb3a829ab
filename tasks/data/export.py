"""Export curated instances in the file formats that trainers read. The same instances give the same bytes.

Each format has its own folder below `out`, and its own module in `tasks/data/writing`. `export.json` counts what was
written, and what was left out.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tasks.data.on_disk.sorted_file import write_sorted
from tasks.data.rendering.merge import merge_lines
from tasks.data.writing.beir import write_beir
from tasks.data.writing.config import FORMATS, ExportConfig, Target
from tasks.data.writing.dataset_folder import write_dataset_folder
from tasks.data.writing.files import Lines
from tasks.data.writing.flagembedding import write_flagembedding
from tasks.data.writing.scores import Evidence
from tasks.data.writing.sentence_transformers import write_sentence_transformers
from tasks.data.writing.tevatron import write_tevatron
from tasks.data.writing.training_set import Counts, TrainingSet, join_texts
from tasks.data.writing.trec import write_trec
from tasks.parts import Rows, in_parts
from tasks.protocols import InParts

DO_NOT_BATCH_FILE = "do_not_batch.parquet"  # pairs of rows that must not share a batch
_PAIR_OF_ROWS = ("dataset", "query_id", "other_dataset", "other_query_id", "reason")
__all__ = ["FORMATS", "ExportConfig", "export"]

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
    out: Path,
    instances: Rows | None = None,
    queries: Rows | None = None,
    passages: Rows | None = None,
    index: Iterable[pl.DataFrame] = (),
    texts: Iterable[pl.DataFrame] = (),
    tallies: pl.DataFrame | None = None,
    positives: Rows | None = None,
    negatives: Rows | None = None,
    candidates: Rows | None = None,
    decisions: Rows | None = None,
    teacher: Rows | None = None,
    extras: Rows | None = None,
    agreement: pl.DataFrame | None = None,
    people: pl.DataFrame | None = None,
    do_not_batch: pl.DataFrame | Iterable[pl.DataFrame] | None = None,
) -> dict[str, pl.DataFrame]:
    """Write instances with their texts below `out`, sorted by dataset and query_id; docs/exports.md shows the files.

    Tables in parts are read part by part: the same part of each, which holds what its instances need. A passage may so
    be in several parts. The rows are sorted on disk, and written in chunks.

    Of the formats `config.rendered` the parts have written the lines: `index`, `texts` and `tallies`, as
    `tasks.data.rendering.render` returns them. These are only merged. Instances, queries, passages and what follows
    `tallies` are needed for the other formats.

    The tables after `tallies` are needed by some settings only (`ExportConfig.wanted`). `do_not_batch` lists pairs of
    rows that must not share a batch, and becomes a file of its own. It may come in frames.

    Raises:
        ValueError: a text is missing or not the one the instance was made of, an instance has no positive, an id cannot
            be written in a format, or a table that the settings need was not given.
    """
    out.mkdir(parents=True, exist_ok=True)
    others = sorted(set(config.formats) - set(config.rendered))
    formats, rows = merge_lines(out, config.rendered, index, texts) if config.rendered else {}, Counts()
    if tallies is not None:
        rows.add_tallies(tallies)
    if others:
        if instances is None or queries is None or passages is None:
            raise ValueError(f"export: {', '.join(others)} need instances, queries and passages; they were not given")
        optional = {
            "positives": positives,
            "negatives": negatives,
            "decisions": decisions,
            "teacher": teacher,
            "extras": extras,
            "candidates": candidates,
        }
        evidence = {name: in_parts(table) for name, table in optional.items() if table is not None}
        tables = _Tables(in_parts(instances), in_parts(queries), in_parts(passages), evidence)
        rows = trained = _join_parts(config, tables, agreement, people)
        formats |= {name: _WRITERS[name](config, out / name, trained) for name in others}
    left = {name: _not_held(config, name, rows) for name in sorted(set(config.formats))}
    summary = {
        "config": config.model_dump(mode="json", exclude={"facts", "rendered"}),
        "datasets": rows.datasets,
        "formats": formats,
        "instances": rows.height,
        "not_held": {name: found for name, found in left.items() if found},
        "treatments": rows.treatments,
        "without_negatives": rows.without_negatives,
    }
    if do_not_batch is not None:
        pairs = [do_not_batch] if isinstance(do_not_batch, pl.DataFrame) else do_not_batch
        summary["do_not_batch"] = write_sorted(out / DO_NOT_BATCH_FILE, pairs, _PAIR_OF_ROWS)
    with Lines(out / "export.json") as file:
        file.write([json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False)])
    return {}


@dataclass(frozen=True)
class _Tables:
    """The tables of an export in parts; `evidence` are those that only some settings need."""

    instances: InParts
    queries: InParts
    passages: InParts
    evidence: Mapping[str, InParts]


def _join_parts(
    config: ExportConfig, tables: _Tables, agreement: pl.DataFrame | None, people: pl.DataFrame | None
) -> TrainingSet:
    """Join the instances of all parts with their texts."""
    fields = _fields(tables.evidence["extras"]) if "extras" in tables.evidence else ()
    rows = TrainingSet(fields, corpus="beir" in config.formats, agreement=agreement, people=people)
    for part in tables.instances.parts or (0,):
        known = Evidence(**{name: table.at(part) for name, table in tables.evidence.items()})
        texts = tables.queries.at(part), tables.passages.at(part)
        rows.add(join_texts(config, tables.instances.at(part), *texts, known, fields))
    return rows


def _fields(extras: InParts) -> tuple[str, ...]:
    """Name the further fields of the source's rows."""
    return tuple(sorted({name for part in extras.parts for name in extras.at(part)["name"].unique()}))


def _not_held(config: ExportConfig, target: Target, rows: Counts) -> dict[str, int]:
    """Count what has no place in a format: rows with further fields of the source, and passages with scores."""
    is_pair = target == "sentence-transformers" and config.shape == "pair"
    keeps_scores = target in ("tevatron", "flagembedding", "datasets", "sentence-transformers") and not is_pair
    keeps_teacher = target == "datasets" or (target == "flagembedding" and config.soft_labels == "none")
    found = {} if target in ("flagembedding", "datasets") else rows.fields
    if not (keeps_teacher or (keeps_scores and config.soft_labels == "teacher")):
        found["teacher"] = rows.count("teacher")
    if not keeps_scores and config.soft_labels != "none":
        found["soft_labels"] = rows.count("score")
    if target == "beir":
        found["negatives"] = rows.count_passages(1)
    if target not in ("tevatron", "flagembedding", "datasets"):
        found["provenance"] = rows.count("decided_by")
    return {name: count for name, count in found.items() if count}
