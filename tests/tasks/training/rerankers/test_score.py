"""The scores of a reranker on held-out queries."""

from collections.abc import Sequence

import polars as pl
import pytest

from tasks import schemas
from tasks.evaluation.rerank import RerankConfig
from tasks.summaries import FOUND
from tasks.training.evaluate import EvaluateConfig
from tasks.training.rerankers.score import pick_held_out, rerank_held_out, score_reranked

CONFIG = EvaluateConfig(model_name="reranker-relabel", measures=("nDCG@10", "RR@10"), depth=10)


def queries() -> pl.DataFrame:
    rows = [("d", "q1", "one", "h1", "test"), ("d", "q2", "two", "h2", "dev"), ("d", "q3", "three", "h3", "train")]
    rows += [("e", "q1", "other", "h4", "test"), ("d", "q4", "unjudged", "h5", "test")]
    return pl.DataFrame(rows, schema=schemas.QUERIES.columns, orient="row")


def qrels() -> pl.DataFrame:
    rows = [("d", "q1", "b", 1), ("d", "q2", "a", 1), ("e", "q1", "z", 1), ("d", "q4", "a", 0)]
    return pl.DataFrame(rows, schema=schemas.QRELS.columns, orient="row")


def found() -> pl.DataFrame:
    rows = [("d", "q1", "a", 0.9), ("d", "q1", "b", 0.8), ("d", "q2", "a", 0.7), ("e", "q1", "y", 0.5)]
    return pl.DataFrame(rows, schema=["dataset", "query_id", "doc_id", "score"], orient="row").select(*FOUND.columns)


def test_each_held_out_query_with_a_relevant_passage_is_scored_and_a_missed_one_is_zero() -> None:
    made = score_reranked(CONFIG, found=found(), queries=queries(), qrels=qrels())
    rank = made["scores"].filter(pl.col("measure") == "RR@10").select("dataset", "query_id", "value").rows()
    assert rank == [("d", "q1", 0.5), ("e", "q1", 0.0)]
    assert set(made["scores"]["model"]) == {"reranker-relabel"}
    assert made["dev_scores"].select("query_id", "value").unique().rows() == [("q2", 1.0)]
    none = score_reranked(CONFIG, found=found(), queries=queries().filter(pl.col("split") == "train"), qrels=qrels())
    assert none["scores"].is_empty()


def test_held_out_queries_alone_are_read_by_each_part_of_the_corpus() -> None:
    asked = pick_held_out(RerankConfig(), queries=queries())["asked"]
    assert asked["query_id"].to_list() == ["q1", "q2", "q1", "q4"]
    assert dict(asked.schema) == schemas.QUERIES.columns

    class Lengths:
        def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> Sequence[float]:
            return [float(len(query) + len(text)) for query, text in pairs]

    here = pl.DataFrame([("d", "b", "", "passage", "h9")], schema=schemas.PASSAGES.columns, orient="row")
    made = rerank_held_out(RerankConfig(), run=found(), asked=asked, passages=here, engine=Lengths())
    assert made["found"].rows() == [("d", "q1", "b", 10.0)]


def test_a_measure_that_looks_deeper_than_what_is_ranked_is_refused() -> None:
    deep = CONFIG.model_copy(update={"measures": ("R@100",)})
    with pytest.raises(ValueError, match="R@100"):
        score_reranked(deep, found=found(), queries=queries(), qrels=qrels())
