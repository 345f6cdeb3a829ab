"""The settings of a judge: what cannot work is refused when the configuration is read."""

import pytest
from pydantic import ValidationError

from tasks.judging.config import JudgeConfig, Policy
from tasks.prompts.prompt import Prompt, load_definition, load_prompt
from tasks.texts import combine_hashes
from tests.tasks.settings import settings_of


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"relevant_from": 0.4, "not_relevant_below": 0.6}, "must not exceed"),
        ({"prompt": "v1"}, "one of graded, listwise"),
        ({"max_attempts": 3}, "holds 2 questions"),
        ({"max_tokens": 5}, "Extra inputs"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_once(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JudgeConfig.model_validate({"judge": "fake"} | settings)


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(Policy) == {"skip": False, "definition": None, "prompts": {}}
    assert settings_of(JudgeConfig) == {
        "judge": "",
        "tier": "llm",
        "engine": "",
        "protocol": "yes_no",
        "prompt": "",
        "definition": "default",
        "instructed": False,
        "policies": {},
        "relevant_from": (0.5, ">=0", "<=1"),
        "not_relevant_below": (0.5, ">=0", "<=1"),
        "min_mass": (0.2, ">=0", "<=1"),
        "max_attempts": (2, ">=1"),
        "query_chars": (500, ">=1"),
        "query_limit": (None, ">=1"),
        "positive_chars": (700, ">=1"),
        "passage_chars": (900, ">=1"),
        "max_positives": (3, ">=1"),
        "top": (20, ">=2"),
        "relevant_grade": (2, ">=1", "<=3"),
        "per_call": (25, ">=1"),
        "reasoning": False,
        "max_output_tokens": (1024, ">=1"),
        "relevant_preferences": ("better", "equal"),
        "isolate": True,
        "order_seed": (0, ">=0"),
        "votes": (1, ">=1"),
        "flip_share": (0.0, ">=0", "<=1"),
        "batch_size": (256, ">=2", "operational"),
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"votes": 2}, "votes=2: an odd number expected"),
        ({"protocol": "graded", "prompt": "yes_no"}, "is for protocol 'yes_no', the judge's is 'graded'"),
        ({"protocol": "snippet", "prompt": "listwise"}, "is for protocol 'listwise', the judge's is 'snippet'"),
        ({"definition": "nonsense"}, "or a sentence expected, got 'nonsense'"),
        ({"policies": {"d": {"definition": "nonsense"}}}, "or a sentence expected, got 'nonsense'"),
        ({"policies": {"d": {"prompts": {"yes_no": "graded"}}}}, "'graded' is for 'graded', not for 'yes_no'"),
        ({"policies": {"d": {"prompts": {"yes_no": "unknown"}}}}, "one of graded"),
        ({"protocol": "listwise", "prompt": "snippet_rank", "reasoning": True}, "snippet_rank"),
    ],
)
def test_prompts_definitions_and_votes_that_do_not_fit_are_refused(
    settings: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_reasons(name: str) -> Prompt:
        found = load_prompt(name)
        return found.model_copy(update={"reasoned": ""}) if name == "snippet_rank" else found

    monkeypatch.setattr("tasks.judging.config.load_prompt", without_reasons)
    with pytest.raises(ValidationError, match=message):
        JudgeConfig.model_validate({"judge": "fake"} | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"votes": 3},
        {"relevant_from": 0.5, "not_relevant_below": 0.5},
        {"protocol": "listwise", "max_attempts": 9, "reasoning": True},
        {"protocol": "listwise", "prompt": "snippet_rank"},
        {"protocol": "snippet", "max_attempts": 9},
        {"protocol": "cross_encoder", "prompt": "no_such_prompt", "max_attempts": 9},
        {"policies": {"d": {"definition": "Only recipes count."}}},
    ],
)
def test_settings_at_their_bounds_and_of_other_protocols_are_accepted(settings: dict[str, object]) -> None:
    JudgeConfig.model_validate({"judge": "fake"} | settings)


POLICIES = {
    "a": Policy(prompts={"yes_no": "yes_no_as_good"}),
    "b": Policy(definition="citation"),
    "c": Policy(prompts={"graded": "graded"}, skip=True),
}


def test_a_policy_names_prompt_and_definition_of_its_dataset_and_of_no_other() -> None:
    config = JudgeConfig(judge="fake", policies=POLICIES, definition="fact_checking")
    assert [config.prompt_of(name) for name in ("a", "b", "c", "other")] == ["yes_no_as_good", *["yes_no"] * 3]
    assert config.definition_of("b") == load_definition("citation")
    assert config.definition_of("a") == config.definition_of("other") == load_definition("fact_checking")
    assert config.prompt_names == ("yes_no", "yes_no_as_good")
    assert config.definition_names == ("citation", "fact_checking")


def test_the_prompts_of_a_protocol_are_its_own_and_those_of_its_second_pass() -> None:
    assert JudgeConfig(judge="fake", protocol="snippet").prompt_names == ("snippet", "snippet_rank")
    assert JudgeConfig(judge="fake", prompt="yes_no_as_good").prompt_names == ("yes_no_as_good",)
    assert JudgeConfig(judge="fake", protocol="cross_encoder").prompt_names == ()


def test_answers_are_remembered_under_the_engine_where_there_is_one_and_else_under_the_judge() -> None:
    assert JudgeConfig(judge="fake:1", engine="fake").asked == "fake"
    assert JudgeConfig(judge="fake:1").asked == "fake:1"
    assert JudgeConfig(judge="fake:1", engine="fake").ledger_name == combine_hashes(["fake"])
