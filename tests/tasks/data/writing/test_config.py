"""Settings of the export: what cannot be meant is refused, and which tables they need."""

import pytest
from pydantic import ValidationError

from tasks.data.writing.config import FORMATS, ExportConfig


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, set()),
        ({"formats": ["trec"]}, {"candidates"}),
        ({"formats": ["datasets"]}, {"agreement", "people"}),
        ({"soft_labels": "decision"}, {"positives", "decisions"}),
        ({"soft_labels": "teacher"}, set()),
        ({"provenance": True}, {"positives", "decisions", "negatives"}),
    ],
)
def test_only_the_tables_that_a_setting_needs_are_read(settings: dict[str, object], wanted: set[str]) -> None:
    assert ExportConfig.model_validate(settings).wanted() == wanted | {"teacher", "extras"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shape": "triplet", "num_negatives": 0}, "shape triplet needs negatives"),
        ({"shape": "labeled-list", "num_negatives": 0}, "shape labeled-list needs negatives"),
        ({"short": "keep", "soft_labels": "teacher"}, "set short to pad or drop"),
        ({"soft_labels": True}, "none"),
        ({"shape": "ntuple"}, "n-tuple"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ExportConfig.model_validate(settings)


def test_pairs_and_tuples_need_no_negatives() -> None:
    assert ExportConfig(shape="pair", num_negatives=0).shape == "pair"
    assert ExportConfig(num_negatives=0).shape == "n-tuple"
    assert len(FORMATS) == 6
