"""A reranker scores the pool in the method: what it changes, what it leaves, and what is asked."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.method.curate import find_candidates, ingest
from flows.method.retrieving import encode
from flows.method.tables import Finished
from infra.engines.rerankers.cross_encoder import CrossEncoderEngine
from infra.engines.specs import CrossEncoderSpec
from infra.models.random_models import build_tiny_cross_encoder
from infra.stages.runner import Runner
from infra.storage.artifacts import read_table
from infra.storage.store import Store
from tests.flows.animals import make_setup, run_method, write_source
from tests.flows.fakes import InProcess

MINE = {"range_max": 6, "num_negatives": 3}
RESCORE = {"engine": {"kind": "cross_encoder", "model": "path:reranker"}}
_PAIR = ["dataset", "query_id", "doc_id"]


@dataclass
class Hashes:
    """Scores a pair by a hash of its texts, and keeps what it was asked."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked += pairs
        return [int(hashlib.md5("|".join(pair).encode()).hexdigest()[:6], 16) / 16**6 for pair in pairs]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrossEncoderEngine]:
    folder = tmp_path_factory.mktemp("reranker")
    build_tiny_cross_encoder(folder)
    engine = CrossEncoderEngine(CrossEncoderSpec(model=str(folder), digest="d"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("animals") / "source")


def _table(run: Runner, name: str, stage: str) -> pl.DataFrame:
    return read_table(run.store, Finished({done.name: done for done in run.runs}).table(name, stage)).sort(_PAIR)


def _pool(folder: Path, source: Path, reranker: Hashes, **changes: Any) -> tuple[Runner, list[str]]:
    """Run the method up to the pool; returns the run, and the parts that it computed."""
    store = Store.open(str(folder / "store"))
    executor = InProcess(store, folder / "scratch", {"reranker": reranker})
    run = Runner(store, executor)
    setup = make_setup(store, source, **{"mine": MINE, "rescore": RESCORE, **changes})
    data = ingest(run, setup)
    find_candidates(run, setup, data, encode(run, data, setup.encoder))
    assert not [done.failed for done in run.runs if done.failed]
    return run, executor.computed


@pytest.mark.slow
def test_the_judges_see_the_same_pool_and_the_negatives_are_those_of_the_reranker(
    tmp_path: Path, source: Path, loaded: CrossEncoderEngine
) -> None:
    alike = {"mine": MINE, "treatments": ["default"]}
    _, plain, _ = run_method(tmp_path, source, **alike)
    _, run, executor = run_method(tmp_path, source, {"reranker": loaded}, **alike, rescore=RESCORE)
    assert not {done.name for done in plain.runs} & {"choose_pool", "rescore"}
    for name, stage in (("candidates", "mine"), ("features", "judge_similarity"), ("decisions", "decide")):
        assert _table(run, name, stage).equals(_table(plain, name, stage))
    assert not [name for name in executor.computed if name.startswith(("encode", "search", "judge", "decide"))]

    candidates, rescored = _table(run, "candidates", "mine"), _table(run, "rescored", "rescore")
    both = candidates.join(rescored, on=_PAIR, suffix="_there")
    assert both.height == candidates.height == rescored.filter(pl.col("rank") > 0).height
    assert both["rank"].equals(both["rank_there"], check_names=False)
    assert both["score"].equals(both["retriever_score"], check_names=False)
    best = both.sort("dataset", "query_id", "score_there", "rank", descending=[False, False, True, False])
    expected = best.group_by("dataset", "query_id", maintain_order=True).head(3)
    negatives = _table(run, "negatives", "mine")
    assert negatives.sort("dataset", "query_id", "rank")["doc_id"].to_list() == expected["doc_id"].to_list()
    assert not negatives.equals(_table(plain, "negatives", "mine"))
    (asked,) = [done for done in run.runs if done.name == "rescore"]
    assert sum(manifest.stats["facts"]["calls"] for manifest in asked.manifests) == rescored.height == 9 * (6 + 1)


def test_another_filter_asks_nothing_and_a_deeper_pool_asks_about_its_new_pairs_only(
    tmp_path: Path, source: Path
) -> None:
    reranker = Hashes()
    _pool(tmp_path, source, reranker)
    assert _pool(tmp_path, source, reranker)[1] == []
    asked = len(reranker.asked)
    assert asked == 9 * (6 + 1)
    other = {**MINE, "max_score": 0.9, "sampling_strategy": "random"}
    assert set(_pool(tmp_path, source, reranker, mine=other)[1]) == {"mine-00000", "mine-00001"}
    assert len(reranker.asked) == asked

    deeper = {**RESCORE, "depth": 9}
    run, _ = _pool(tmp_path, source, reranker, rescore=deeper)
    assert len(reranker.asked) == len(set(reranker.asked)) == asked + 9 * 3
    assert _table(run, "candidates", "mine")["rank"].max() == 6
    wider = {**MINE, "range_max": 8}
    assert set(_pool(tmp_path, source, reranker, rescore=deeper, mine=wider)[1]) == {"mine-00000", "mine-00001"}


def test_of_several_retrievers_the_fused_order_is_scored_as_deep_as_the_reranker_reads(
    tmp_path: Path, source: Path
) -> None:
    both = {**MINE, "retrievers": ["dense", "bm25"]}
    run, _ = _pool(tmp_path, source, Hashes(), mine=both, rescore={**RESCORE, "depth": 10})
    rescored = _table(run, "rescored", "rescore")
    assert rescored.group_by("query_id").agg(pl.col("rank").max())["rank"].unique().to_list() == [10]
    assert {"dense+bm25", "positive"} <= set(rescored["retriever"])
    assert rescored["retriever_score"].null_count() == 0
