"""Reads the files of a source apart, as the stage `read_source` does, through parquet as it is in the store."""

import io
from pathlib import Path
from typing import Any

import polars as pl

from infra.storage.table_schema import check_schema
from tasks.data.ingest_config import IngestConfig
from tasks.data.pieces.read import PIECE, ReadConfig, read_source
from tasks.data.pieces.stored import RANGES, READ
from tasks.data.reading.source import files_of_rows


def read_file(folder: Path, config: ReadConfig | None = None, number: int = 0, count: int = 1) -> dict[str, Any]:
    """Read a range of the one file of a folder: `ranges`, and the frames of `read`."""
    piece = pl.DataFrame([(number, count)], schema=PIECE.columns, orient="row")
    made = read_source(config or ReadConfig(), file=folder, piece=piece)
    check_schema("ranges", made["ranges"], RANGES)
    frames = list(made["read"])
    for index, frame in frames:
        check_schema("read", frame, READ)
        assert index == 0
    return {"ranges": made["ranges"], "read": [stored(frame) for _, frame in frames]}


def read_apart(source: Path, scratch: Path, config: IngestConfig, count: int = 1) -> dict[str, Any]:
    """Read all files that a large source would have read apart, each in so many ranges."""
    names = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    ranges, frames = [RANGES.empty()], []
    for number, name in enumerate(files_of_rows(names, config.format, config.train_split)):
        alone = scratch / str(number) / name
        alone.parent.mkdir(parents=True, exist_ok=True)
        alone.write_bytes((source / name).read_bytes())
        for piece in range(count):
            made = read_file(scratch / str(number), config.reading, piece, count)
            ranges.append(made["ranges"])
            frames += made["read"]
    return {"ranges": pl.concat(ranges), "read": frames}


def stored(frame: pl.DataFrame) -> pl.DataFrame:
    """Write a frame as the store does, and read it back."""
    buffer = io.BytesIO()
    frame.rechunk().write_parquet(buffer, compression="zstd")
    return pl.read_parquet(buffer.getvalue())
