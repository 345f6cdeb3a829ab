"""Silver labels: what two versions of a training set say of each other."""

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as some

from tasks.quality.silver import MADE_BY, PAIRS, SILVER, draw_silver, find_silver

Row = tuple[str, str, str]  # query id, positives, negatives


def pairs(*rows: Row, query: str = "") -> pl.DataFrame:
    """Pairs of rows; the texts of passages are their ids, or what stands after `=`."""
    made = [
        ("d", query_id, f"hash of {query or query_id}", doc_id, text or doc_id, positive)
        for query_id, positives, negatives in rows
        for positive, names in ((True, positives), (False, negatives))
        for doc_id, _, text in (name.partition("=") for name in names.split())
    ]
    return pl.DataFrame(made, schema=PAIRS, orient="row")


def labels_of(default: pl.DataFrame, relabelled: pl.DataFrame) -> tuple[dict[str, str], dict[str, int]]:
    found = find_silver(default, relabelled)
    assert dict(found.labels.schema) == SILVER
    assert set(found.labels["made_by"]) <= {MADE_BY}
    return {
        f"{q} {d}": label for q, d, label in found.labels.select("query_id", "doc_id", "label").rows()
    }, found.without


def test_a_negative_that_moved_is_relevant_and_one_that_stayed_is_not() -> None:
    labels, without = labels_of(pairs(("q1", "p", "a b c")), pairs(("q1", "p b", "a c")))
    assert labels == {"q1 a": "not_relevant", "q1 b": "relevant", "q1 c": "not_relevant"}
    assert without == {}


def test_what_cannot_be_compared_is_counted_by_reason() -> None:
    default = pairs(("q1", "p", "a b"), ("q2", "p", "a a2=a b c d p e"), ("q3", "p", "a"))
    relabelled = pl.concat([pairs(("q2", "p e", "a b=other d x")), pairs(("q3", "p a", ""), query="another")])
    labels, without = labels_of(default, relabelled)
    assert labels == {"q2 a": "not_relevant", "q2 d": "not_relevant", "q2 e": "relevant"}
    assert without == {
        "already_positive": 1,
        "duplicate": 1,
        "passage_missing": 1,
        "query_differs": 1,
        "row_dropped": 2,
        "text_differs": 1,
    }


def test_other_ids_of_the_same_texts_are_recognised_and_both_sides_are_no_label() -> None:
    labels, without = labels_of(pairs(("q1", "p", "a b")), pairs(("q1", "p y=b", "x=a z=b")))
    assert labels == {"q1 a": "not_relevant"}
    assert without == {"on_both_sides": 1}


def test_rows_of_the_same_texts_that_say_the_opposite_give_no_label() -> None:
    default = pl.concat([pairs(("q1", "p", "a"), query="same"), pairs(("q2", "p", "a b"), query="same")])
    relabelled = pl.concat([pairs(("q1", "p a", ""), query="same"), pairs(("q2", "p", "a b"), query="same")])
    labels, without = labels_of(default, relabelled)
    assert labels == {"q2 b": "not_relevant"}
    assert without == {"contradiction": 2}


@settings(max_examples=60, deadline=None)
@given(some.data())
def test_every_negative_has_a_label_or_is_counted(data: Any) -> None:
    names = some.lists(some.sampled_from("abcdefg"), max_size=6).map(" ".join)
    rows = some.lists(some.tuples(some.sampled_from(["q1", "q2", "q3"]), names, names), max_size=4)
    default, relabelled = pairs(*data.draw(rows)), pairs(*data.draw(rows))
    labels, without = find_silver(default, relabelled)
    assert labels.height + sum(without.values()) == default.filter(~pl.col("positive")).height
    assert not labels.select("dataset", "query_id", "text_hash").is_duplicated().any()
    again = find_silver(default.sample(fraction=1, shuffle=True, seed=1), relabelled)
    assert again.without == without


def test_pairs_are_drawn_evenly_from_datasets_and_labels_and_depend_on_texts_alone() -> None:
    rows = [
        (dataset, f"q{n}", f"d{n}", f"{dataset} q{n}", f"d{n}", label, MADE_BY)
        for dataset, label, size in (("a", "relevant", 3), ("a", "not_relevant", 90), ("b", "not_relevant", 40))
        for n in range(size)
    ]
    table = pl.DataFrame(rows, schema=SILVER, orient="row").unique(["query_hash", "text_hash"], maintain_order=True)
    drawn = draw_silver([table], 20)
    assert drawn.height == 20
    counted = dict(drawn.group_by(pl.format("{} {}", "dataset", "label")).len().iter_rows())
    assert counted["b not_relevant"] >= 8
    assert sum(counted.values()) == 20
    pieces = [table.filter(pl.col("query_id") < "q3"), table.filter(pl.col("query_id") >= "q3")]
    assert draw_silver(pieces, 20).equals(drawn)
    assert not draw_silver([table], 20, seed=1).equals(drawn)
    assert draw_silver([], 20).is_empty()
