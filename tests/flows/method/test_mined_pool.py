"""The pool that mining makes, from stores whose data are cut into other parts, and by one worker or by two."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows import stages as st
from flows.method.curate import mine
from flows.method.tables import Generations, Vectors
from infra.stages.compute_part import compute_part
from infra.stages.runner import PartSpec, Runner
from infra.storage.artifacts import Manifest, Table, read_table, write_table
from infra.storage.store import Store
from tasks import schemas
from tasks.mining.mine import MineConfig
from tasks.mining.search import SearchConfig
from tasks.texts import hash_guard, hash_passage, hash_shown, hash_text, part_of

_DIMENSION = 6
_POOL = ("candidates", "negatives", "reserve", "rejects")


@dataclass(frozen=True)
class Workers:
    """An executor of so many threads; the last parts are begun first."""

    store: Store
    scratch: Path
    count: int

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest]:
        """Compute the parts that are not finished."""
        missing = [spec for spec in reversed(specs) if spec.number not in finished]
        with ThreadPoolExecutor(self.count) as pool:
            made = pool.map(lambda spec: compute_part(self.store.url, spec, self.scratch), missing)
            return {**finished, **{spec.number: manifest for spec, manifest in zip(missing, made, strict=True)}}


def _data() -> dict[str, pl.DataFrame]:
    """Texts with copies, ids of queries that are those of passages, and vectors with many equal inner products."""
    rng = np.random.default_rng(11)
    texts = [f"{('alpha', 'ALPHA', 'beta', 'gamma')[n % 4]} {int(rng.integers(70))}" for n in range(240)]
    passages = pl.DataFrame(
        [(f"d{n % 2}", f"p{n:03d}", "", text, hash_passage("", text)) for n, text in enumerate(texts)],
        schema=schemas.PASSAGES.columns,
        orient="row",
    )
    asked = [
        (f"d{n % 2}", f"p{n:03d}" if n % 4 == 0 else f"q{n:03d}", texts[n] if n % 6 == 0 else f"what {n}")
        for n in range(48)
    ]
    queries = pl.DataFrame(
        [(*one, hash_text(one[2]), "train") for one in asked], schema=schemas.QUERIES.columns, orient="row"
    )
    labelled = pl.DataFrame(
        [(*one[:2], f"p{(n * 2 + n % 2) % 240:03d}") for n, one in enumerate(asked)],
        schema=["dataset", "query_id", "doc_id"],
        orient="row",
    ).join(passages, on=["dataset", "doc_id"])
    hashes = labelled.with_columns(
        shown_hash=pl.Series([hash_shown("", text) for text in labelled["text"]]),
        guard_hash=pl.Series([hash_guard("", text) for text in labelled["text"]]),
        source=pl.lit("label"),
        relevance=pl.lit(0, pl.Int32),
    )
    irrelevant = hashes.with_columns(query_id=pl.col("query_id").shift(2), doc_id="doc_id").drop_nulls()
    return {
        "queries": queries,
        "positives": hashes.select(*schemas.POSITIVES.columns),
        "irrelevant": irrelevant.join(hashes, on=["dataset", "query_id", "doc_id"], how="anti").select(
            *schemas.IRRELEVANT.columns
        ),
        "passages": passages,
        "query_vectors": _vectors(rng, queries["text_hash"]),
        "passage_vectors": _vectors(rng, passages["text_hash"]),
    }


def _vectors(rng: np.random.Generator, hashes: pl.Series) -> pl.DataFrame:
    distinct = hashes.unique().sort()
    vectors = rng.integers(-1, 2, (len(distinct), _DIMENSION)).astype(np.float32)
    return pl.DataFrame({"text_hash": distinct, "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, _DIMENSION))})


def _pool(folder: Path, parts: int, workers: int) -> tuple[dict[str, pl.DataFrame], dict[str, list[str]]]:
    """Mine in a new store with so many parts of queries and of passages; returns the tables, and their digests."""
    store, frames = Store.open(str(folder / "store")), _data()
    tables = {}
    of_query = frames["queries"].select("dataset", "query_id", by="text_hash")
    cut = {"positives": of_query, "irrelevant": of_query}
    types = {
        "queries": schemas.QUERIES, "positives": schemas.POSITIVES, "irrelevant": schemas.IRRELEVANT,
        "passages": schemas.PASSAGES, "query_vectors": schemas.EMBEDDINGS, "passage_vectors": schemas.EMBEDDINGS,
    }  # fmt: skip
    for name, frame in frames.items():
        by = frame.join(cut[name], on=["dataset", "query_id"])["by"] if name in cut else frame["text_hash"]
        part = pl.Series([part_of(text_hash, parts) for text_hash in by])
        pieces = (write_table(store, name, frame.filter(part == n), types[name], n) for n in range(parts))
        tables[name] = Table(name, tuple(pieces))
    none = (write_table(store, "given", schemas.GIVEN.empty(), schemas.GIVEN, n) for n in range(parts))
    vectors = Vectors(queries=tables.pop("query_vectors"), passages=tables.pop("passage_vectors"))
    data: Any = SimpleNamespace(
        generations=Generations((parts,), (parts,)), given=Table("given", tuple(none)), **tables
    )
    config = SimpleNamespace(search=SearchConfig(depth=9), mine=MineConfig(depth=9, range_max=8, num_negatives=3))
    setup: Any = SimpleNamespace(config=config, encoder_key="toy", software=lambda stage: {})
    run = Runner(store, executor=Workers(store, folder / "scratch", workers))
    pool = mine(run, setup, data, vectors)
    assert not [done.failed for done in run.runs if done.failed]
    made: dict[str, Table] = {name: getattr(pool, name) for name in _POOL}
    frames = {name: read_table(store, table) for name, table in made.items()}
    sorted_frames = {name: frame.sort(frame.columns) for name, frame in frames.items()}
    return sorted_frames, {name: table.content() for name, table in made.items()}


@pytest.mark.parametrize("group", [1_000, 60])
def test_the_pool_is_the_same_from_one_three_and_eight_parts_by_one_and_two_workers_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    """With groups of 60 rows, the search of three parts has nine parts of its own, and that of eight has more."""
    monkeypatch.setattr(st, "SEARCHED_QUERIES", group)
    monkeypatch.setattr(st, "SEARCHED_PASSAGES", group)
    whole, _ = _pool(tmp_path / "whole", 1, 1)
    assert whole["candidates"].height > 300
    assert set(whole["rejects"]["reason"]) >= {"same_text_as_query", "same_text_as_positive", "same_text_as_candidate"}
    digests: dict[int, dict[str, list[str]]] = {}
    for number, (parts, workers) in enumerate([(1, 2), (3, 1), (3, 2), (8, 1), (8, 2), (8, 2)]):
        made, written = _pool(tmp_path / str(number), parts, workers)
        for name, frame in whole.items():
            assert made[name].equals(frame), (name, parts, workers)
        assert digests.setdefault(parts, written) == written  # the same bytes by one and by two workers
