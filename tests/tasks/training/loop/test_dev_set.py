"""The development set of a training: which queries and passages it holds, and what it scores."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tasks import schemas
from tasks.training.loop.dev_set import DevSet, dev_set
from tests.tasks.training.tables import passages_table, queries_table

PROMPTS = ("ask: ", "read: ")


def qrels(rows: list[tuple[str, str, int]]) -> pl.DataFrame:
    return pl.DataFrame([("toy", *row) for row in rows], schema=schemas.QRELS.columns, orient="row")


LABELS = [("q0", "p0", 1), ("q1", "p1", 1), ("q2", "p2", 0)]


def made(queries: int = 10, passages: int = 5) -> DevSet:
    return dev_set((queries_table("dev"), passages_table(), qrels(LABELS)), queries, passages, PROMPTS)


def test_it_holds_queries_with_a_relevant_passage_these_passages_and_a_fixed_sample() -> None:
    found = made()
    assert found.queries["query_id"].to_list() == ["q0", "q1"]
    assert found.passages.height == 2 + 5
    assert {"p0", "p1"} <= set(found.passages["doc_id"])
    assert found.labels.height == 2
    assert made().passages.equals(found.passages)
    assert made(passages=0).passages["doc_id"].to_list() == ["p0", "p1"]
    assert made(queries=1).queries.height == 1


def test_without_development_queries_it_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"none came; hold some out \(ingest.dev or ingest.dev_split\)"):
        dev_set((queries_table("test"), passages_table(), qrels(LABELS)), 10, 5, PROMPTS)


class Words:
    """Encodes a text as which topics it names; `confused` takes the second query's topic for another one."""

    similarity_fn_name = "cosine"

    def __init__(self, topics: tuple[str, ...]) -> None:
        self.topics, self.prompts = topics, set[str]()

    def encode(self, texts: list[str], *, prompt: str, **_: Any) -> torch.Tensor:
        self.prompts.add(prompt)
        found = np.array([[topic in text for topic in self.topics] for text in texts], dtype=np.float32)
        return torch.from_numpy(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1))


def test_the_score_is_the_mean_ndcg_over_the_queries() -> None:
    labels = qrels([("q0", "p0", 1), ("q1", "p1", 1)])
    table = passages_table().filter(pl.col("doc_id").is_in(["p0", "p1", "p2"]))
    found = dev_set((queries_table("dev"), table, labels), 10, 5, PROMPTS)
    both: Any = Words(("cats", "dogs", "boats"))
    assert found.score(both) == pytest.approx(1.0)
    assert both.prompts == set(PROMPTS)
    # Without a word for dogs all passages are alike to the second query; of equal scores the larger id is first.
    assert found.score(Words(("cats", "boats"))) == pytest.approx((1 + 1 / np.log2(3)) / 2)
