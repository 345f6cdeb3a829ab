"""The memory of an export does not grow with the training set: `python -m tests.flows.method.test_export_memory 8000`.

The command prints the peak of an export of so many rows, with 20 negatives of 100 words each, in GiB.
"""

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import polars as pl
import pytest

from flows.method.human_labels import without
from flows.stages import EXPORT
from infra.names import StageName
from infra.stages.compute_part import compute_part
from infra.stages.cutting import Call, cut
from infra.storage.artifacts import Piece, Table, write_table
from infra.storage.store import Store
from tasks import schemas
from tasks.data.writing.config import ExportConfig
from tasks.texts import combine_hashes, hash_passage, hash_text

ROWS_OF_A_PART, NEGATIVES, WORDS = 500, 20, 100
FORMATS = ("tevatron", "beir", "datasets")
_SIDES = {"instances": schemas.INSTANCES, "queries": schemas.QUERIES, "passages": schemas.PASSAGES}


def parts(rows: int) -> Iterator[dict[str, pl.DataFrame]]:
    """Yield the tables of each query part: no passage is in two of them."""
    draw = random.Random(5)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(50_000)]
    for first in range(0, rows, ROWS_OF_A_PART):
        made: dict[str, list[tuple[object, ...]]] = {name: [] for name in _SIDES}
        for row in range(first, min(first + ROWS_OF_A_PART, rows)):
            query_id, query = f"q{row * 7919 % rows:06d}", f"question {row}"
            documents, hashes = [], []
            for number in range(1 + NEGATIVES):
                at = draw.randrange(len(words) - WORDS)
                text = f"{row} {number} {' '.join(words[at : at + WORDS])}"
                documents.append(f"d{row}-{number}")
                hashes.append(hash_passage("", text))
                made["passages"].append(("set", documents[-1], "", text, hashes[-1]))
            made["queries"].append(("set", query_id, query, hash_text(query), "train"))
            texts_hash = combine_hashes([hash_text(query), *hashes])
            made["instances"].append(("set", query_id, documents[:1], documents[1:], "relabel", texts_hash))
        yield {n: pl.DataFrame(rows, schema=_SIDES[n].columns, orient="row") for n, rows in made.items()}


def write_tables(store: Store, rows: int) -> dict[str, Table]:
    """Store the tables of a training set, cut into query parts."""
    pieces: dict[str, list[Piece]] = {name: [] for name in _SIDES}
    for index, frames in enumerate(parts(rows)):
        for name, frame in frames.items():
            pieces[name].append(write_table(store, name, frame, _SIDES[name], index))
    return {name: Table(name, tuple(found), schema=_SIDES[name]) for name, found in pieces.items()}


def compute(place: Path, tables: dict[str, Table]) -> float:
    """Export the tables of a store; returns the peak of this process, in GiB."""
    stage = without(EXPORT, *(name for name in EXPORT.every if name not in _SIDES))
    (spec,), _ = cut(Call(stage, StageName("export"), ExportConfig(formats=FORMATS), dict(tables)))
    made = compute_part(str(place / "store"), spec, place / "cache")
    assert len(made.directories["export"]) > len(FORMATS)
    return float(made.stats["peak_gib"])


def peak_of(place: Path, rows: int) -> float:
    """Return the peak of an export of so many rows, in a process of its own, in GiB."""
    tables = write_tables(Store.open(str(place / "store")), rows)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(compute, place, tables).result()


@pytest.mark.slow
def test_the_memory_of_an_export_does_not_grow_with_the_training_set(tmp_path: Path) -> None:
    """With all texts in memory the peak grew by 0.26 GiB from 8,000 to 24,000 rows."""
    few, more = (peak_of(tmp_path / str(rows), rows) for rows in (8_000, 24_000))
    assert more - few < 0.1


if __name__ == "__main__":
    for wanted in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory(prefix="reneg-") as folder:
            began = time.monotonic()
            said = f"{wanted} rows: {peak_of(Path(folder), wanted)} GiB, {time.monotonic() - began:.1f} s"
            sys.stdout.write(f"{said}\n")
