"""The pick against that of sentence-transformers, where theirs is right: one positive per query."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from tasks import schemas
from tasks.mining.dense.search import search
from tasks.mining.mine import MineConfig, mine
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
    datasets = pytest.importorskip("datasets")
    util = pytest.importorskip("sentence_transformers.util")
    model, names = HashModel(), [f"passage {number}" for number in range(60)]
    anchors = [f"query {number}" for number in range(12)]
    theirs = util.mine_hard_negatives(
        datasets.Dataset.from_dict({"anchor": anchors, "positive": names[:12]}),
        model,
        corpus=names,
        num_negatives=4,
        range_max=40,
        verbose=False,
        **setting,
    )
    expected = sorted(zip(theirs["anchor"], theirs["negative"], strict=True))

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
    positives = positives_of(*[(anchor, name, name) for anchor, name in zip(anchors, names[:12], strict=True)])
    found = search(
        SearchConfig(),
        queries=queries,
        positives=positives,
        query_embeddings=query_embeddings,
        passages=passages,
        passage_embeddings=passage_embeddings,
    )["hits"]
    hits = pl.concat(frame for _, frame in found)
    ours = mine(
        MineConfig(num_negatives=4, range_max=40, **setting),
        given=schemas.GIVEN.empty(),
        irrelevant=schemas.IRRELEVANT.empty(),
        hits=hits,
        queries=queries,
        positives=positives,
        query_embeddings=query_embeddings,
        passage_embeddings=passage_embeddings,
    )["negatives"]
    assert expected
    assert sorted(ours.select("query_id", "doc_id").rows()) == expected
