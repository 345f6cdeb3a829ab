"""People's labels: settled among them, laid over decisions, and the machine measured by them."""

import polars as pl
import pytest

from tasks.quality.labels import (
    LabelsConfig,
    PeopleConfig,
    agree_with_people,
    apply_labels,
    label_pairs,
    newest,
    settle,
    share_labelled,
)
from tasks.quality.sample import as_sample
from tasks.schemas import HUMAN, LABELLED, PEOPLE, SAMPLES, VERDICTS
from tests.tasks.settings import settings_of


def human(*rows: tuple[str, str, str, str], at: str = "2026-01-01") -> pl.DataFrame:
    """Labels as (query, text, annotator, label)."""
    return pl.DataFrame([(*row, at, "c", "") for row in rows], schema=HUMAN.columns, orient="row")


def decisions(*states: str, tier: str = "cascade") -> pl.DataFrame:
    rows = [
        ("d", "q", f"n{i}", tier, "judge", state, None if state == "unparsed" else 0.5, None, None, "call", 1)
        for i, state in enumerate(states)
    ]
    return pl.DataFrame(rows, schema=VERDICTS.columns, orient="row")


def labelled(**labels: str) -> pl.DataFrame:
    rows = [("d", "q", doc, "hq", f"h{doc}", label, 2, False) for doc, label in labels.items()]
    return pl.DataFrame(rows, schema=LABELLED.columns, orient="row")


def samples(*strata: tuple[str, str, float]) -> pl.DataFrame:
    return pl.DataFrame([("d", "q", *row, "") for row in strata], schema=SAMPLES.columns, orient="row")


def test_the_majority_counts_a_tie_is_unsure_and_a_later_label_of_the_same_person_wins() -> None:
    first = human(
        ("q", "a", "ann", "relevant"), ("q", "a", "ben", "relevant"), ("q", "a", "cy", "not_relevant"),
        ("q", "b", "ann", "relevant"), ("q", "b", "ben", "not_relevant"),
        ("q", "c", "ann", "relevant"),
        ("q", "d", "ann", "unsure"), ("q", "d", "ben", "unsure"), ("q", "d", "cy", "relevant"),
    )  # fmt: skip
    later = human(("q", "c", "ann", "not_relevant"), at="2026-02-01")
    found = settle(pl.concat([later, first])).select("text_hash", "label", "annotators", "tied").rows()
    assert sorted(found) == [
        ("a", "relevant", 3, False), ("b", "unsure", 2, True), ("c", "not_relevant", 1, False),
        ("d", "unsure", 3, False),
    ]  # fmt: skip
    assert newest(pl.concat([later, first])).height == 9
    assert settle(HUMAN.empty()).is_empty()


def test_labels_find_their_texts_under_any_ids() -> None:
    candidates = pl.DataFrame(
        {"dataset": ["d", "e", "d"], "query_id": ["q", "x", "q"], "doc_id": ["n", "m", "o"],
         "query_hash": ["q", "q", "q"], "text_hash": ["a", "a", "z"]}
    )  # fmt: skip
    found = label_pairs(candidates, settle(human(("q", "a", "ann", "relevant"), ("other", "a", "ann", "unsure"))))
    assert found.select("dataset", "query_id", "doc_id", "label").rows() == [
        ("d", "q", "n", "relevant"), ("e", "x", "m", "relevant"),
    ]  # fmt: skip
    assert dict(found.schema) == LABELLED.columns


def test_labels_of_people_override_decisions_and_keep_the_machines_call_named() -> None:
    machine = decisions("relevant", "not_relevant", "unparsed", "relevant")
    made = apply_labels(
        LabelsConfig(), decisions=machine, labelled=labelled(n1="relevant", n2="not_relevant", n3="unsure")
    )
    rows = made["decisions"].select("doc_id", "judge", "state", "score", "call_id").rows()
    assert rows == [
        ("n0", "judge", "relevant", 0.5, "call"), ("n1", "human:2", "relevant", 1.0, "call"),
        ("n2", "human:2", "not_relevant", 0.0, "call"), ("n3", "human:2", "unsure", 0.5, "call"),
    ]  # fmt: skip
    assert dict(made["decisions"].schema) == VERDICTS.columns


def test_precision_and_recall_weigh_each_pair_by_its_chance_of_being_drawn() -> None:
    # 10 pairs called relevant, all drawn; 100 called not relevant, a tenth of them drawn: one of these is relevant.
    states = ["relevant"] * 10 + ["not_relevant"] * 100
    drawn = samples(*[(f"n{i}", s, 1.0 if s == "relevant" else 0.1) for i, s in enumerate(states[:20])])
    truth = (
        {f"n{i}": "relevant" for i in range(8)} | {f"n{i}": "not_relevant" for i in range(8, 20)} | {"n19": "relevant"}
    )
    made = agree_with_people(
        PeopleConfig(tiers=()),
        samples=drawn,
        labelled=labelled(**truth),
        similarity=decisions(*states, tier="similarity"),
        llm_verdicts=VERDICTS.empty(),
        decisions=decisions(*states),
    )["people"]
    assert dict(made.schema) == PEOPLE.columns
    row = made.filter(tier="cascade").row(0, named=True)
    assert (row["labelled"], row["sampled"], row["contradicted"]) == (20, 20, 3)
    assert row["precision"] == pytest.approx(0.8)
    assert row["recall"] == pytest.approx(8 / (8 + 10))
    assert row["recall_low"] < row["recall"] < row["recall_high"]
    # Half of a stratum labelled: the other half is taken to be like it.
    half = {doc: label for doc, label in truth.items() if doc not in ("n14", "n15", "n16", "n17", "n18")}
    made = agree_with_people(
        PeopleConfig(tiers=()), samples=drawn, labelled=labelled(**half),
        similarity=decisions(*states, tier="similarity"), llm_verdicts=VERDICTS.empty(), decisions=decisions(*states),
    )["people"]  # fmt: skip
    assert made.filter(tier="cascade")["recall"][0] == pytest.approx(8 / (8 + 20))


def test_strata_that_nobody_has_looked_at_are_guessed_from_their_like_in_other_datasets() -> None:
    """12 labels in one dataset's unsure pairs say nothing of 5000 not-relevant ones of another dataset."""
    rows = [("a/relevant/asked", 40, 20, 18), ("a/unsure/asked", 12, 12, 9), ("a/not_relevant/asked", 500, 40, 0)]
    rows += [("b/relevant/asked", 20, 0, 0), ("b/not_relevant/asked", 5000, 0, 0)]
    pairs = pl.DataFrame(
        [
            ("d", f"{stratum} {n}", stratum, n < relevant if n < seen else None)
            for stratum, size, seen, relevant in rows
            for n in range(size)
        ],
        schema={"dataset": pl.String, "query_id": pl.String, "stratum": pl.String, "truth": pl.Boolean},
        orient="row",
    )  # fmt: skip
    share = as_sample(pairs, "truth").share()
    # b's 20 are like a's 40; none of the 5000 is guessed relevant.
    assert share.value == pytest.approx((0.9 * 60 + 9) / pairs.height)


def test_a_tier_is_compared_where_it_judged_and_labels_that_were_not_drawn_are_counted_only() -> None:
    machine = decisions("relevant", "not_relevant", "unparsed", "relevant")
    asked = decisions("relevant", "not_relevant", tier="llm")
    made = agree_with_people(
        PeopleConfig(tiers=("llm",)),
        samples=samples(("n0", "s", 1.0), ("n1", "s", 1.0), ("n2", "s", 1.0)),
        labelled=labelled(n0="relevant", n1="not_relevant", n2="unsure", n3="not_relevant"),
        similarity=decisions("unsure", "unsure", "unsure", "unsure", tier="similarity"),
        llm_verdicts=asked,
        decisions=machine,
    )["people"]
    rows = {row["tier"]: row for row in made.to_dicts()}
    assert (rows["llm"]["labelled"], rows["cascade"]["labelled"]) == (2, 4)
    assert (rows["cascade"]["sampled"], rows["cascade"]["unsure"], rows["cascade"]["contradicted"]) == (2, 1, 1)
    assert rows["llm"]["kappa"] == 1.0
    assert rows["similarity"]["recall"] == 0.0
    assert rows["similarity"]["precision"] is None


def test_nothing_labelled_among_the_drawn_gives_no_figures_and_no_error() -> None:
    made = agree_with_people(
        PeopleConfig(tiers=()),
        samples=SAMPLES.empty(),
        labelled=labelled(n0="relevant"),
        similarity=decisions("relevant", tier="similarity"),
        llm_verdicts=VERDICTS.empty(),
        decisions=decisions("relevant"),
    )["people"]
    assert made["kappa"].to_list() == [None, None]
    assert share_labelled(samples(("n0", "s", 1.0), ("n1", "s", 1.0)), labelled(n0="unsure")) == (1, 2)


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(LabelsConfig) == {}
    assert settings_of(PeopleConfig) == {"tiers": ("llm",), "seed": 0}
