"""The settings of a judge: what cannot work is refused when the configuration is read."""

import pytest
from pydantic import ValidationError

from tasks.judging.config import JudgeConfig


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
