"""Cutting texts into parts: what was there before stays where it was."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import schemas
from tasks.data.ingesting.text_store import hash_all, to_hex
from tasks.data.partition import Before, Cut, count_passage_parts, count_query_parts, cut, generations_of
from tasks.texts import part_of


def texts(*numbers: int, dataset: str = "a") -> pl.DataFrame:
    high, low = hash_all(pl.Series([f"text {number}" for number in numbers], dtype=pl.String))
    named = pl.Series("dataset", [dataset] * len(numbers), dtype=pl.String)
    return pl.DataFrame({"dataset": named, "high": high, "low": low})


def cut_by(frame: pl.DataFrame, before: Cut | None = None, size: int = 10) -> Cut:
    known = None if before is None else Before(before.places, before.counts)
    return cut(frame, known, lambda count, *, first: -(-count // size))


def places(frame: pl.DataFrame, made: Cut) -> dict[tuple[str, int], int]:
    return dict(zip(frame.select("dataset", "high").iter_rows(), made.part.tolist(), strict=True))


@pytest.mark.parametrize(
    ("queries", "parts"),
    [(1, 1), (147, 1), (256, 1), (257, 2), (51_200, 200), (51_201, 200), (200_000, 200), (200_001, 201)],
)
def test_first_queries_are_in_parts_of_256_or_200_parts_and_all_others_in_parts_of_1000(
    queries: int, parts: int
) -> None:
    assert count_query_parts(queries) == parts
    assert count_query_parts(queries, wanted=7) == 7
    later = -(-queries // 1_000)
    assert count_query_parts(queries, first=False) == later
    assert count_query_parts(queries, wanted=7, first=False) == min(later, 7)


def test_passages_are_in_parts_of_50000() -> None:
    assert [count_passage_parts(n) for n in (1, 50_000, 50_001, 10_000_000)] == [1, 1, 2, 200]
    assert [count_passage_parts(9, wanted=4), count_passage_parts(9, wanted=4, first=False)] == [4, 1]


def test_a_first_cut_is_by_the_hash_of_the_text_alone() -> None:
    frame = texts(*range(35))
    made = cut_by(frame)
    hashes = to_hex(frame["high"].to_numpy(), frame["low"].to_numpy())
    assert made.counts == (4,)
    assert made.part.tolist() == [part_of(digits, 4) for digits in hashes]
    assert dict(made.places.schema) == schemas.PLACES.columns
    assert made.places["generation"].unique().to_list() == [0]


def test_new_texts_get_parts_of_their_own_and_the_others_stay_wherever_they_stand() -> None:
    first = cut_by(texts(*range(0, 60, 2)))
    mixed = texts(*range(62))  # every second one is new
    second = cut_by(mixed, first)
    assert second.counts == (3, 4)
    old, now = places(texts(*range(0, 60, 2)), first), places(mixed, second)
    assert {key: now[key] for key in old} == old
    hashes = to_hex(mixed["high"].to_numpy(), mixed["low"].to_numpy()).to_list()
    new = {n: second.part[n] for n in (*range(1, 60, 2), 60, 61)}
    assert new == {n: 3 + part_of(hashes[n], 4) for n in new}
    (one,), (again, added) = (list(made.places_by_generation()) for made in (first, second))
    assert one.equals(again)
    assert added["generation"].unique().to_list() == [1]
    assert pl.concat([again, added]).equals(second.places)
    third = cut_by(mixed, second)
    assert (third.counts, third.part.tolist()) == (second.counts, second.part.tolist())
    assert third.places.equals(second.places)


def test_the_order_of_the_texts_decides_nothing() -> None:
    first, frame = cut_by(texts(*range(30))), texts(*range(40))
    mixed = frame[np.random.default_rng(0).permutation(40)]
    one, two = cut_by(frame, first), cut_by(mixed, first)
    assert places(frame, one) == places(mixed, two)
    assert one.places.equals(two.places)


def test_a_part_that_lost_its_texts_keeps_its_number() -> None:
    first = cut_by(texts(*range(30)))
    fewer = texts(*(n for n, part in enumerate(first.part) if part != 0))
    second = cut_by(fewer, first)
    assert second.counts == (3,)
    assert set(second.part.tolist()) == {1, 2}


def test_the_same_text_of_another_dataset_is_new() -> None:
    first = cut_by(texts(1, 2))
    second = cut_by(pl.concat([texts(1, 2), texts(1, dataset="b")]), first)
    assert second.part.tolist() == [0, 0, 1]
    assert second.places["dataset"].n_unique() == 2


def test_a_text_that_was_away_returns_to_its_part_where_an_older_ingest_is_known_too() -> None:
    first = cut_by(texts(*range(30)))
    second = cut_by(texts(*range(10, 31)), first)
    both = Before(pl.concat([second.places, first.places]), second.counts)
    third = cut(texts(*range(31)), both, lambda count, *, first: 1)
    assert (third.counts, third.new) == ((3, 1), 0)
    assert third.part.tolist() == [*first.part.tolist(), 3]


def test_what_is_new_is_counted() -> None:
    first = cut_by(texts(1, 2))
    assert (first.new, cut_by(texts(2, 3, 4), first).new, cut_by(texts(7), first).counts) == (2, 2, (1, 1))


def test_texts_of_generations_that_are_not_named_count_as_new() -> None:
    second = cut_by(texts(1, 2, 3), cut_by(texts(1, 2)))
    third = cut(texts(1, 2, 3, 4), Before(second.places, second.counts[:1]), lambda count, *, first: 1)
    assert (third.counts, third.part.tolist()) == ((1, 1), [0, 0, 1, 1])


def test_no_texts_make_no_parts() -> None:
    assert cut_by(texts()).counts == ()
    assert cut_by(texts(), cut_by(texts(1))).parts in (0, 1)


def test_the_generations_of_each_kind_are_read_as_they_were_written() -> None:
    table = generations_of(query=(3, 1), passage=(20,))
    assert dict(table.schema) == schemas.GENERATIONS.columns
    places = schemas.PLACES.empty()
    assert Before.of(schemas.QUERY, places, table) == Before(places, (3, 1))
    passages = Before.of(schemas.PASSAGE, places, table)
    assert passages is not None
    assert passages.counts == (20,)
    assert Before.of(schemas.QUERY, None, None) is None


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sets(st.integers(0, 60), min_size=1), min_size=2, max_size=5))
def test_a_text_stays_in_its_part_as_long_as_it_is_there(versions: list[set[int]]) -> None:
    before: Cut | None = None
    known: dict[tuple[str, int], int] = {}
    for numbers in versions:
        frame = texts(*sorted(numbers))
        made = cut_by(frame, before)
        now = places(frame, made)
        if known.keys() & now.keys():
            assert all(now[key] == part for key, part in known.items() if key in now)
        assert all(part < made.parts for part in now.values())
        before, known = made, now
