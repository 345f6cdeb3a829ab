"""Names of stages with their labels: what is judged in each, and by which tier."""

from flows.guarantee_stages import audited
from flows.stage_names import (
    check_stage,
    held_out_stage,
    is_check,
    is_of_gold,
    is_of_held_out,
    judge_stage,
    judge_stages,
    scores_stage,
    section_of,
    tier_of,
)


def test_a_tier_judges_candidates_gold_pairs_and_positives_in_stages_of_their_own() -> None:
    assert judge_stages("llm") == ("judge-llm", "judge-gold-llm", "judge-check-llm", "judge-heldout-llm")
    named = (judge_stage("llm"), judge_stage("llm", gold=True), check_stage("llm"), held_out_stage("llm"))
    assert named == judge_stages("llm")
    assert [tier_of(name) for name in judge_stages("my-llm")] == ["my-llm"] * 4
    assert [tier_of(audited(name)) for name in judge_stages("llm")] == ["llm"] * 4
    assert [is_of_gold(name) for name in judge_stages("llm")] == [False, True, False, False]
    assert [is_check(name) for name in judge_stages("llm")] == [False, False, True, False]
    assert [is_of_held_out(name) for name in judge_stages("llm")] == [False, False, False, True]
    assert is_of_gold("agree_gold")
    assert not is_check("check")
    assert scores_stage("file") == "read_scores-file"


def test_a_stage_is_configured_by_its_section() -> None:
    assert (section_of("put_positives"), section_of("check"), section_of("gone")) == ("check", "check", "gone")
