"""The pick against that of sentence-transformers, where theirs is right: one positive per query."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from infra.engines.rerankers.cross_encoder import CrossEncoderEngine
from infra.engines.specs import CrossEncoderSpec
from infra.models.random_models import build_tiny_cross_encoder
from tasks import schemas
from tasks.mining.dense.search import search
from tasks.mining.hashing import HashConfig, hash_corpus
from tasks.mining.mine import MineConfig, choose_pool, mine
from tasks.mining.rescored import RESCORED
from tasks.mining.search import SearchConfig
from tasks.texts import hash_text
from tests.tasks.mining.tables import (
    EMBEDDINGS,
    positives_of,
)


class HashModel:
    """The part of a SentenceTransformer that `mine_hard_negatives` calls: a seeded unit vector per text."""

    device = "cpu"

    def __init__(self) -> None:
        """Load torch for the one slow test only."""
        self.torch = pytest.importorskip("torch")

    def vector(self, text: str) -> list[float]:
        """The text's vector, a point of the upper half circle."""
        angle = int(hash_text(text)[:6], 16) / 16**6 * np.pi
        return [float(np.cos(angle)), float(np.sin(angle))]

    def encode_query(self, texts: list[str], **_: object) -> "np.ndarray[Any, Any]":
        """Encode queries."""
        return np.array([self.vector(text) for text in texts], dtype=np.float32)

    encode_document = encode_query

    def similarity(self, left: Any, right: Any) -> Any:
        """All inner products."""
        return self.torch.as_tensor(left) @ self.torch.as_tensor(right).T

    def similarity_pairwise(self, left: Any, right: Any) -> Any:
        """Row by row inner products."""
        return (self.torch.as_tensor(left) * self.torch.as_tensor(right)).sum(dim=1)


def _prepare(model: HashModel, anchors: list[str], names: list[str]) -> dict[str, pl.DataFrame]:
    """Return what `mine` reads: each anchor is a query, whose positive is the passage of the same number."""
    queries = pl.DataFrame(
        [("d", anchor, anchor, anchor, "train") for anchor in anchors], schema=schemas.QUERIES.columns, orient="row"
    )
    passages = pl.DataFrame(
        [("d", name, "", name, name) for name in names], schema=schemas.PASSAGES.columns, orient="row"
    )
    query_embeddings, passage_embeddings = (
        pl.DataFrame({"text_hash": texts, "vector": [model.vector(text) for text in texts]}, schema=EMBEDDINGS)
        for texts in (anchors, names)
    )
    labelled = zip(anchors, names[: len(anchors)], strict=True)
    tables = {
        "queries": queries,
        "positives": positives_of(*[(anchor, name, name) for anchor, name in labelled]),
        "query_embeddings": query_embeddings,
        "passage_embeddings": passage_embeddings,
    }
    hashes = hash_corpus(HashConfig(), passages=passages)["hashes"]
    hits = [frame for _, frame in search(SearchConfig(), passages=passages, hashes=hashes, **tables)["hits"]]
    none = {"given": schemas.GIVEN.empty(), "irrelevant": schemas.IRRELEVANT.empty()}
    return {**tables, **none, "hits": pl.concat(hits)}


def _expected(model: HashModel, anchors: list[str], names: list[str], **setting: Any) -> list[tuple[str, str]]:
    """Return the negatives that sentence-transformers picks."""
    datasets = pytest.importorskip("datasets")
    util = pytest.importorskip("sentence_transformers.util")
    theirs = util.mine_hard_negatives(
        datasets.Dataset.from_dict({"anchor": anchors, "positive": names[: len(anchors)]}),
        model,
        corpus=names,
        num_negatives=4,
        verbose=False,
        **setting,
    )
    found = sorted(zip(theirs["anchor"], theirs["negative"], strict=True))
    assert found
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"range_min": 3},
        {"relative_margin": 0.05},
        {"absolute_margin": 0.1},
        {"max_score": 0.7, "min_score": 0.1},
        {"relative_margin": 0.05, "absolute_margin": 0.02, "max_score": 0.9},
    ],
)
def test_the_pick_equals_sentence_transformers_for_single_positives(setting: dict[str, Any]) -> None:
    model, names = HashModel(), [f"passage {number}" for number in range(60)]
    anchors = [f"query {number}" for number in range(12)]
    expected = _expected(model, anchors, names, range_max=40, **setting)
    ours = mine(MineConfig(num_negatives=4, range_max=40, **setting), **_prepare(model, anchors, names))["negatives"]
    assert sorted(ours.select("query_id", "doc_id").rows()) == expected


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranker")
    build_tiny_cross_encoder(folder)
    return folder


@pytest.mark.slow
def test_with_a_cross_encoder_the_pick_equals_that_of_sentence_transformers(reranker: Path) -> None:
    """All 23 passages but the positive are scored by both: they cut the pool before the positives are left out."""
    cross_encoder = pytest.importorskip("sentence_transformers").CrossEncoder(str(reranker), device="cpu")
    engine = CrossEncoderEngine(CrossEncoderSpec(model=str(reranker), digest="d"))
    words = ("rows", "columns", "sum of", "mean of", "fox and", "dog over")
    model, names = HashModel(), [f"{words[number % 6]} {words[number // 4]} {number}" for number in range(24)]
    anchors = [f"{words[number % 5]} number {number}" for number in range(8)]
    tables = _prepare(model, anchors, names)
    asked = choose_pool(MineConfig(num_negatives=4).pool_of(23), **tables)["asked"]
    scores = engine.score(asked.select("query_id", "doc_id").rows())  # ids are texts here
    engine.close()
    said = asked.rename({"score": "retriever_score"}).with_columns(score=pl.Series(scores))
    picks = set[tuple[tuple[str, str], ...]]()
    for setting in (
        {"max_score": 1.0},  # without a filter, sentence-transformers does not ask the cross-encoder
        {"relative_margin": 0.05},
        {"relative_margin": 0.5},
        {"absolute_margin": 0.1},
        {"max_score": 0.6, "min_score": 0.1},
        {"relative_margin": 0.05, "absolute_margin": 0.02, "max_score": 0.9},
    ):
        expected = _expected(model, anchors, names, range_max=23, cross_encoder=cross_encoder, **setting)
        config = MineConfig(num_negatives=4, range_max=23, **setting)
        ours = mine(config, **tables, rescored=said.select(*RESCORED.columns))["negatives"]
        assert sorted(ours.select("query_id", "doc_id").rows()) == expected, setting
        picks.add(tuple(expected))
    assert len(picks) > 3  # the settings make a difference
