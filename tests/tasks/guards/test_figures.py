"""What the guards found is summed over parts and said in sentences."""

import polars as pl

from tasks.guards.figures import sum_up_guards
from tasks.guards.tables import GUARD_FIGURES, count_figures


def test_figures_of_parts_are_summed_and_the_largest_stays_the_largest() -> None:
    parts = [
        count_figures("positives", {"candidates": 50, "found": 2, "queries": 1, "dropped": 0}, [("a", 0.7)]),
        count_figures("positives", {"candidates": 50, "found": 1, "queries": 1, "dropped": 0}, [("b", 0.9)]),
        count_figures("corpus", {"texts": 6, "groups": 2, "removable": 4, "largest": 4}, [("7", 4.0)]),
    ]
    found = sum_up_guards(pl.concat(parts), passages=60)
    assert found is not None
    assert found.counts["positives"] == {"candidates": 100, "found": 3, "queries": 2, "dropped": 0}
    assert found.examples == {"positives": ["b", "a"]}
    assert found.sentences == [
        "6 passages (10%) have a near duplicate; they form 2 groups, the largest of 4. With one of each group, 4 "
        "passages fewer would do.",
        "3 of 100 candidates (3.0%) nearly repeat a positive of their query, of 2 queries; they were judged as others.",
    ]
    assert found.as_json()["corpus"]["largest"] == 4
    assert found.rows == [("candidate that repeats a positive", "b"), ("candidate that repeats a positive", "a")]


def test_contamination_and_rows_are_said_whether_there_is_something_or_not() -> None:
    evaluation = count_figures("contamination", {"evaluation_queries": 5, "evaluation_passages": 9})
    none = {"queries": 100, "found": 0, "by_query": 0, "by_positive": 0, "same": 0, "dropped": 0}
    some = {"queries": 100, "found": 4, "by_query": 3, "by_positive": 2, "same": 1, "dropped": 4}
    rows = count_figures("rows-relabel", {"same_positive": 3, "negative_is_positive": 4, "left_out": 2})
    clean = sum_up_guards(pl.concat([evaluation, count_figures("contamination", none)]))
    dirty = sum_up_guards(pl.concat([evaluation, count_figures("contamination", some), rows]))
    assert clean is not None
    assert dirty is not None
    assert clean.sentences == [
        "None of 100 training queries repeats, itself or in a positive, a text of 5 queries and 9 passages of "
        "evaluation sets."
    ]
    assert dirty.sentences[0].endswith("3 by the query, 2 by a positive. 4 were dropped.")
    assert dirty.sentences[1] == (
        "7 pairs of rows of relabel must not share a batch: 3 have a positive in common, in 4 a negative of one is a "
        "positive of the other. 2 further pairs are not listed (guards.most_rows)."
    )


def test_without_a_guard_nothing_is_said() -> None:
    assert sum_up_guards(None) is None
    assert sum_up_guards(GUARD_FIGURES.empty()) is None
