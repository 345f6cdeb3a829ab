"""What every section of the settings has in common."""

import pytest
from pydantic import Field, ValidationError

from flows.config.section import OPERATIONAL, Section
from infra.stages.part_keys import semantic


class Example(Section):
    """A section with one setting that decides content and one that does not."""

    depth: int = 10
    workers: int = Field(1, json_schema_extra=OPERATIONAL)


def test_a_key_that_no_section_has_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Example.model_validate({"dept": 5})


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().depth = 11  # type: ignore[misc]


def test_an_error_shows_nothing_of_the_input() -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate({"depth": "a-planted-secret"})
    assert "a-planted-secret" not in str(caught.value)


def test_an_operational_setting_stays_out_of_the_keys() -> None:
    assert semantic(Example(depth=3, workers=8)) == {"depth": 3}
