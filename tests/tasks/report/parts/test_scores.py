"""Counted scores: bins, queries by what is relevant, and the dots that a hash draws."""

import polars as pl
import pytest

from tasks.report import plots
from tasks.report.parts import scores as scores_module
from tasks.report.parts.scores import BINS, count_relevant, count_scores, fewest_dots, place_dots
from tasks.summaries import DOTS, RELEVANT_BY_QUERY, SCORES
from tests.tasks.report.tables import toy_tables, verdicts


def test_the_bins_are_those_of_the_plots() -> None:
    values = [0.0, 0.04, 0.039999, 0.12, 0.28, 0.5, 0.5600000001, 0.96, 0.999, 1.0, 1.2, -0.1]
    said = verdicts("llm", *[("q", f"d{n}", "relevant", value) for n, value in enumerate(values)])
    made = count_scores("llm", said)
    assert dict(made.schema) == SCORES.columns
    counts = dict(made.select("bin", "pairs").iter_rows())
    assert plots.bars_of(counts, 0, 1, BINS) == plots.bin_values(values, 0, 1, BINS)


def test_verdicts_without_a_score_are_counted_in_no_bin() -> None:
    said = verdicts(
        "llm", ("q", "a", "unparsed", None), ("q", "b", "unparsed", None), ("q", "c", "unsure", float("nan"))
    )
    assert count_scores("llm", said).rows() == [("llm", "unparsed", None, 2), ("llm", "unsure", None, 1)]
    assert count_scores("llm", said.clear()).is_empty()


def test_queries_with_the_same_counts_are_one_row_and_equal_texts_count_once() -> None:
    tables = toy_tables()
    decisions = verdicts(
        "cascade",
        *[("q1", doc, "relevant", 0.9) for doc in ("d2", "d3")],
        *[(query, doc, "unsure", 0.5) for query in ("q2", "q4") for doc in ("d1", "d3")],
    )
    same = tables["candidates"].with_columns(text_hash=pl.lit("t"))
    made = count_relevant(decisions, same)
    assert dict(made.schema) == RELEVANT_BY_QUERY.columns
    assert made.rows() == [("toy", 2, 0, 0, 2), ("toy", 2, 2, 1, 1)]


def test_dots_are_pairs_that_both_scored_and_the_smallest_hashes_stay_whatever_else_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [(f"q{n}", "d", "unsure", n / 40) for n in range(40)]
    similarity, last = verdicts("similarity", *pairs), verdicts("llm", *pairs[:30], ("q39", "d", "unparsed", None))
    decisions = verdicts("cascade", *pairs)
    dots, total = place_dots(similarity, last, decisions)
    assert (dict(dots.schema), dots.height, total) == (DOTS.columns, 30, 30)
    assert dots["x"].to_list() == dots["y"].to_list()
    monkeypatch.setattr(scores_module, "MOST_DOTS", 10)
    few, total = place_dots(similarity, last, decisions)
    assert (few.rows(), total) == (dots.rows()[:10], 30)
    fewer = [place_dots(similarity, last[part : part + 15], decisions)[0] for part in (0, 15)]
    assert fewest_dots(pl.concat(fewer)).equals(few)
