"""What is accepted, rejected and passed on after the audit."""

import polars as pl
import pytest

from tasks.schemas import CANDIDATES, THRESHOLDS, VERDICTS
from tasks.verdicts.guarantee.settle import ACCEPTED, REJECTED, read_audit
from tests.tasks.verdicts.guarantee.audited import config, pool, settled
from tests.tasks.verdicts.judged import Judged


def test_every_pair_is_audited_settled_or_passed_on_and_none_twice() -> None:
    before, oracle = pool()
    made = settled(config(), before, oracle)
    docs = [made[name]["doc_id"].to_list() for name in ("sample", "settled", "escalated")]
    assert sorted(doc for found in docs for doc in found) == sorted(doc for _, doc, _, _ in before)
    assert all(docs)
    assert dict(made["settled"].schema) == VERDICTS.columns
    assert dict(made["thresholds"].schema) == THRESHOLDS.columns
    assert dict(made["escalated"].schema) == CANDIDATES.columns


def test_high_scores_are_accepted_low_ones_rejected_and_the_thresholds_say_from_where() -> None:
    made = settled(config(), *pool())
    (row,) = made["thresholds"].iter_rows(named=True)
    assert 0 < row["reject"] < row["accept"] < 1
    by_judge = {judge: rows for (judge,), rows in made["settled"].group_by("judge")}
    assert by_judge[ACCEPTED]["score"].min() >= row["accept"]
    assert set(by_judge[ACCEPTED]["state"]) == {"relevant"}
    assert by_judge[REJECTED]["score"].max() < row["reject"]
    assert set(by_judge[REJECTED]["state"]) == {"not_relevant"}
    assert row["accepted"] == by_judge[ACCEPTED].height
    assert row["rejected"] == by_judge[REJECTED].height
    assert row["questions"] == 2000
    assert made["facts"] == {**row, "passed_on": made["escalated"].height}


def test_pairs_that_the_tier_before_could_not_judge_are_passed_on() -> None:
    before, oracle = pool()
    broken: list[Judged] = [("q-broken", "broken", "unparsed", None)]
    made = settled(config(), [*before, *broken], [*oracle, *broken])
    assert "broken" in made["escalated"]["doc_id"].to_list()
    assert made["thresholds"]["questions"][0] == 2001


def test_copies_of_an_audited_or_settled_question_are_not_asked_about() -> None:
    before, oracle = pool()
    copies: list[Judged] = [(q, f"{doc}-copy", state, score) for q, doc, state, score in before]
    made = settled(config(), [*before, *copies], [*oracle, *((q, f"{d}-copy", s, p) for q, d, s, p in oracle)])
    alone = settled(config(), before, oracle)
    assert made["thresholds"].equals(alone["thresholds"])
    assert made["settled"].height == 2 * alone["settled"].height
    assert set(made["escalated"]["doc_id"].str.replace("-copy", "")) == set(alone["escalated"]["doc_id"])


def test_without_a_usable_score_everything_is_passed_on() -> None:
    before, oracle = pool()
    flat: list[Judged] = [(q, doc, state, 0.5) for q, doc, state, _ in before]
    made = settled(config(), flat, oracle)
    assert made["settled"].is_empty()
    assert made["escalated"].height + made["sample"].height == 2000
    assert made["thresholds"].select("accept", "reject").row(0) == (None, None)


def test_a_drawn_question_without_an_answer_is_an_error() -> None:
    made = settled(config(), *pool(200))
    inputs = {name: made[name] for name in ("candidates", "verdicts", "audit")}
    with pytest.raises(ValueError, match="a verdict for each of 100 drawn questions expected, 1 have none"):
        read_audit(config(), **inputs, audited=made["audited"][1:])


def test_five_parts_settle_and_pass_on_the_same_pairs_as_one() -> None:
    before, oracle = pool()
    broken: list[Judged] = [("q-broken", "broken", "unparsed", None)]
    whole = settled(config(), [*before, *broken], [*oracle, *broken])
    cut = settled(config(), [*before, *broken], [*oracle, *broken], parts=5)
    assert cut["facts"] == whole["facts"]
    assert cut["thresholds"].equals(whole["thresholds"])
    for name, schema in (("settled", VERDICTS), ("escalated", CANDIDATES)):
        assert cut[name].sort(schema.key).equals(whole[name].sort(schema.key))


def test_copies_with_different_answers_count_as_unread() -> None:
    before: list[Judged] = [(q, doc, s, p) for q, d, s, p in pool()[0] for doc in (d, f"{d}-copy")]
    oracle: list[Judged] = [(q, d, "relevant" if "-copy" in d else "not_relevant", 0.5) for q, d, _, _ in before]
    made = settled(config(), before, oracle)
    assert made["thresholds"].select("accept", "reject").row(0) == (None, None)
    assert isinstance(made["settled"], pl.DataFrame)
