"""A whole table in the place of one in parts."""

import polars as pl

from tasks import parts as parts_module
from tasks.parts import Whole, in_parts
from tests.tasks.records import mutable_records


def test_a_frame_is_its_only_part_and_a_table_in_parts_stays_as_it_is() -> None:
    frame = pl.DataFrame({"a": [1, 2]})
    whole = in_parts(frame)
    assert list(whole.parts) == [0]
    assert whole.at(0) is frame
    assert whole.at(7) is frame
    table = Whole(frame, (3, 4))
    assert in_parts(table) is table


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(parts_module) == set()
