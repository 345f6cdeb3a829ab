"""What people read of a calibration."""

from tasks.calibrating.page import calibration_page, presets, show, summary_lines
from tasks.verdicts.calibration import Origin, calibrate
from tasks.verdicts.combiner import CombineConfig
from tasks.verdicts.fitting.figures import Value
from tests.tasks.calibrating.test_combine import PAIRS, fitted
from tests.tasks.verdicts.fitting.pairs import labels_of


def test_the_page_shows_figures_reliability_gains_and_what_thresholds_cost() -> None:
    page = calibration_page(fitted())
    for heading in ("## How good P(relevant) is", "## What each judge adds", "## Reliability", "## Thresholds"):
        assert heading in page
    assert "queries that the fit did not see" in page
    assert "| similarity | 600 |" in page
    assert "separate" not in page
    rows = {row[0]: row for row in presets(fitted())}
    assert list(rows) == [
        "{precision: 0.9}", "{precision: 0.95}", "{recall: 0.95}", "{recall: 0.8}", "{f1: true}"
    ]  # fmt: skip
    threshold = fitted().threshold_for(precision=0.9)
    assert rows["{precision: 0.9}"][1] == f"{threshold:.4g}"


def test_scores_that_do_not_separate_are_said_not_to() -> None:
    noise = PAIRS["relevant"].sample(fraction=1, shuffle=True, seed=1)
    made = calibrate(CombineConfig(), wide=PAIRS, labels=labels_of(PAIRS).with_columns(relevant=noise), origin=Origin())
    assert not made.separates
    page = calibration_page(made)
    assert "**These scores do not separate.**" in page
    assert "Similarity is the only judge." in page
    assert summary_lines(made)[-1].startswith("These scores do not separate.")
    assert "no threshold reaches it" in page


def test_a_figure_that_is_not_defined_is_a_dash() -> None:
    assert show(Value(value=None)) == "-"
    assert show(Value(value=0.25, low=0.2, high=0.3)) == "0.250 (0.200 to 0.300)"
