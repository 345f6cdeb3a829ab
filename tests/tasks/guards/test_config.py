"""The settings of the guards: defaults, limits, and what does not go together."""

import pytest
from pydantic import ValidationError

from tasks.guards.config import (
    ContaminationConfig,
    EvaluationConfig,
    GuardsConfig,
    NearConfig,
    RepeatsConfig,
    RowsConfig,
    SketchConfig,
)


def test_defaults_and_limits_of_all_settings() -> None:
    assert GuardsConfig().model_dump() == {
        "similarity": 0.6,
        "positives": "none",
        "corpus": False,
        "rows": "none",
        "most_rows": 100,
        "evaluation": (),
        "contamination": "report",
    }
    for wrong in ({"similarity": 0.3}, {"similarity": 1.1}, {"most_rows": 1}, {"rows": "all"}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            GuardsConfig.model_validate(wrong)


def test_near_rows_need_the_near_duplicates_of_the_corpus() -> None:
    with pytest.raises(ValidationError, match=r"set guards\.corpus: true too"):
        GuardsConfig(rows="near")
    assert GuardsConfig(rows="near", corpus=True).rows == "near"


def test_the_stages_have_settings_of_their_own_so_a_change_recomputes_what_it_decides() -> None:
    similarity = GuardsConfig().similarity
    assert NearConfig().similarity == RepeatsConfig().similarity == ContaminationConfig().similarity == similarity
    assert set(SketchConfig.model_fields) == {"shards", "generations"}
    assert set(RowsConfig.model_fields) == {"treatment", "shards", "most_rows"}
    assert EvaluationConfig().sets == ()
