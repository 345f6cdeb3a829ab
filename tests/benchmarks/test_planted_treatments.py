"""The treatments of the planted benchmark: each has as many negatives, and edits only what it should."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.planted_data import PICKED, Collection, Planted
from benchmarks.planted_treatments import (
    TREATMENTS,
    Evidence,
    Made,
    at_random,
    by_percent_of_positive,
    decisions_of,
    oracle,
)
from tests.benchmarks.planted_toy import toy

PAIR = ["dataset", "query_id", "doc_id"]


def evidence(planted: Planted) -> Evidence:
    """Judges that find the planted pairs whose id ends in 1, and a teacher that knows all."""
    said = (pl.col("score") == 1) & pl.col("doc_id").str.ends_with("1")
    judges = oracle(planted).with_columns(
        state=pl.when(said).then(pl.lit("relevant")).otherwise(pl.lit("not_relevant")),
        score=pl.when(said).then(0.9).otherwise(0.2),
    )
    known = oracle(planted).select(*PAIR, score=0.1 + 0.8 * pl.col("score"))
    return Evidence(judges, pl.concat([known, planted.positives.select(*PAIR, score=pl.lit(0.9))]))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    collection, planted = toy(tmp_path)
    return Made(collection, planted, evidence(planted))


def sides(made: Made, name: str) -> dict[str, tuple[set[str], set[str]]]:
    rows = TREATMENTS[name](made).instances
    return {query: (set(p), set(n)) for query, p, n in rows.select("query_id", "positives", "negatives").iter_rows()}


def hidden(planted: Planted) -> dict[str, set[str]]:
    found = planted.hidden.group_by("query_id").agg("doc_id")
    return {query: set(ids) for query, ids in found.iter_rows()}


def test_the_oracle_makes_all_planted_pairs_positives(made: Made) -> None:
    before, after = sides(made, "default"), sides(made, "relabel_oracle")
    for query, secret in hidden(made.planted).items():
        assert secret <= before[query][1] and not secret & before[query][0]
        assert secret <= after[query][0] and not secret & after[query][1]


def test_relabelling_promotes_what_the_judges_found_and_no_more(made: Made) -> None:
    after = sides(made, "relabel_judges")
    for query, secret in hidden(made.planted).items():
        found = {one for one in secret if one.endswith("1")}
        assert after[query][0] & secret == found
        assert after[query][1] & secret == secret - found


@pytest.mark.parametrize("name", sorted(TREATMENTS))
def test_each_row_has_as_many_negatives(made: Made, name: str) -> None:
    assert {len(negatives) for _, negatives in sides(made, name).values()} == {PICKED}


def test_what_the_judges_found_is_told_apart_by_whether_it_was_planted(made: Made) -> None:
    others = made.planted.negatives.join(made.planted.hidden, on=["query_id", "doc_id"], how="anti")
    mistaken = others.group_by("query_id").agg(pl.col("doc_id").first())
    wrong = {query: {doc} for query, doc in mistaken.iter_rows()}
    called = pl.concat_list("query_id", "doc_id").is_in([[query, *docs] for query, docs in wrong.items()])
    judges = made.evidence.judges.with_columns(
        state=pl.when(called).then(pl.lit("relevant")).otherwise(pl.col("state"))
    )
    mixed = replace(made, evidence=replace(made.evidence, judges=judges))
    names = ("relabel_judges", "relabel_right", "relabel_wrong", "relabel_right_remove_wrong")
    both, right, bad, cleared = (sides(mixed, name) for name in names)
    for query, secret in hidden(made.planted).items():
        found = {one for one in secret if one.endswith("1")} - wrong[query]
        assert found | wrong[query] <= both[query][0]
        assert found <= right[query][0] and wrong[query] <= right[query][1]
        assert wrong[query] <= bad[query][0] and found <= bad[query][1]
        assert found <= cleared[query][0] and not wrong[query] & (cleared[query][0] | cleared[query][1])


def test_random_removal_removes_as_many_of_each_query_and_others(made: Made) -> None:
    judges, drawn = made.evidence.judges, at_random(made.planted, made.evidence.judges, 1)

    def counts(decisions: pl.DataFrame) -> dict[Any, Any]:
        called = decisions.filter(pl.col("state") == "relevant")
        return dict(called.group_by("query_id").len().iter_rows())

    assert counts(judges) == counts(drawn)
    assert not drawn.equals(at_random(made.planted, made.evidence.judges, 2))


def test_what_scores_above_95_percent_of_the_positive_is_removed(made: Made) -> None:
    said = by_percent_of_positive(made.planted, made.evidence.teacher)
    states = {(query, doc): state for query, doc, state in said.select("query_id", "doc_id", "state").iter_rows()}
    secret = {(query, one) for query, ids in hidden(made.planted).items() for one in ids}
    assert {states[one] for one in secret} == {"relevant"}
    assert {states[one] for one in states.keys() - secret} == {"not_relevant"}


def test_the_mask_and_the_soft_labels_leave_the_rows_as_they_are(made: Made) -> None:
    for name, setting in (
        ("mask_only", {"mask": "relevant"}),
        ("soft_labels", {"objective": "kl", "soft_labels": "judges"}),
        ("kl_labels", {"objective": "kl", "soft_labels": "judges"}),
    ):
        rows = TREATMENTS[name](made)
        assert rows.settings == setting
        assert rows.instances.equals(TREATMENTS["default"](made).instances)
        assert rows.known is not None and rows.known.height


def test_distillation_has_the_teachers_scores_of_positives_and_negatives(made: Made) -> None:
    rows = TREATMENTS["distillation"](made)
    assert rows.known is not None and rows.known["score"].null_count() == 0
    assert rows.known.height == made.evidence.teacher.height


def test_the_control_of_distillation_has_labels_that_tell_nothing_of_the_negatives(made: Made) -> None:
    known = TREATMENTS["kl_labels"](made).known
    assert known is not None and set(known["score"]) == {0.0} and set(known["state"]) == {None}
    assert known.height == made.planted.candidates.height


def test_decisions_are_one_for_each_candidate(made: Made) -> None:
    said = decisions_of(made.planted.candidates, "me", pl.lit(0.5), pl.lit("unsure"))
    assert said.height == made.planted.candidates.height
    assert isinstance(made.collection, Collection)
