"""Training rows: one per query, the pairs that are no negatives, and only what the instances were made with."""

import math
from typing import Any

import polars as pl
import pytest

from tasks import schemas
from tasks.summaries import KNOWN_PAIRS
from tasks.texts import hash_passage, hash_text
from tasks.training import training_rows as training_rows_module
from tasks.training.losses.pairs import name_query, name_text
from tasks.training.train_config import TrainConfig
from tasks.training.training_rows import Rows, training_rows
from tests.tasks.records import mutable_records
from tests.tasks.training.tables import eight_instances, instances_table, passages_table, queries_table

CATS, DOGS = "what about cats", "what about dogs"


def rows_of(instances: pl.DataFrame, known: pl.DataFrame | None = None, **settings: Any) -> Rows:
    config = TrainConfig(model="unused", **settings)
    return training_rows(config, instances=instances, queries=queries_table(), passages=passages_table(), known=known)


def shown(rows: Rows) -> list[tuple[str, list[str], list[str]]]:
    return [
        (
            rows.queries[row.query],
            [rows.passages[one] for one in row.positives],
            [rows.passages[one] for one in row.negatives],
        )
        for row in rows.rows
    ]


def masked(rows: Rows, query: str) -> set[str]:
    number = rows.queries.index(query)
    return {text for place, text in enumerate(rows.passages) if rows.known.holds(number, place)}


def judged(*pairs: tuple[str, str, str | None, float | None]) -> pl.DataFrame:
    """KNOWN_PAIRS: query, passage (without a title), state, score."""
    made = [
        (name_query("toy", hash_text(query)), name_text(hash_passage("", text)), state, score)
        for query, text, state, score in pairs
    ]
    return pl.DataFrame(made, schema=KNOWN_PAIRS.columns, orient="row")


def test_a_query_is_one_row_with_all_its_positives_and_negatives() -> None:
    rows = rows_of(instances_table([("q0", ["p0", "s0"], ["n0", "n1"])]))
    assert shown(rows) == [(CATS, ["cats are nice", "old cats and cats"], ["not cats", "not dogs"])]
    assert (rows.few, rows.bare, rows.masked, rows.instances) == (1, 0, 0, 1)


def test_only_the_first_positive_is_used_when_asked_and_the_others_are_still_no_negatives() -> None:
    rows = rows_of(instances_table([("q0", ["p0", "s0"], ["n0"])]), positives="first")
    assert shown(rows) == [(CATS, ["cats are nice"], ["not cats"])]
    assert masked(rows, CATS) == {"cats are nice", "old cats and cats"}


def test_each_positive_makes_a_row_of_its_own_when_asked() -> None:
    rows = rows_of(instances_table([("q0", ["p0", "s0"], ["n0"])]), positives="each")
    assert [positives for _, positives, _ in shown(rows)] == [["cats are nice"], ["old cats and cats"]]
    assert len(rows) == 2


def test_a_row_without_negatives_stays_and_is_counted() -> None:
    rows = rows_of(instances_table([("q0", ["p0"], []), ("q1", ["p1"], ["n1"])]), num_negatives=2)
    assert [negatives for _, _, negatives in shown(rows)] == [[], ["not dogs"]]
    assert (len(rows), rows.few, rows.bare) == (2, 1, 1)
    assert rows_of(instances_table([("q0", ["p0"], [])]), num_negatives=0).bare == 0


def test_what_was_judged_relevant_or_unsure_is_known_and_no_negative_of_its_row() -> None:
    instances = instances_table([("q0", ["p0"], ["n0", "n1", "n2"]), ("q1", ["p1"], ["n3"])])
    known = judged(
        (CATS, "not cats", "relevant", None), (CATS, "not dogs", "unsure", None), (CATS, "gone", "unsure", 0)
    )
    both = rows_of(instances, known)
    assert masked(both, CATS) == {"cats are nice", "not cats", "not dogs"}
    assert masked(both, DOGS) == {"dogs are nice"}
    assert shown(both)[0][2] == ["not boats"]
    assert both.masked == 2
    assert masked(rows_of(instances, known, mask="relevant"), CATS) == {"cats are nice", "not cats"}
    assert masked(rows_of(instances, known, mask="positives"), CATS) == {"cats are nice"}
    nothing = rows_of(instances, known, mask="none")
    assert len(nothing.known) == 0
    assert nothing.masked == 0


def two_datasets(negatives: list[str]) -> Rows:
    """The query about cats in two datasets; the second, `other`, has another positive, and these negatives."""
    tables = [queries_table(), passages_table(), instances_table([("q0", ["p0"], ["n0"])])]
    second = instances_table([("q0", ["s0"], negatives)])
    other = [frame.with_columns(dataset=pl.lit("other")) for frame in (*tables[:2], second)]
    queries, passages, instances = (pl.concat(both) for both in zip(tables, other, strict=True))
    return training_rows(TrainConfig(), instances=instances, queries=queries, passages=passages)


def test_a_query_in_two_datasets_has_the_positives_of_both_but_those_that_it_lists_as_negatives_itself() -> None:
    rows = two_datasets(["n1"])
    assert all(rows.known.holds(query, rows.passages.index("cats are nice")) for query in (0, 1))
    rows = two_datasets(["p0", "n1"])
    of_query = [rows.known.holds(query, rows.passages.index("cats are nice")) for query in range(2)]
    names = [rows.passages[row.positives[0]] for row in rows.rows]
    assert dict(zip(names, of_query, strict=True)) == {"cats are nice": True, "old cats and cats": False}


def test_the_query_s_own_text_is_no_negative_of_it() -> None:
    own = pl.DataFrame([("toy", "x", "", CATS, hash_passage("", CATS))], schema=schemas.PASSAGES.columns, orient="row")
    instances = instances_table([("q0", ["p0"], ["n0"]), ("q1", ["p1"], ["n1"])])
    passages = pl.concat([passages_table().filter(pl.col("doc_id") != "n1"), own.with_columns(doc_id=pl.lit("n1"))])
    from tasks.texts import combine_hashes

    hashes = [hash_text(DOGS), hash_passage("", "dogs are nice"), hash_passage("", CATS)]
    changed = pl.when(pl.col("query_id") == "q1").then(pl.lit(combine_hashes(hashes))).otherwise("texts_hash")
    rows = training_rows(
        TrainConfig(), instances=instances.with_columns(texts_hash=changed), queries=queries_table(), passages=passages
    )
    assert masked(rows, CATS) == {"cats are nice", CATS}


def test_soft_labels_of_judges_are_log_odds_and_a_positive_without_one_is_nearly_certain() -> None:
    instances = instances_table([("q0", ["p0"], ["n0", "n1"])])
    known = judged((CATS, "not cats", None, 0.5), (CATS, "not dogs", None, 0.0))
    rows = rows_of(instances, known, objective="kl", mask="none")
    assert rows.soft is not None
    assert rows.soft.values is not None
    found = dict(zip((rows.passages[key] for key in rows.soft.keys), rows.soft.values, strict=True))
    assert found == pytest.approx({"cats are nice": 4.595, "not cats": 0.0, "not dogs": -4.595}, abs=1e-3)


def test_soft_labels_of_a_teacher_are_its_scores_and_nothing_else() -> None:
    instances = instances_table([("q0", ["p0"], ["n0", "n1"])])
    known = judged(
        (CATS, "not cats", None, -3.5), (CATS, "cats are nice", None, 8.0), (CATS, "not dogs", "unsure", None)
    )
    rows = rows_of(instances, known, objective="margin_mse", soft_labels="teacher")
    assert rows.soft is not None
    assert rows.soft.values is not None
    assert sorted(rows.soft.values.tolist()) == [-3.5, 8.0]
    assert rows_of(instances, known).soft is None


def test_a_soft_label_of_what_the_judges_are_unsure_of_is_used_with_the_usual_mask() -> None:
    instances = instances_table([("q0", ["p0"], ["n0", "n1", "n2"])])
    known = judged((CATS, "not cats", "unsure", 0.5), (CATS, "not dogs", None, math.nan))
    rows = rows_of(instances, known, objective="kl")
    assert shown(rows)[0][2] == ["not cats", "not dogs", "not boats"]
    assert rows.masked == 0
    assert rows.soft is not None
    assert rows.soft.values is not None
    assert sorted(rows.soft.values.tolist()) == pytest.approx(
        [0.0, 4.595], abs=1e-3
    )  # a label that is no number is none


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


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(training_rows_module) == set()
