"""A cross-encoder ranks again what was found, part by part of the corpus."""

from collections.abc import Sequence

import polars as pl

from tasks.evaluation.rerank import RerankConfig, rerank
from tasks.evaluation.search import ScoreConfig, score_collection
from tasks.summaries import FOUND, IGNORED, RUN
from tests.tasks.training.test_evaluate import passages_of, qrels_of, queries_of

QUERIES = queries_of(("toy", "q1", "red", "test"), ("toy", "q2", "blue", "test"))
PASSAGES = passages_of(("toy", "a", "blue sky"), ("toy", "b", "red sky"), ("toy", "c", "unreadable"), ("toy", "d", "x"))


class Overlap:
    """Scores pairs by the words they share, and cannot read one passage."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[float]:
        self.asked += pairs
        return [
            float("nan") if passage == "unreadable" else 0.1 + 0.8 * (query in passage.split())
            for query, passage in pairs
        ]


def test_the_passages_of_a_run_are_scored_in_each_part_of_the_corpus_and_ranked_together() -> None:
    ranked = [("toy", query, doc, rank, 1.0 / rank) for query in ("q1", "q2") for rank, doc in enumerate("cab", 1)]
    run, engine = pl.DataFrame(ranked, schema=RUN.columns, orient="row"), Overlap()
    parts = [
        rerank(RerankConfig(), run=run, queries=QUERIES, passages=part, engine=engine)["found"]
        for part in (PASSAGES[:1], PASSAGES[1:3], PASSAGES[3:])
    ]
    assert [part.height for part in parts] == [2, 4, 0]
    assert {tuple(part.schema.items()) for part in parts} == {tuple(FOUND.columns.items())}
    assert len(engine.asked) == 6
    scored = score_collection(
        ScoreConfig(model_name="reranker", measures=("RR@10",)),
        found=pl.concat(parts),
        queries=QUERIES,
        qrels=qrels_of(("toy", "q1", "b", 1), ("toy", "q2", "a", 1)),
        left_out=IGNORED.empty(),
    )
    assert scored["scores"]["value"].to_list() == [1.0, 1.0]
    assert scored["run"].filter(query_id="q1")["doc_id"].to_list() == ["b", "a", "c"]
