"""Training rows: one per query and positive, and nothing but what the instances were made with."""

from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from tasks.training import training_rows as training_rows_module
from tasks.training.training_rows import TrainConfig, training_rows
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of
from tests.tasks.training.tables import eight_instances, instances_table, passages_table, queries_table


def rows_of(instances: pl.DataFrame, **settings: Any) -> Any:
    config = TrainConfig(model="unused", **settings)
    return training_rows(config, instances=instances, queries=queries_table(), passages=passages_table())


def test_each_positive_makes_a_row_of_its_own() -> None:
    rows = rows_of(instances_table([("q0", ["p0", "s0"], ["n0", "n1"])]), num_negatives=2)
    assert rows.columns == {
        "anchor": ["what about cats", "what about cats"],
        "positive": ["cats are nice", "old cats and cats"],
        "negative_1": ["not cats", "not cats"],
        "negative_2": ["not dogs", "not dogs"],
    }
    assert (rows.padded, rows.skipped) == (0, 0)


def test_only_the_first_positive_is_used_when_asked() -> None:
    rows = rows_of(instances_table([("q0", ["p0", "s0"], ["n0"])]), num_negatives=1, positives="first")
    assert rows.columns["positive"] == ["cats are nice"]


def test_too_few_negatives_are_repeated_in_turn_and_counted() -> None:
    rows = rows_of(instances_table([("q0", ["p0"], ["n0", "n1"]), ("q1", ["p1"], ["n1", "n2", "n3"])]), num_negatives=3)
    assert [rows.columns[f"negative_{i}"][0] for i in (1, 2, 3)] == ["not cats", "not dogs", "not cats"]
    assert (len(rows), rows.padded) == (2, 1)


def test_an_instance_without_negatives_gets_those_of_other_instances() -> None:
    instances = instances_table([("q0", ["p0", "n2"], []), ("q1", ["p1"], ["n1"]), ("q2", ["p2"], ["n2"])])
    rows = rows_of(instances, num_negatives=2)
    of_q0 = [row for row in zip(*rows.columns.values(), strict=True) if row[0] == "what about cats"]
    assert of_q0 == [
        ("what about cats", "cats are nice", "not dogs", "not dogs"),
        ("what about cats", "not boats", "not dogs", "not dogs"),
    ]
    assert (len(rows), rows.borrowed, rows.padded, rows.skipped) == (4, 2, 2, 0)
    assert rows_of(instances, num_negatives=2) == rows


def test_where_no_instance_has_a_negative_the_rows_are_pairs() -> None:
    rows = rows_of(instances_table([("q0", ["p0"], []), ("q1", ["p1"], [])]), num_negatives=3)
    assert list(rows.columns) == ["anchor", "positive"]
    assert (len(rows), rows.borrowed, rows.skipped) == (2, 0, 0)


def test_an_instance_that_can_borrow_nothing_is_skipped_and_counted() -> None:
    rows = rows_of(instances_table([("q0", ["p0", "n1"], []), ("q1", ["p1"], ["n1"])]), num_negatives=1)
    assert rows.columns["anchor"] == ["what about dogs"]
    assert rows.skipped == 1


def test_without_hard_negatives_no_instance_is_skipped() -> None:
    rows = rows_of(instances_table([("q0", ["p0"], [])]), num_negatives=0)
    assert rows.columns == {"anchor": ["what about cats"], "positive": ["cats are nice"]}


def test_a_changed_text_is_refused() -> None:
    stale = eight_instances().with_columns(texts_hash=pl.lit("0" * 32))
    with pytest.raises(ValueError, match="toy/q0 are not those its instance was made with"):
        rows_of(stale)


def test_a_missing_passage_is_named() -> None:
    config = TrainConfig(model="unused")
    passages = passages_table().filter(pl.col("doc_id") != "n1")
    with pytest.raises(ValueError, match="no text for toy/n1 of toy/q0"):
        training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages)


def test_a_held_out_query_is_refused() -> None:
    config = TrainConfig(model="unused")
    with pytest.raises(ValueError, match="toy/q0 is held out"):
        training_rows(config, instances=eight_instances(), queries=queries_table("test"), passages=passages_table())


@pytest.mark.parametrize("field", [{"steps": 0}, {"temperature": 0}, {"warmup_ratio": 1.0}, {"epochs": 3}])
def test_settings_out_of_range_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(model="unused", **field)


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(TrainConfig) == {
        "": "finite",
        "model": ("", "operational"),
        "steps": (60, ">=1"),
        "batch_size": (16, ">=2"),
        "num_negatives": (3, ">=0"),
        "positives": "all",
        "learning_rate": (2e-05, ">0"),
        "warmup_ratio": (0.1, ">=0", "<1"),
        "temperature": (0.05, ">0"),
        "max_seq_length": (128, ">=8"),
        "frozen_layers": (0, ">=0"),
        "query_prompt": "",
        "passage_prompt": "",
        "seed": (42, ">=0"),
        "threads": (2, ">=1"),
        "device": "cpu",
        "bf16": False,
    }


def test_rows_are_counted_as_padded_and_as_borrowed_one_by_one() -> None:
    instances = instances_table([("q0", ["p0", "s0"], ["n0"]), ("q1", ["p1"], ["n1", "n2"]), ("q2", ["p2", "s2"], [])])
    rows = rows_of(instances, num_negatives=2)
    assert (len(rows), rows.padded, rows.borrowed, rows.instances) == (5, 2, 2, 3)
    first = rows_of(instances, num_negatives=2, positives="first")
    assert (len(first), first.padded, first.borrowed) == (3, 1, 1)
    none = rows_of(instances, num_negatives=0)
    assert (len(none), none.padded, none.borrowed) == (5, 0, 0)


def test_more_negatives_than_wanted_are_cut_and_nothing_is_padded() -> None:
    rows = rows_of(instances_table([("q0", ["p0"], ["n0", "n1", "n2"])]), num_negatives=2)
    assert [rows.columns[f"negative_{i}"] for i in (1, 2)] == [["not cats"], ["not dogs"]]
    assert (list(rows.columns), rows.padded) == (["anchor", "positive", "negative_1", "negative_2"], 0)


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(training_rows_module) == set()
