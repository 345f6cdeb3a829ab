"""Unlabelled pairs of several rankings are put to judges, and each measure is taken with and without their labels."""

from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from tasks.evaluation.pool import (
    JUDGED,
    CompletedConfig,
    PoolConfig,
    RankedConfig,
    least_label,
    pool_unlabelled,
    score_completed,
)
from tasks.schemas import CANDIDATES, PASSAGES, POSITIVES, QRELS, QUERIES, SCORES, VERDICTS
from tasks.summaries import RUN
from tasks.texts import combine_hashes, hash_guard, hash_passage, hash_shown

QUERY = [("q1", "test", 0), ("q2", "test", 2), ("q3", "dev", 0), ("q4", "test", 1)]


def queries(*, parts: bool = True) -> pl.DataFrame:
    rows = [("d", id_, f"about {id_}", f"hash-{id_}", split) for id_, split, _ in QUERY]
    frame = pl.DataFrame(rows, schema=QUERIES.columns, orient="row")
    return frame.with_columns(part=pl.Series([part for *_, part in QUERY], dtype=pl.Int32)) if parts else frame


def passages(names: str = "abcdef") -> list[pl.DataFrame]:
    """Two parts of a corpus."""
    rows = [("d", name, "", f"text {name}", hash_passage("", f"text {name}")) for name in names]
    frame = pl.DataFrame(rows, schema=PASSAGES.columns, orient="row")
    return [frame[:3], frame[3:]]


def ranking(**found: str) -> pl.DataFrame:
    """Rankings, one letter for each passage: `q1="abc"`."""
    rows = [("d", query, name, n, 1 / n) for query, names in found.items() for n, name in enumerate(names, start=1)]
    return pl.DataFrame(rows, schema=RUN.columns, orient="row")


def qrels(*labels: tuple[str, str, int]) -> pl.DataFrame:
    return pl.DataFrame([("d", *label) for label in labels], schema=QRELS.columns, orient="row")


LABELS = qrels(("q1", "a", 1), ("q1", "b", 0), ("q2", "c", 2), ("q3", "a", 1), ("q4", "gone", 1))


def pooled(config: RankedConfig | None = None, labels: pl.DataFrame = LABELS, **found: str) -> dict[str, Any]:
    runs = [ranking(**found), ranking(q1="ed", q2="fa", q4="a")]
    config = config or RankedConfig(depth=2, parts=4)
    made = pool_unlabelled(config, run=runs, queries=queries(), qrels=labels, passages=passages())
    return {name: list(table) if name != "facts" else table for name, table in made.items()}


def test_the_first_passages_of_all_models_without_any_label_are_put_to_the_judges_once_each() -> None:
    made = pooled(q1="bed", q2="cfa", q3="def")
    pairs = [frame.select("query_id", "doc_id", "rank").rows() for frame in made["candidates"]]
    # b has a label, d is the second of one model and the third of the other, q3 is of another split.
    assert pairs == [[("q1", "d", 2), ("q1", "e", 1)], [], [("q2", "a", 2), ("q2", "f", 1)], []]
    assert made["facts"] == {"queries": 3, "pairs": 4, "queries_without_positive": 1}
    (known,) = made["positives"][0].rows(named=True)
    assert (known["doc_id"], known["source"], known["text_hash"]) == ("a", "qrels", hash_passage("", "text a"))
    assert (known["shown_hash"], known["guard_hash"]) == (hash_shown("", "text a"), hash_guard("", "text a"))
    first = made["candidates"][0].row(0, named=True)
    assert first["positives_hash"] == combine_hashes([known["text_hash"]])
    assert (first["query_hash"], first["retriever"], first["score"]) == ("hash-q1", "ranked", None)
    assert [frame.height for frame in made["positives"]] == [1, 0, 1, 0]
    assert dict(made["candidates"][0].schema) == dict(CANDIDATES.columns)
    assert dict(made["positives"][0].schema) == dict(POSITIVES.columns)


def test_skipped_datasets_other_depths_and_higher_labels() -> None:
    assert pooled(RankedConfig(skip=("d",), parts=3), q1="bed")["facts"]["pairs"] == 0
    assert pooled(RankedConfig(depth=1, parts=3), q1="bed")["facts"]["pairs"] == 2  # e of q1, f of q2
    made = pooled(RankedConfig(depth=2, parts=3, min_relevance=2), q1="bed")
    assert (made["facts"]["queries"], made["facts"]["pairs"]) == (1, 2)  # q2 alone has such a label
    assert least_label(LABELS, 3) == 1


def test_where_everything_has_a_label_there_are_empty_parts() -> None:
    labels = qrels(*(("q1", name, 1) for name in "abcdef"), *(("q2", name, 1) for name in "abcdef"))
    made = pooled(RankedConfig(depth=2, parts=3), labels=labels, q1="abc")
    assert [frame.height for frame in made["candidates"]] == [0, 0, 0]
    assert [frame.height for frame in made["positives"]] == [0, 0, 0]


def decided(**states: str) -> pl.DataFrame:
    """Decisions on pairs of q1."""
    rows = [{"dataset": "d", "query_id": "q1", "doc_id": name, "state": state} for name, state in states.items()]
    return pl.DataFrame(rows, schema={n: VERDICTS.columns[n] for n in ("dataset", "query_id", "doc_id", "state")})


def scored(decisions: pl.DataFrame, labels: pl.DataFrame = LABELS, **changes: Any) -> dict[str, dict[str, float]]:
    config = CompletedConfig(model_name="m", measures=("nDCG@10", "R@100", "RR@10"), **changes)
    asked: dict[str, Any] = {"run": ranking(q1="edab"), "queries": queries(parts=False), "qrels": labels}
    made = score_completed(config, **asked, decisions=decisions)
    assert all(dict(frame.schema) == dict(SCORES.columns) for frame in made.values())
    return {name: dict(f.filter(query_id="q1").select("measure", "value").rows()) for name, f in made.items()}


def test_what_the_judges_call_relevant_counts_and_what_they_are_unsure_of_does_not() -> None:
    found = scored(decided(e="relevant", d="unsure"))
    assert found["labelled"] == pytest.approx(
        {"nDCG@10": 1 / 2, "R@100": 1.0, "RR@10": 1 / 3, JUDGED: 2 / 4}
    )  # a is third; a and b have labels
    ideal = 1 + 1 / 1.584962500721156
    assert found["completed"] == pytest.approx({"nDCG@10": 1.5 / ideal, "R@100": 1.0, "RR@10": 1.0, JUDGED: 3 / 4})


def test_what_is_decided_not_to_be_relevant_has_a_label_and_no_label_of_the_data_is_changed() -> None:
    found = scored(decided(e="not_relevant", d="unparsed", a="not_relevant", b="relevant"))
    without = {name: value for name, value in found["completed"].items() if name != JUDGED}
    assert without == {name: value for name, value in found["labelled"].items() if name != JUDGED}
    assert found["completed"][JUDGED] == 3 / 4


def test_added_passages_have_the_least_label_of_a_relevant_one() -> None:
    labels = qrels(("q1", "a", 2), ("q1", "b", 1))
    assert scored(decided(e="relevant"), labels, min_relevance=2)["completed"]["RR@10"] == 1.0
    assert scored(decided(e="relevant"), labels, min_relevance=2)["labelled"]["RR@10"] == pytest.approx(1 / 3)


def test_the_share_of_labelled_passages_needs_ten_that_are_ranked() -> None:
    config = CompletedConfig(model_name="m", measures=("RR@5",), depth=5)
    tables: dict[str, Any] = {"run": [ranking(q1="ab")], "queries": queries(parts=False), "qrels": LABELS}
    made = score_completed(config, **tables, decisions=decided(e="relevant"))
    assert set(made["completed"]["measure"]) == {"RR@5"}
    assert set(made["completed"]["query_id"]) == {"q1", "q2", "q4"}
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        PoolConfig(depth=0)
