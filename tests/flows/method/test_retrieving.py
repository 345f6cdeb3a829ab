"""Several retrievers in the whole method: the pool is their union, and each candidate says who found it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.method.curate import curate_method
from flows.method.tables import Finished
from infra.engines.specs import VectorsSpec
from infra.engines.vector_files import VectorFilesEngine
from infra.stages.runner import Runner
from infra.storage.artifacts import read_table
from infra.storage.store import Store
from tests.flows.animals import make_setup, run_method, write_source
from tests.flows.fakes import InProcess

BOTH = {"range_max": 6, "num_negatives": 3, "retrievers": ["dense", "bm25"]}
_PAIR = ["dataset", "query_id", "doc_id"]


def _read(run: Runner, name: str, stage: str) -> pl.DataFrame:
    return read_table(run.store, Finished({done.name: done for done in run.runs}).table(name, stage))


def _table(run: Runner, name: str, stage: str) -> pl.DataFrame:
    return _read(run, name, stage).sort(_PAIR)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("animals") / "source")


def test_candidates_name_their_retrievers_with_ranks_and_scores_of_each(tmp_path: Path, source: Path) -> None:
    _, run, _ = run_method(tmp_path, source, mine=BOTH)
    candidates, found_by = _table(run, "candidates", "mine"), _table(run, "found_by", "fuse")
    assert set(candidates["retriever"]) <= {"dense", "bm25", "dense+bm25"}
    assert "dense+bm25" in set(candidates["retriever"])
    assert candidates["score"].null_count() == 0  # that of the dense search, whoever found it
    assert candidates["score"].max() < 1.001
    named = found_by.group_by(_PAIR).agg(pl.col("retriever").sort(descending=True).str.join("+").alias("finders"))
    both = candidates.join(named, on=_PAIR)
    assert both.height == candidates.height
    assert (both["retriever"] == both["finders"]).all()


@pytest.mark.parametrize("retrievers", [["bm25"], ["dense", "bm25"]])
def test_the_pool_is_the_same_from_any_number_of_parts(tmp_path: Path, source: Path, retrievers: list[str]) -> None:
    pools = []
    for parts in (1, 3):
        ingest = {"query_parts": parts, "passage_parts": parts, "known_split": "known"}
        mine = BOTH | {"retrievers": retrievers}
        _, run, _ = run_method(tmp_path / str(parts), source, mine=mine, ingest=ingest)
        pools.append([_table(run, name, "mine") for name in ("candidates", "negatives", "reserve")])
    assert all(one.equals(other) for one, other in zip(*pools, strict=True))
    assert pools[0][0].height


def test_a_filter_or_another_fusion_encodes_and_searches_nothing_again(tmp_path: Path, source: Path) -> None:
    run_method(tmp_path, source, mine=BOTH)
    for change in ({"max_score": 0.9}, {"fusion": "round_robin"}):
        computed = run_method(tmp_path, source, mine=BOTH | change)[2].computed
        assert "mine-00000" in computed
        assert not [name for name in computed if name.startswith(("encode", "search", "index", "count_terms"))]
    computed = run_method(tmp_path, source, mine=BOTH, bm25={"k1": 0.9})[2].computed
    assert "search_bm25-00000" in computed
    assert not [name for name in computed if name.startswith(("encode", "search-", "index", "count_terms"))]


def test_the_dense_search_alone_keeps_its_parts_beside_another_retriever(tmp_path: Path, source: Path) -> None:
    alone = {"range_max": 6, "num_negatives": 3}
    run_method(tmp_path, source, mine=alone)
    computed = run_method(tmp_path, source, mine=BOTH)[2].computed
    assert not [name for name in computed if name.startswith(("encode", "search-", "ingest"))]
    assert run_method(tmp_path, source, mine=alone)[2].computed == []


def test_further_encoders_search_beside_the_first(tmp_path: Path, source: Path) -> None:
    settings: dict[str, Any] = {"encoders": {"gte": {"model": "package:minilm"}}}
    settings["mine"] = BOTH | {"retrievers": ["dense", "gte"]}
    _, run, executor = run_method(tmp_path, source, **settings)
    assert set(_table(run, "candidates", "mine")["retriever"]) == {"dense+gte"}  # the fake encoders are the same one
    assert [name for name in executor.computed if name.startswith("encode_passages-gte")]
    found_by = _table(run, "found_by", "fuse").pivot("retriever", index=_PAIR, values="rank")
    assert (found_by["dense"] == found_by["gte"]).all()


def test_vectors_from_files_take_the_place_of_an_encoder(tmp_path: Path, source: Path) -> None:
    """The same vectors give the same pool, whoever computed them."""
    _, encoded, _ = run_method(tmp_path / "encoded", source, mine=BOTH)
    folder = tmp_path / "vectors"
    folder.mkdir()
    for stem, of in (("passages", "doc_id"), ("queries", "query_id")):
        texts = _read(encoded, stem, "ingest")
        vectors = _read(encoded, "embeddings", f"encode_{stem}")
        texts.join(vectors, on="text_hash").select(id=of, vector="vector").write_parquet(folder / f"{stem}.parquet")

    spec = VectorsSpec(model=str(folder), digest="d")
    store = Store.open(str(tmp_path / "store"))
    run = Runner(store, InProcess(store, tmp_path / "scratch", encoder=VectorFilesEngine(spec)))
    curate_method(run, replace(make_setup(store, source, mine=BOTH), encoder=spec))
    for name in ("candidates", "negatives"):
        assert _table(run, name, "mine").equals(_table(encoded, name, "mine"))
