"""Which text an id stands for, compared with going through all rows one by one."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tasks.data.ingesting import claims
from tasks.data.ingesting.claims import Settled, first_of, is_other, settle

# A row: (query id, query text, positives, negatives); a passage: (id, text). Few ids, so that they meet.
_PASSAGE = some.tuples(some.integers(0, 3), some.integers(0, 1))
_ROW = some.tuples(
    some.integers(0, 2), some.integers(0, 1), some.lists(_PASSAGE, max_size=3), some.lists(_PASSAGE, max_size=3)
)
Row = tuple[int, int, list[tuple[int, int]], list[tuple[int, int]]]


def _settle(rows: list[Row]) -> Settled:
    named = [(n, p, side == 2) for n, row in enumerate(rows) for side in (2, 3) for p in row[side]]
    schema = {"dataset": pl.String, "id": pl.String, "high": pl.UInt64, "low": pl.UInt64}
    queries = pl.DataFrame([("d", f"q{row[0]}", 7, row[1]) for row in rows], schema=schema, orient="row")
    passages = pl.DataFrame([("d", f"p{p[0]}", p[1], 7) for _, p, _ in named], schema=schema, orient="row")
    pairs = pl.DataFrame(
        [(row, place, positive) for place, (row, _, positive) in enumerate(named)],
        schema={"row": pl.UInt32, "place": pl.UInt32, "positive": pl.Boolean},
        orient="row",
    )
    return settle(queries, pairs, passages)


def _one_by_one(rows: list[Row]) -> tuple[set[int], set[int]]:
    """Rows and references that are left out."""
    queries, passages = dict[int, int](), dict[int, int]()
    rows_out, pairs_out, at = set[int](), set[int](), 0
    for number, (query, text, positives, negatives) in enumerate(rows):
        first, at = at, at + len(positives) + len(negatives)
        if queries.get(query, text) != text:
            rows_out.add(number)
            continue
        kept = 0
        for pair, (passage, says) in enumerate(positives, start=first):
            good = passages.setdefault(passage, says) == says
            kept += good
            pairs_out |= set() if good else {pair}
        if positives and not kept:
            rows_out.add(number)
            continue
        queries[query] = text
        for pair, (passage, says) in enumerate(negatives, start=first + len(positives)):
            if passages.setdefault(passage, says) != says:
                pairs_out.add(pair)
    return rows_out, pairs_out


@settings(max_examples=200, deadline=None)
@given(some.lists(_ROW, max_size=8))
def test_it_leaves_out_what_going_through_all_rows_leaves_out(rows: list[Row]) -> None:
    settled = _settle(rows)
    assert (settled.rows, settled.pairs) == _one_by_one(rows)


def test_conflicts_name_the_record_whose_text_is_kept() -> None:
    settled = _settle([(0, 0, [(1, 0)], []), (0, 1, [(1, 0)], []), (1, 0, [(1, 1)], []), (2, 0, [(2, 0)], [(1, 1)])])
    assert settled.queries == [(1, 0)]
    assert settled.passages == [(2, 0), (4, 0)]
    assert settled.unanswered == [2]


def test_the_first_row_with_the_same_values_is_named() -> None:
    frame = pl.DataFrame({"a": ["x", "y", "x"], "high": [1, 2, 1], "low": [1, 2, 3]})
    first = first_of(frame, "a")
    assert first.tolist() == [0, 1, 0]
    assert is_other(frame, first).tolist() == [False, False, True]


@settings(deadline=None, max_examples=50)
@given(some.lists(some.tuples(some.sampled_from("ab"), some.integers(0, 5))))
def test_the_first_row_with_equal_values_is_found(rows: list[tuple[str, int]]) -> None:
    frame = pl.DataFrame(rows, schema={"dataset": pl.Categorical, "id": pl.Int64}, orient="row")
    assert first_of(frame, "dataset", "id").tolist() == [rows.index(row) for row in rows]


def test_rows_of_which_one_hash_is_equal_are_told_apart_by_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(frame: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame({"first": [7] * frame.height, "second": frame["id"]}).cast(pl.UInt64)

    monkeypatch.setattr(claims, "keys_of", alike)
    assert first_of(pl.DataFrame({"id": [3, 1, 3, 2, 1]}), "id").tolist() == [0, 1, 0, 3, 1]
