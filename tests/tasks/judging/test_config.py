"""The settings of a judge: what cannot work is refused when the configuration is read."""

import pytest
from pydantic import ValidationError

from tasks.judging.config import JudgeConfig, Policy
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
        "policies": {},
        "relevant_from": (0.5, ">=0", "<=1"),
        "not_relevant_below": (0.5, ">=0", "<=1"),
        "min_mass": (0.2, ">=0", "<=1"),
        "max_attempts": (2, ">=1"),
        "query_chars": (500, ">=1"),
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
