"""What escalation and decisions have in common."""

import pytest
from pydantic import ValidationError

from tasks.verdicts.complete import CompleteConfig
from tasks.verdicts.decide import DecideConfig
from tasks.verdicts.escalate import AdmitConfig, EscalateConfig
from tests.tasks.settings import settings_of
from tests.tasks.verdicts.judged import FOUR, escalated_docs


@pytest.mark.parametrize("config", [EscalateConfig, DecideConfig])
def test_a_band_needs_both_bounds_in_order(config: type[EscalateConfig] | type[DecideConfig]) -> None:
    with pytest.raises(ValidationError, match="come together"):
        config(lower=0.2)
    with pytest.raises(ValidationError, match="must not exceed"):
        config(lower=0.8, upper=0.2)


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(EscalateConfig) == {
        "states": ("relevant", "unsure"),
        "lower": (None, ">=0", "<=1"),
        "upper": (None, ">=0", "<=1"),
        "unit": "pair",
        "max_share": (1.0, ">=0", "<=1"),
        "max_pairs": (None, ">=0"),
        "per_query": None,
        "target": None,
        "warn_share": (0.5, ">=0", "<=1", "operational"),
        "pairs_per_part": (256, ">=1"),
        "calibrated": True,
    }
    assert settings_of(DecideConfig) == {
        "": "finite",
        "mode": "fusion",
        "weights": {},
        "bias": 0.0,
        "prevalence": (0.5, ">0", "<1"),
        "precision": (None, ">0", "<1"),
        "recall": (None, ">0", "<1"),
        "f1": False,
        "similarity_decides": False,
        "relevant_from": (0.5, ">=0", "<=1"),
        "not_relevant_below": (0.5, ">=0", "<=1"),
        "tiers": ("llm",),
        "lower": (None, ">=0", "<=1"),
        "upper": (None, ">=0", "<=1"),
    }
    assert settings_of(AdmitConfig) == {"skip": ()}
    assert settings_of(CompleteConfig) == {
        "max_unparsed": (0.05, ">=0", "<=1"),
        "max_unparsed_of_asked": (0.2, ">=0", "<=1"),
    }


def test_a_band_of_one_score_and_equal_thresholds_are_accepted() -> None:
    assert escalated_docs(EscalateConfig(lower=0.95, upper=0.95), FOUR[:3]) == ["high", "middle"]
    DecideConfig(relevant_from=0.4, not_relevant_below=0.4)
    with pytest.raises(ValidationError, match="must not exceed"):
        DecideConfig(relevant_from=0.4, not_relevant_below=0.41)
