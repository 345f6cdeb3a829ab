"""Curate a generated corpus whose negatives are mined, with two judges from files.

Which pairs the judges are asked about is known only after mining. So a first command mines and compares by similarity;
then a file of each judge is written, with a score for each pair of the pool; then a second command judges. It finds the
mining done. What both took is added up, with the start and the report of each.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from benchmarks import paper_size_data as data
from benchmarks.paper_size_parts import Part, parts_of
from benchmarks.paper_size_watch import Run, reneg
from infra.storage.artifacts import read_table
from infra.storage.store import Store
from infra.storage.tables import Table

NAME = "mined-size"
CANDIDATES = 25
DIMENSIONS = 384
_PAIR = ("dataset", "query_id", "doc_id")


def curate(folder: Path, passages: int, queries: int) -> list[Run]:
    """Generate a corpus and queries, mine and judge; returns what the two commands took."""
    source, scores, encoder = folder / "source", folder / "scores", folder / "encoder"
    data.write_corpus(source, passages, queries)
    data.write_encoder(encoder, DIMENSIONS)
    config = folder / f"{NAME}.yaml"
    mining = {"mine": {"range_max": CANDIDATES}, "ingest": {"test_split": None}}
    data.write_config(config, NAME, source, None, encoder, mining)
    runs = [reneg(folder, "curate", str(config))]
    scores.mkdir()
    write_scores(scores, Store(str(folder / "store")), parts_of(folder, NAME))
    data.write_config(config, NAME, source, scores, encoder, mining)
    return [*runs, reneg(folder, "curate", str(config))]


def write_scores(folder: Path, store: Store, parts: Sequence[Part]) -> None:
    """Write a file of each judge, with all pairs of the mined pools."""
    for seed, name in enumerate(data.JUDGES):
        with pq.ParquetWriter(folder / f"{name}.parquet", data.SCORES, compression="zstd") as writer:
            for part in parts:
                if part.stage == "mine":
                    pool = read_table(store, Table("candidates", part.tables["candidates"]), columns=_PAIR)
                    queries, passages = (_numbers(pool[column]) for column in ("query_id", "doc_id"))
                    writer.write_table(data.judge(pool["dataset"].to_list(), queries, passages, seed))


def _numbers(ids: pl.Series) -> npt.NDArray[np.int64]:
    return ids.str.strip_prefix("q").cast(pl.Int64).to_numpy()
