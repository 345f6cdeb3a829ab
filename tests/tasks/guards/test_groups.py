"""Pairs of near duplicates become groups."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.guards.config import NearConfig
from tasks.guards.groups import group_duplicates, join_rows
from tasks.guards.tables import GROUPS, LINKS


def links_of(*pairs: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema=LINKS.columns, orient="row")


def test_linked_texts_form_a_group_also_through_others() -> None:
    made = group_duplicates(NearConfig(shards=2), links=links_of((3, 8), (5, 9), (8, 20)))
    groups = pl.concat([frame for _, frame in made["groups"]]).sort("text")
    assert groups.rows() == [(3, 3), (5, 5), (8, 3), (9, 5), (20, 3)]
    counts = dict(made["figures"].filter(pl.col("measure") != "example").select("measure", "value").iter_rows())
    assert counts == {"texts": 5, "groups": 2, "removable": 3, "largest": 3}
    assert made["figures"].filter(pl.col("measure") == "example").select("example", "value").row(0) == ("3", 3.0)


def test_each_text_is_in_the_shard_of_its_number() -> None:
    made = group_duplicates(NearConfig(shards=3), links=links_of((3, 8), (8, 20)))
    assert [(shard, frame["text"].to_list()) for shard, frame in made["groups"]] == [(0, [3]), (2, [8, 20])]


def test_without_pairs_there_is_no_group() -> None:
    made = group_duplicates(NearConfig(), links=LINKS.empty())
    assert list(made["groups"]) == []
    assert made["figures"]["value"].to_list() == [0, 0, 0, 0]
    assert GROUPS.empty().columns == ["text", "group"]


def test_a_long_chain_is_one_group() -> None:
    rows = np.arange(5_000)
    assert not join_rows(5_001, rows, rows + 1).any()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_the_root_of_a_row_is_the_smallest_row_that_is_reached(pairs: list[tuple[int, int]]) -> None:
    left, right = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    found = join_rows(13, left, right)
    for row in range(13):
        reached, open_ = {row}, [row]
        while open_:
            at = open_.pop()
            new = {b for a, b in [*pairs, *((b, a) for a, b in pairs)] if a == at} - reached
            reached |= new
            open_ += new
        assert found[row] == min(reached)
