"""The section of the report about the calibration: what it rests on, how good it is, where its thresholds are."""

from pathlib import Path
from typing import Any

from tasks.calibrating.combine import FILE, name_of
from tasks.calibrating.page import presets, show
from tasks.report import plots
from tasks.verdicts.calibration import Calibration


def sum_up_calibration(folder: Path | None, decided: str) -> dict[str, Any] | None:
    """Return the variables of the section; None without a calibration.

    Args:
        folder: with `calibration.json`.
        decided: the thresholds that decide, in words.
    """
    if folder is None:
        return None
    made = Calibration.model_validate_json((folder / FILE).read_bytes())
    figures = made.figures
    return {
        "name": name_of(made),
        "origin": made.origin.model_dump(),
        "counts": made.counts.model_dump(),
        "by_machine": made.by_machine,
        "separates": made.separates,
        "decided": decided,
        "figures": {
            "ECE, 10 bins of equal mass": show(figures.ece),
            "Brier": show(figures.brier),
            "Brier of the base rate": show(figures.brier_base),
            "AUC over all pairs": show(figures.auc),
            "AUC within queries": show(figures.auc_within),
        },
        "presets": presets(made),
        "plot": plots.scatter(
            [plots.Dot(one.mean_p, one.relevant.value or 0.0, "relevant") for one in figures.bins],
            label="Share of relevant pairs by P(relevant), in bins of equal mass",
            x_title="mean P(relevant) of a bin",
            y_title="share that is relevant",
            diagonal=True,
        ),
    }


def in_summary(section: dict[str, Any] | None) -> dict[str, Any]:
    """Return what summary.json says of the section: all but the plot, under `calibration`; nothing without one."""
    if section is None:
        return {}
    return {"calibration": {name: value for name, value in section.items() if name != "plot"}}
