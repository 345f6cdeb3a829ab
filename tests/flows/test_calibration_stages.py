"""The stages that make and use calibrations stand in the stage table."""

from flows import calibration_stages, stages
from flows.stage_names import section_of


def test_they_are_in_the_table_and_those_that_make_one_work_on_a_finished_curation() -> None:
    made = (calibration_stages.CALIBRATE, calibration_stages.CALIBRATE_DATA)
    assert all(stage in stages.STAGES for stage in (calibration_stages.COMBINE, *made))
    assert all(stage.afterwards for stage in made)
    assert section_of("combine") == "decide"
