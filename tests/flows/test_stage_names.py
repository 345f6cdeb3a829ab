"""Names of stages with their labels: what is judged in each, and by which tier."""

from flows.stage_names import (
    check_stage,
    is_check,
    is_of_gold,
    judge_stage,
    judge_stages,
    scores_stage,
    section_of,
    tier_of,
)


def test_a_tier_judges_candidates_gold_pairs_and_positives_in_stages_of_their_own() -> None:
    assert judge_stages("llm") == ("judge-llm", "judge-gold-llm", "judge-check-llm")
    assert (judge_stage("llm"), judge_stage("llm", gold=True), check_stage("llm")) == judge_stages("llm")
    assert [tier_of(name) for name in judge_stages("my-llm")] == ["my-llm"] * 3
    assert [is_of_gold(name) for name in judge_stages("llm")] == [False, True, False]
    assert [is_check(name) for name in judge_stages("llm")] == [False, False, True]
    assert is_of_gold("agree_gold")
    assert not is_check("check")
    assert scores_stage("file") == "read_scores-file"


def test_a_stage_is_configured_by_its_section() -> None:
    assert (section_of("put_positives"), section_of("check"), section_of("gone")) == ("check", "check", "gone")
