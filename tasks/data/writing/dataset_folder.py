"""Write a folder that `datasets.load_dataset` reads: parquet in the layout of the paper's data, with a card."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl

from tasks.data.writing.card import write_card
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import Parquet
from tasks.data.writing.tevatron import fields_of
from tasks.data.writing.training_set import Chunk, Side, TrainingSet

SHARD_BYTES = 512 * 2**20  # of texts, per file


def write_dataset_folder(config: ExportConfig, folder: Path, rows: TrainingSet) -> dict[str, int]:
    """Write `data/train-*.parquet` and the card, README.md.

    Rows without negatives are the configuration `without_negatives`, because trainers that read the layout of the
    paper's data draw from the negatives.
    """
    shards, alone = _shards(rows), 0
    for number, bounds in enumerate(shards):
        with ExitStack() as stack:
            schema = _schema(rows)
            name = f"train-{number:05d}-of-{len(shards):05d}.parquet"
            file = stack.enter_context(Parquet(folder / "data" / name, schema))
            other = None
            for start, stop in bounds:
                chunk = rows.chunk(start, stop)
                has_negatives = chunk.negatives.counts > 0
                file.add(_rows(chunk.only(has_negatives), rows.extras))
                if not has_negatives.all():
                    other = other or stack.enter_context(Parquet(folder / "without_negatives" / name, schema))
                    other.add(_rows(chunk.only(~has_negatives), rows.extras))
            alone += other.count if other is not None else 0
    counts = {"rows": rows.height - alone, "without_negatives": alone, "files": len(shards)}
    write_card(config, folder / "README.md", rows, counts)
    return counts


def _shards(rows: TrainingSet) -> list[list[tuple[int, int]]]:
    """Put the chunks into files of at most SHARD_BYTES of texts, or of one chunk; at least one file."""
    shards: list[list[tuple[int, int]]] = [[]]
    filled = 0
    for start, stop in rows.bounds():
        size = int(rows.sizes[start:stop].sum())
        if shards[-1] and filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((start, stop))
        filled += size
    return shards


def _rows(chunk: Chunk, extras: tuple[str, ...]) -> pl.DataFrame:
    return chunk.rows.select(
        "query_id",
        "query",
        _lists(chunk.positives).alias("positive_passages"),
        _lists(chunk.negatives).alias("negative_passages"),
        pl.col("dataset").alias("subset"),
        *extras,
    )


def _lists(side: Side) -> pl.Series:
    """Return the passages of each row as a list of objects."""
    fields = fields_of(side, "teacher").to_struct("passages")
    row = np.repeat(np.arange(len(side.counts)), side.counts)
    listed = pl.DataFrame([pl.Series("row", row), fields]).group_by("row").agg("passages")
    every = pl.DataFrame({"row": np.arange(len(side.counts))}).join(listed, on="row", how="left", maintain_order="left")
    return every.select(pl.col("passages").fill_null(pl.lit([], dtype=listed["passages"].dtype))).to_series()


def _schema(rows: TrainingSet) -> pl.Schema:
    return _rows(rows.chunk(0, 0), rows.extras).schema
