"""The audit sample of a tier with a guarantee."""

import polars as pl
import pytest

from tasks.schemas import AUDIT, CANDIDATES
from tasks.verdicts.escalate import EscalateConfig
from tasks.verdicts.guarantee.audit import judged_questions
from tests.tasks.verdicts.guarantee.audited import audited, config, drawn, pool
from tests.tasks.verdicts.judged import Judged, candidates, said_by_people, verdicts


def test_low_scores_are_audited_too_and_each_chance_is_known() -> None:
    before, _ = pool()
    table = audited(config(audit=300), candidates(before), verdicts(before))["audit"]
    assert dict(table.schema) == AUDIT.columns
    assert (table.height, table["drawn"].sum()) == (2000, 300)
    rates = table.group_by("stratum").agg(pl.col("drawn").mean(), pl.col("inclusion_probability").first())
    assert sorted(rates["stratum"]) == ["high", "low"]
    assert rates["drawn"].to_list() == pytest.approx(rates["inclusion_probability"].to_list())
    assert table.filter("drawn")["score"].min() < 0.01  # type: ignore[operator]


def test_the_draw_depends_on_the_texts_and_the_seed_and_not_on_the_order_or_on_later_pairs() -> None:
    before, _ = pool()

    def picked(rows: list[Judged], seed: int = 0) -> set[str]:
        found = audited(config(seed=seed, audit=0.1), candidates(rows), verdicts(rows))["escalated"]
        return set(found["doc_id"])

    first = picked(before)
    assert picked(before[::-1]) == first
    assert len(picked(before, seed=1) & first) < 100
    grown = picked([*before, *((f"p{n}", f"e{n}", "unsure", 0.3) for n in range(20))])
    assert len(grown & first) > 190  # so the answers of the night before are known


def test_a_size_is_a_number_or_a_share_or_what_the_target_needs() -> None:
    before, _ = pool()

    def size(**target: float) -> int:
        return int(audited(config(**target), candidates(before), verdicts(before))["audit"]["drawn"].sum())

    assert (size(audit=0.25), size(audit=70), size(audit=10**6)) == (500, 70, 2000)
    assert size(recall=0.8) < size(recall=0.9) <= 1000


def test_copies_are_one_question_and_what_people_said_or_nobody_judged_is_not_audited() -> None:
    rows: list[Judged] = [
        ("q", "a", "unsure", 0.5), ("q", "a-copy", "unsure", 0.5), ("q", "b", "unparsed", None),
        ("q", "c", "unsure", 0.2), ("q", "d", "unsure", 0.1),
    ]  # fmt: skip
    known = said_by_people(rows, "d")
    part = audited(config(audit=10), known, verdicts(rows[:3] + rows[4:]))["escalated"]
    assert dict(part.schema) == CANDIDATES.columns
    assert part["doc_id"].to_list() == ["a", "a-copy"]
    assert judged_questions(known, verdicts(rows))["score"].to_list() == [0.5, None, 0.2]


def test_a_tier_without_a_target_has_no_audit() -> None:
    with pytest.raises(ValueError, match=r"escalate\.target: a guarantee expected, got none"):
        audited(EscalateConfig(), candidates([]), verdicts([]))


@pytest.mark.parametrize("size", [1, 3, 300, 10**6])
def test_five_parts_draw_the_same_questions_as_one(size: int) -> None:
    before, _ = pool()
    parts = [[row for row in before if int(row[0][1:]) % 5 == part] for part in range(5)]
    tables = [{"candidates": candidates(rows), "verdicts": verdicts(rows)} for rows in parts]
    found, _ = drawn(config(audit=size), tables)
    whole = audited(config(audit=size), candidates(before), verdicts(before))
    for name, schema in (("audit", AUDIT), ("escalated", CANDIDATES)):
        assert pl.concat(part[name] for part in found).sort(schema.key).equals(whole[name].sort(schema.key))


def test_nothing_to_audit_is_no_error() -> None:
    (part,), draw = drawn(config(), [{"candidates": candidates([]), "verdicts": verdicts([])}])
    assert draw.row(0) == (None,) * 5
    assert part["audit"].is_empty() and dict(part["audit"].schema) == AUDIT.columns
