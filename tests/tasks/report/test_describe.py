"""Counts of the data, part by part."""

import polars as pl

from tasks import schemas
from tasks.report.describe import DescribeConfig, describe_passages, describe_queries
from tests.tasks.report.tables import rows, toy_tables

CONFIG = DescribeConfig()


def counted(counts: pl.DataFrame, subject: str) -> list[tuple[str, str, float, int]]:
    return counts.filter(subject=subject).select("dataset", "kind", "value", "count").rows()


def test_lengths_positives_candidates_and_negatives_are_counted_and_queries_without_any_count_as_0() -> None:
    tables = toy_tables()
    negatives = tables["candidates"].filter(query_id="q1").select(schemas.NEGATIVES.columns.keys())
    made = describe_queries(
        CONFIG,
        queries=tables["queries"],
        positives=tables["positives"],
        candidates=tables["candidates"].with_columns(score=pl.Series([0.12345, 0.12321, 0.5, None])),
        negatives=negatives,
    )["counts"]
    assert dict(made.schema) == schemas.COUNTS.columns
    assert counted(made, "query_chars") == [("toy", "test", 3, 1), ("toy", "train", 13, 1), ("toy", "train", 16, 1)]
    assert counted(made, "positives_per_query") == [("toy", "test", 0, 1), ("toy", "train", 1, 2)]
    assert counted(made, "candidates_per_query") == [("toy", "train", 2, 2)]
    assert counted(made, "negatives_per_query") == [("toy", "train", 0, 1), ("toy", "train", 2, 1)]
    assert counted(made, "negative_rank") == [("toy", "dense", 1, 2)]
    assert counted(made, "negative_score") == [("toy", "dense", 0.123, 2)]
    per_query = {f"{what}_per_query" for what in ("positives", "candidates", "negatives")}
    assert set(made["subject"]) == {"query_chars", "negative_rank", "negative_score"} | per_query


def test_passages_are_counted_by_dataset_with_their_titles() -> None:
    passages = rows(
        schemas.PASSAGES, ("a", "d1", "ab", "cde", "h1"), ("a", "d2", "", "cdefg", "h2"), ("b", "d1", "", "é", "h3")
    )
    made = describe_passages(CONFIG, passages=passages)["counts"]
    assert counted(made, "passage_chars") == [("a", "", 5, 2), ("b", "", 1, 1)]


def test_empty_tables_have_no_counts() -> None:
    empty = {name: schema.empty() for name, schema in (
        ("queries", schemas.QUERIES), ("positives", schemas.POSITIVES),
        ("candidates", schemas.CANDIDATES), ("negatives", schemas.NEGATIVES),
    )}  # fmt: skip
    assert describe_queries(CONFIG, **empty)["counts"].equals(schemas.COUNTS.empty())
    assert describe_passages(CONFIG, passages=schemas.PASSAGES.empty())["counts"].equals(schemas.COUNTS.empty())
