"""What stands in a batch: every row once per epoch, positives and negatives in turn, nothing twice."""

import itertools
from collections import Counter
from collections.abc import Iterator

import pytest

from tasks.training import rotation as rotation_module
from tasks.training.rotation import EMPTY, Place, Rotation
from tasks.training.train_config import TrainConfig
from tasks.training.training_rows import Row
from tests.tasks.records import mutable_records

ROWS = (Row(0, (0, 1, 2), (10, 11, 12, 13, 14)), Row(1, (3,), (20,)), Row(2, (4, 5), ()), Row(3, (6,), (30, 31)))


def rotation(**settings: object) -> Rotation:
    return Rotation(ROWS, TrainConfig.model_validate({"steps": 6, "batch_size": 4, "num_negatives": 2, **settings}))


def of_query(found: Rotation, query: int) -> Iterator[Place]:
    places = (found.place(number) for number in range(len(found)))
    return (place for place in places if place.query == query)


def test_every_row_stands_once_in_each_epoch_and_in_a_new_order() -> None:
    found = rotation()
    epochs = [[found.place(4 * epoch + place).query for place in range(4)] for epoch in range(6)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert len(found) == 24


def test_a_row_has_one_positive_per_epoch_and_they_take_turns_the_same_number_of_times() -> None:
    turns = [place.positives for place in of_query(rotation(), 0)]
    assert Counter(turns) == {(0,): 2, (1,): 2, (2,): 2}
    assert all(after[0] == (before[0] + 1) % 3 for before, after in itertools.pairwise(turns))
    assert {place.positives for place in of_query(rotation(), 1)} == {(3,)}


def test_negatives_move_on_by_their_width_and_none_is_repeated_within_a_row() -> None:
    windows = [place.negatives for place in of_query(rotation(), 0)]
    assert all(len(set(window)) == 2 for window in windows)
    assert Counter(one for window in windows[:5] for one in window) == dict.fromkeys(range(10, 15), 2)
    assert {place.negatives for place in of_query(rotation(), 1)} == {(20, EMPTY)}
    assert {place.negatives for place in of_query(rotation(), 2)} == {(EMPTY, EMPTY)}


def test_batches_are_full_where_an_epoch_ends_within_one_and_where_there_are_few_rows() -> None:
    found = rotation(batch_size=6, steps=4)
    assert Counter(found.place(number).query for number in range(24)) == dict.fromkeys(range(4), 6)


def test_rows_have_the_columns_that_the_longest_one_fills() -> None:
    assert (rotation().positives, rotation().negatives) == (1, 2)
    assert (rotation(num_negatives=9).negatives, rotation(num_negatives=0).negatives) == (5, 0)
    several = rotation(objective="all_positives", positives_per_row=2)
    assert several.positives == 2
    assert {tuple(sorted(place.positives)) for place in of_query(several, 0)} == {(0, 1), (0, 2), (1, 2)}
    assert {place.positives for place in of_query(several, 1)} == {(3, EMPTY)}


@pytest.mark.parametrize("other", [7, 8])
def test_the_seed_alone_decides(other: int) -> None:
    def places(seed: int) -> list[Place]:
        found = rotation(seed=seed)
        return [found.place(number) for number in range(len(found))]

    assert places(42) == places(42)
    assert places(42) != places(other)


def test_the_label_of_a_place_holds_the_numbers_of_its_texts() -> None:
    assert Place(3, (6,), (30, EMPTY)).numbers == [3, 6, 30, -1]
    assert mutable_records(rotation_module) == set()
