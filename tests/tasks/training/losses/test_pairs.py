"""Names of pairs, and pairs in sorted lists."""

import polars as pl

from tasks.texts import hash_text
from tasks.training.losses import pairs as pairs_module
from tasks.training.losses.pairs import Pairs, name_query, name_text, with_names
from tests.tasks.records import mutable_records


def test_a_pair_is_named_by_dataset_query_and_text_and_names_reach_up_to_64_bits() -> None:
    frame = pl.DataFrame(
        {"dataset": ["a", "b", "a"], "query_hash": [hash_text("q")] * 3, "text_hash": ["f" * 32, "0" * 32, "0" * 32]}
    )
    named = with_names(frame)
    assert named["query"].to_list() == [name_query(dataset, hash_text("q")) for dataset in ("a", "b", "a")]
    assert named["text"].to_list() == [2**64 - 1, 0, 0]
    assert named["query"].n_unique() == 2
    assert (named["query"].dtype, named["text"].dtype) == (pl.UInt64, pl.UInt64)
    assert name_text("f" * 32) == 2**64 - 1


def test_pairs_are_sorted_each_once_and_the_first_value_counts() -> None:
    found = Pairs.of(10, [3, 0, 3], [1, 2, 1], [5.0, 7.0, 9.0])
    assert found.keys.tolist() == [2, 31]
    assert found.values is not None
    assert found.values.tolist() == [7.0, 5.0]
    assert len(found) == 2
    assert [found.holds(3, 1), found.holds(1, 3), found.holds(9, 9)] == [True, False, False]


def test_there_may_be_no_pairs() -> None:
    empty = Pairs.of(0, [], [])
    assert len(empty) == 0
    assert not empty.holds(0, 0)
    assert mutable_records(pairs_module) == set()
