"""The pool that mining makes, from stores whose data are cut into other parts, and by one worker or by two."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows import stages as st
from flows.method.curate import mine
from flows.method.tables import Generations, Vectors
from infra.engines.specs import CrossEncoderSpec
from infra.stages.compute_part import compute_part
from infra.stages.runner import PartSpec, Runner
from infra.storage.artifacts import Manifest, Table, read_table, write_table
from infra.storage.store import Store
from tasks import schemas
from tasks.judging.config import JudgeConfig
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
    engine: object | None = None

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest]:
        """Compute the parts that are not finished."""
        missing = [spec for spec in reversed(specs) if spec.number not in finished]
        with ThreadPoolExecutor(self.count) as pool:
            made = pool.map(lambda spec: compute_part(self.store.url, spec, self.scratch, self.engine), missing)
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


class Rounds:
    """A reranker whose scores are hashes of the texts, many of them equal."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Score pairs in tenths."""
        return [part_of(hash_text("|".join(pair)), 11) / 10 for pair in pairs]


def _pool(
    folder: Path, parts: int, workers: int, rescorer: object | None = None
) -> tuple[dict[str, pl.DataFrame], dict[str, list[str]]]:
    """Mine in a new store with so many parts of queries and of passages; returns the tables, and their digests."""
    store = Store.open(str(folder / "store"))
    tables = _write(store, parts)
    run = Runner(store, executor=Workers(store, folder / "scratch", workers, Rounds()))
    return _mine(run, tables, Generations((parts,), (parts,)), rescorer)


def _is_late(text_hash: str) -> bool:
    return part_of(text_hash[8:], 5) == 0


def _write(store: Store, parts: int, *, late: bool = False, labelled_late: bool = True) -> dict[str, Table]:
    """Write the data in so many parts.

    late: a fifth of the passages is in one part more. labelled_late: these are among the labelled ones too.
    """
    frames, tables = _data(), {}
    of_query = frames["queries"].select("dataset", "query_id", by="text_hash")
    cut = {"positives": of_query, "irrelevant": of_query}
    types = {
        "queries": schemas.QUERIES, "positives": schemas.POSITIVES, "irrelevant": schemas.IRRELEVANT,
        "passages": schemas.PASSAGES, "query_vectors": schemas.EMBEDDINGS, "passage_vectors": schemas.EMBEDDINGS,
    }  # fmt: skip
    for name, frame in frames.items():
        by, kept = frame["text_hash"], [True] * frame.height
        if name in cut:
            by = frame.join(cut[name], on=["dataset", "query_id"], how="left", maintain_order="left")["by"]
            kept = [labelled_late or not _is_late(text_hash) for text_hash in frame["text_hash"]]
        apart = late and name.startswith("passage")
        part = pl.Series([parts if apart and _is_late(text_hash) else part_of(text_hash, parts) for text_hash in by])
        own = (frame.filter((part == n) & pl.Series(kept)) for n in range(parts + apart))
        pieces = (write_table(store, name, each, types[name], n) for n, each in enumerate(own))
        tables[name] = Table(name, tuple(pieces))
    none = (write_table(store, "given", schemas.GIVEN.empty(), schemas.GIVEN, n) for n in range(parts))
    return {**tables, "given": Table("given", tuple(none))}


def _mine(
    run: Runner, tables: dict[str, Table], generations: Generations, rescorer: object | None = None, **search: Any
) -> tuple[dict[str, pl.DataFrame], dict[str, list[str]]]:
    tables = dict(tables)
    vectors = Vectors(queries=tables.pop("query_vectors"), passages=tables.pop("passage_vectors"))
    data: Any = SimpleNamespace(generations=generations, **tables)
    how = SearchConfig(**{"depth": 9, **search})
    config = SimpleNamespace(search=how, mine=MineConfig(depth=9, range_max=8, num_negatives=3))
    setup: Any = SimpleNamespace(
        config=config, encoder_key="toy", software=lambda stage: {}, rescorer=rescorer, rescored_depth=9
    )
    pool = mine(run, setup, data, vectors)
    assert not [done.failed for done in run.runs if done.failed]
    made: dict[str, Table] = {name: getattr(pool, name) for name in _POOL}
    frames = {name: read_table(run.store, table) for name, table in made.items()}
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


def test_the_pick_of_a_reranker_is_the_same_from_one_three_and_eight_parts_by_one_and_two_workers(
    tmp_path: Path,
) -> None:
    judge = JudgeConfig(judge="rounds", protocol="cross_encoder")
    rescorer = SimpleNamespace(judge=judge, shown={}, engine=CrossEncoderSpec(model="", digest="d"))
    whole, _ = _pool(tmp_path / "whole", 1, 1, rescorer)
    plain, _ = _pool(tmp_path / "plain", 1, 1)
    assert [whole[name].equals(plain[name]) for name in _POOL] == [True, False, False, True]
    for parts, workers in ((3, 2), (8, 1)):
        made, _ = _pool(tmp_path / str(parts), parts, workers, rescorer)
        for name, frame in whole.items():
            assert made[name].equals(frame), (name, parts, workers)


def test_passages_that_come_later_are_searched_alone_and_the_pool_is_as_if_all_had_come_at_once(tmp_path: Path) -> None:
    store, other = (Store.open(str(tmp_path / name)) for name in ("store", "other"))
    tables = _write(store, 3, late=True, labelled_late=False)
    early = {name: replace(tables[name], pieces=tables[name].pieces[:3]) for name in ("passages", "passage_vectors")}
    before, after = (Runner(store, executor=Workers(store, tmp_path / "scratch", 1)) for _ in range(2))
    _mine(before, {**tables, **early}, Generations((3,), (3,)))
    grown, _ = _mine(after, tables, Generations((3,), (3, 1)))
    searches = [next(done for done in run.runs if done.name == "search") for run in (before, after)]
    assert [(done.parts, done.reused) for done in searches] == [(1, 0), (2, 1)]
    whole = _write(other, 1, labelled_late=False)
    at_once, _ = _mine(Runner(other, executor=Workers(other, tmp_path / "scratch", 1)), whole, Generations())
    for name, frame in at_once.items():
        assert grown[name].equals(frame), name


def test_a_search_in_lists_says_what_it_found(tmp_path: Path) -> None:
    notes = list[str]()
    store = Store.open(str(tmp_path / "store"))
    run = Runner(store, executor=Workers(store, tmp_path / "scratch", 1), on_note=notes.append)
    _mine(run, _write(store, 2), Generations((2,), (2,)), index="ivf", nlist=2, nprobe=2)
    assert notes == ["search: lists found 100.0% of the nearest passages, measured on 48 queries"]
