"""Budgets over several parts: as exact as over one, though each part reads only its own pairs."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as draw

from tasks.summaries import ALLOTTED, COUNTED
from tasks.verdicts import allot as allot_module
from tasks.verdicts.allot import AllotConfig, allot, count_open
from tasks.verdicts.escalate import EscalateConfig, escalate
from tests.tasks.settings import settings_of
from tests.tasks.verdicts.judged import Judged, candidates, escalated_docs, verdicts

Parts = Sequence[Sequence[Judged]]


def tables(rows: Sequence[Judged]) -> dict[str, pl.DataFrame]:
    return {"candidates": candidates(rows), "verdicts": verdicts(rows)}


def allotted(config: EscalateConfig, parts: Parts) -> tuple[dict[int, pl.DataFrame], dict[str, int]]:
    """Count each part, and share the budget out; also the facts."""
    unlimited = config.model_copy(update={"max_share": 1.0, "max_pairs": None})
    counted = [count_open(unlimited, **tables(rows))["counted"] for rows in parts]
    assert all(dict(frame.schema) == COUNTED.columns for frame in counted)
    numbered = [frame.with_columns(part=pl.lit(n, pl.Int32)) for n, frame in enumerate(counted)]
    made = allot(
        AllotConfig(**config.model_dump(include={"unit", "max_share", "max_pairs"})), counted=pl.concat(numbered)
    )
    return dict(made["allotment"]), made["facts"]


def asked(config: EscalateConfig, parts: Parts) -> list[list[str]]:
    shares, facts = allotted(config, parts)
    assert all(dict(frame.schema) == ALLOTTED.columns for frame in shares.values())
    found = [
        escalate(config, **tables(rows), allotment=shares[number])["escalated"]["doc_id"].to_list()
        for number, rows in enumerate(parts)
    ]
    distinct = {doc.split("-")[0] for docs in found for doc in docs}
    assert facts["forwarded"] == len(distinct)  # every text is asked about by one query in these tests
    return found


def pool(parts: int, queries: int, seed: int = 0, digits: int = 9) -> list[list[Judged]]:
    """Parts of queries with three to nine candidates each: unparsed and copied ones among them."""
    rng = random.Random(seed)
    found: list[list[Judged]] = [[] for _ in range(parts)]
    for query in range(queries):
        rows = found[rng.randrange(parts)]
        for n in range(rng.randint(3, 9)):
            doc, state = f"d{query}x{n}", rng.choice(["relevant", "unsure", "not_relevant", "unsure"])
            state = "unparsed" if rng.random() < 0.04 else state
            score = None if state == "unparsed" else round(rng.random(), digits)
            rows.append((f"q{query}", doc, state, score))
            if rng.random() < 0.2:
                rows.append((f"q{query}", f"{doc}-copy", state, score))
    return found


BUDGETS: dict[str, Mapping[str, Any]] = {
    "a share": {"max_share": 0.3},
    "a number": {"max_pairs": 50},
    "both": {"max_share": 0.5, "max_pairs": 61},
    "nothing": {"max_pairs": 0},
    "more than there are": {"max_pairs": 10**6},
    "all states": {"max_pairs": 77, "states": ("relevant", "unsure", "not_relevant")},
    "no known scale": {"max_share": 0.25, "calibrated": False},
    "within queries": {"max_pairs": 40, "per_query": {"start": 1, "most": 4, "enough": 2}},
    "rows": {"unit": "row", "max_share": 0.3},
    "rows that do not fit": {"unit": "row", "max_pairs": 31, "states": ("relevant",)},
}


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_five_parts_are_asked_about_the_same_pairs_as_one(budget: Mapping[str, Any]) -> None:
    config, parts = EscalateConfig.model_validate(budget), pool(5, 60)
    whole = [row for rows in parts for row in rows]
    found = asked(config, parts)
    assert sorted(doc for docs in found for doc in docs) == sorted(escalated_docs(config, whole))
    assert all(set(docs) <= {doc for _, doc, _, _ in rows} for docs, rows in zip(found, parts, strict=True))


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_with_one_part_an_allotment_changes_nothing_ties_included(budget: Mapping[str, Any]) -> None:
    config, (rows,) = EscalateConfig.model_validate(budget), pool(1, 40, seed=1, digits=1)
    assert asked(config, [rows]) == [escalated_docs(config, rows)]


@settings(deadline=None, max_examples=25)
@given(draw.integers(0, 10**6), draw.integers(0, 120), draw.integers(1, 7))
def test_with_ties_the_number_is_exact_and_only_ties_at_the_cut_differ(seed: int, most: int, parts: int) -> None:
    config, cut = EscalateConfig(max_pairs=most), pool(parts, 25, seed, digits=1)
    whole = [row for rows in cut for row in rows]
    found, expected = {doc for docs in asked(config, cut) for doc in docs}, set(escalated_docs(config, whole))
    scores = {doc: score for _, doc, _, score in whole}
    assert len({doc.split("-")[0] for doc in found}) == len({doc.split("-")[0] for doc in expected})
    assert len({scores[doc] for doc in found ^ expected}) <= 1


def test_ties_at_the_cut_go_to_the_first_parts_and_in_a_part_by_hash() -> None:
    parts: Parts = [[(f"q{n}", f"d{n}{c}", "unsure", 0.5) for c in "ba"] for n in range(3)]
    assert asked(EscalateConfig(max_pairs=3), parts) == [["d0a", "d0b"], ["d1a"], []]


def test_many_questions_share_rows_of_a_table_and_the_number_stays_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = pool(4, 80)
    whole = [row for rows in parts for row in rows]
    config = EscalateConfig(max_pairs=100)
    exact = set(escalated_docs(config, whole))
    monkeypatch.setattr(allot_module, "MOST_BINS", 8)
    assert all(count_open(EscalateConfig(), **tables(rows))["counted"].height <= 8 + 3 for rows in parts)
    found = {doc for docs in asked(config, parts) for doc in docs}
    assert len({doc.split("-")[0] for doc in found}) == 100
    scores = {doc: score or 2.0 for _, doc, _, score in whole}
    border = min(scores[doc] for doc in exact)
    assert all(abs(scores[doc] - border) < 0.2 for doc in found ^ exact)  # neighbours of the cut only


def test_equal_scores_are_never_in_two_rows_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allot_module, "MOST_BINS", 3)
    rows: list[Judged] = [("q", f"d{n:02}", "unsure", 0.9 if n < 5 else 0.4) for n in range(12)]
    counted = count_open(EscalateConfig(), **tables(rows))["counted"].filter("open")
    assert counted.select("score", "units").rows() == [(0.9, 5), (0.4, 7)]


def test_a_table_of_a_part_counts_also_what_nobody_is_asked_about() -> None:
    rows: list[Judged] = [
        ("q", "a", "unsure", 0.5),
        ("q", "b", "not_relevant", 0.1),
        ("q", "b-copy", "not_relevant", 0.1),
    ]
    counted = count_open(EscalateConfig(), **tables(rows))["counted"]
    assert counted.rows() == [(True, False, 0.5, 1, 1), (False, False, None, 0, 1)]
    assert count_open(EscalateConfig(), **tables([]))["counted"].rows() == [(False, False, None, 0, 0)]


def test_a_part_without_an_open_question_gets_an_empty_allotment() -> None:
    shares, facts = allotted(
        EscalateConfig(max_share=0.5), [[], [("q", "a", "not_relevant", 0.1)], [("p", "b", "unsure", 0.3)]]
    )
    assert {number: frame.rows() for number, frame in shares.items()} == {0: [], 1: [], 2: [(0, 1)]}
    assert facts == {"questions": 2, "open": 1, "forwarded": 1}


def test_one_changed_verdict_leaves_the_allotment_of_the_other_parts_as_it_was() -> None:
    parts = pool(5, 60)
    config = EscalateConfig(max_pairs=80)
    before, _ = allotted(config, parts)
    (query, doc, _, score), *rest = sorted(parts[2], key=lambda row: -(row[3] or 0.0))
    after, _ = allotted(config, [*parts[:2], [(query, doc, "relevant", (score or 0.0) + 0.001), *rest], *parts[3:]])
    assert all(before[number].equals(after[number]) for number in before)


def test_an_allotment_of_other_verdicts_is_refused() -> None:
    share = pl.DataFrame([(0, 2)], schema=ALLOTTED.columns, orient="row")
    with pytest.raises(ValueError, match="up to 1 open units expected, got 2; count them again"):
        escalate(EscalateConfig(), **tables([("q", "a", "unsure", 0.5)]), allotment=share)


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(AllotConfig) == {
        "unit": "pair",
        "max_share": (1.0, ">=0", "<=1"),
        "max_pairs": (None, ">=0"),
    }
