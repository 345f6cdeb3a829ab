"""Measures are those of ir_measures: the same names, and the same values of each query."""

import ir_measures
import numpy as np
import polars as pl
import pytest

from tasks.evaluation import measures as module
from tasks.evaluation.measures import measure_queries, parse_measures, refuse_deep

NAMES = ("nDCG@10", "R@20", "RR@10", "P@5", "AP@20", "Success@1", "RR(rel=2)@10")


def _ranked() -> tuple[pl.DataFrame, pl.DataFrame]:
    """A run of 30 queries, and graded labels of which some are of passages that no run can hold."""
    rng = np.random.default_rng(0)
    run = [(f"q{q}", f"d{d}", float(rng.normal())) for q in range(30) for d in rng.choice(80, 25, replace=False)]
    labels = [(f"q{q}", f"d{d}", int(rng.integers(0, 4))) for q in range(30) for d in rng.choice(80, 9, replace=False)]
    labels += [(f"q{q}", f"gone{q}", 2) for q in range(0, 30, 4)]
    kept = pl.DataFrame(labels, schema=["query_id", "doc_id", "relevance"], orient="row")
    return pl.DataFrame(run, schema=["query_id", "doc_id", "score"], orient="row"), kept


def _expected(names: tuple[str, ...], run: pl.DataFrame, labels: pl.DataFrame) -> dict[tuple[str, str], float]:
    qrels = [ir_measures.Qrel(*row) for row in labels.iter_rows()]
    docs = [ir_measures.ScoredDoc(*row) for row in run.iter_rows()]
    found = ir_measures.iter_calc([ir_measures.parse_measure(name) for name in names], qrels, docs)
    return {(one.query_id, str(one.measure)): one.value for one in found}


def _found(table: pl.DataFrame) -> dict[tuple[str, str], float]:
    return {(query_id, name): value for query_id, name, value in table.iter_rows()}


def test_values_are_those_of_ir_measures_however_many_queries_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run, labels = _ranked()
    whole = measure_queries(NAMES, run=run, labels=labels)
    assert _found(whole) == pytest.approx(_expected(NAMES, run, labels))
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    assert measure_queries(NAMES, run=run, labels=labels).equals(whole)


def test_the_least_relevance_holds_for_all_measures_but_those_of_grades() -> None:
    """Before, a passage of grade 1 was relevant for RR, R and P, whatever `min_relevance` was."""
    run, labels = _ranked()
    found = _found(measure_queries(NAMES, run=run, labels=labels, min_relevance=2))
    named = ("RR(rel=2)@10", "P(rel=2)@5", "AP(rel=2)@20", "Success(rel=2)@1")
    expected = _expected(named, run, labels)
    for (query_id, name), value in expected.items():
        assert found[query_id, name.replace("(rel=2)", "")] == pytest.approx(value)
    graded = _expected(("nDCG@10",), run, labels)
    assert {key: found[key] for key in graded} == pytest.approx(graded)
    low = run.join(labels.filter(relevance=1), on=["query_id", "doc_id"], how="semi")
    assert low.height
    assert set(measure_queries(("R@20", "RR@10"), run=low, labels=labels, min_relevance=2)["value"]) == {0.0}


def test_a_relevant_passage_that_no_run_can_hold_is_in_the_ideal_ranking_and_among_those_to_be_found() -> None:
    run = pl.DataFrame([("q", "d", 1.0)], schema=["query_id", "doc_id", "score"], orient="row")
    labels = pl.DataFrame([("q", "d", 1), ("q", "gone", 2)], schema=["query_id", "doc_id", "relevance"], orient="row")
    values = _found(measure_queries(("nDCG@10", "R@10"), run=run, labels=labels))
    assert values["q", "R@10"] == 0.5
    assert values["q", "nDCG@10"] == pytest.approx(1 / (2 + 1 / np.log2(3)))


def test_a_query_without_a_ranking_has_the_value_zero_and_one_without_labels_none() -> None:
    run, labels = _ranked()
    found = measure_queries(("nDCG@10",), run=run.filter(pl.col("query_id") != "q5"), labels=labels)
    assert found.filter(query_id="q5")["value"].to_list() == [0.0]
    without = measure_queries(("nDCG@10",), run=run, labels=labels.filter(pl.col("query_id") != "q5"))
    assert "q5" not in without["query_id"]
    assert measure_queries(("nDCG@10",), run=run, labels=labels.clear()).is_empty()


def test_a_cutoff_below_the_depth_is_refused_and_says_what_to_set() -> None:
    """Before, R@1000 was R@100 where 100 passages were ranked."""
    refuse_deep(("nDCG@10", "R@100", "AP"), 100)
    with pytest.raises(ValueError, match=r"R@1000 looks at 1000 passages of a ranking, and depth is 100.*depth: 1000"):
        refuse_deep(("nDCG@10", "R@1000"), 100)


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="measures known to ir_measures expected, such as nDCG@10"):
        parse_measures(["Delight@10"])
