"""Write a folder that `datasets.load_dataset` reads: parquet in the layout of the paper's data, with a card."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from tasks.data.writing.card import write_card
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import Parquet
from tasks.data.writing.tevatron import fields_of
from tasks.data.writing.training_set import Chunk, TrainingSet, list_passages

SHARD_BYTES = 512 * 2**20  # of texts, per file


def write_dataset_folder(config: ExportConfig, folder: Path, rows: TrainingSet) -> dict[str, int]:
    """Write `data/train-*.parquet` and the card, README.md.

    Rows without negatives are the configuration `without_negatives`, because trainers that read the layout of the
    paper's data draw from the negatives.
    """
    schema = _rows(rows.no_rows(), rows.extras).schema
    alone, files = 0, list[str]()
    for chunks in _shards(rows.chunks()):
        with ExitStack() as stack:
            files.append(f"train-{len(files):05d}.parquet")
            file = stack.enter_context(Parquet(folder / "data" / files[-1], schema))
            other = None
            for chunk in chunks:
                has_negatives = chunk.negatives.counts > 0
                file.add(_rows(chunk.only(has_negatives), rows.extras))
                if not has_negatives.all():
                    other = other or stack.enter_context(Parquet(folder / "without_negatives" / files[-1], schema))
                    other.add(_rows(chunk.only(~has_negatives), rows.extras))
            alone += other.count if other is not None else 0
    for place in (folder / part / name for part in ("data", "without_negatives") for name in files):
        if place.exists():
            place.rename(place.with_stem(f"{place.stem}-of-{len(files):05d}"))
    counts = {"rows": rows.height - alone, "without_negatives": alone, "files": len(files)}
    write_card(config, folder / "README.md", rows, counts)
    return counts


def _shards(chunks: Iterator[Chunk]) -> Iterator[Iterator[Chunk]]:
    """Put the chunks into files of at most SHARD_BYTES of texts, or of one chunk; at least one file.

    The chunks of a file must be read before the next file is asked for.
    """
    waiting = next(chunks, None)

    def shard() -> Iterator[Chunk]:
        nonlocal waiting
        filled = 0
        room = True
        while waiting is not None and room:
            filled += waiting.size
            yield waiting
            waiting = next(chunks, None)
            room = waiting is not None and filled + waiting.size <= SHARD_BYTES

    yield shard()
    while waiting is not None:
        yield shard()


def _rows(chunk: Chunk, extras: tuple[str, ...]) -> pl.DataFrame:
    sides = {"positive_passages": chunk.positives, "negative_passages": chunk.negatives}
    return chunk.rows.select(
        "query_id",
        "query",
        *(list_passages(fields_of(side, "teacher"), side.counts).alias(name) for name, side in sides.items()),
        pl.col("dataset").alias("subset"),
        *extras,
    )
