"""The section about the calibration."""

from pathlib import Path

from tasks.calibrating.combine import FILE, name_of
from tasks.report.calibration import sum_up_calibration
from tests.tasks.calibrating.test_combine import fitted


def test_the_section_has_figures_thresholds_a_plot_and_whose_labels_they_rest_on(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(fitted().model_dump_json())
    found = sum_up_calibration(tmp_path, "relevant from P = 0.5")
    assert found is not None
    assert (found["name"], found["by_machine"], found["separates"]) == (name_of(fitted()), False, True)
    assert found["decided"] == "relevant from P = 0.5"
    assert found["plot"].count("<path") == len(fitted().figures.bins)
    assert 'class="zero"' in found["plot"]
    assert len(found["presets"]) == 5


def test_without_a_calibration_there_is_no_section() -> None:
    assert sum_up_calibration(None, "") is None
