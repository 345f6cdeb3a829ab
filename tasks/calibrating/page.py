"""Show a calibration as Markdown: how good its probabilities are, and what each threshold would cost."""

from tasks.formatting import markdown_table, percent, signed
from tasks.verdicts.calibration import Calibration
from tasks.verdicts.fitting.figures import Figures, Point, Value

PRESETS = (("precision", 0.9), ("precision", 0.95), ("recall", 0.95), ("recall", 0.8), ("f1", True))
_NOT_SEPARATING = (
    "**These scores do not separate.** Within a query they order the candidates no better than chance (the interval of "
    "the AUC reaches 0.5). No threshold makes a good decision of them. Take another judge or encoder, or label more "
    "pairs."
)


def calibration_page(made: Calibration) -> str:
    """Return the page."""
    origin, figures = made.origin, made.figures
    of = f"Calibration of {origin.curation}" if origin.curation else "Calibration"
    parts = [
        f"# {of}",
        f"Fitted on {made.counts.labels:,} labels ({made.counts.relevant:,} relevant) of {made.counts.queries:,} "
        f"queries, from {_source(origin.labels_from)}. {origin.trust}",
        *([] if made.separates else [_NOT_SEPARATING]),
        "All figures are of queries that the fit did not see (cross-fitted by query). Intervals are 95%, over queries.",
        "## How good P(relevant) is",
        markdown_table(("figure", "value"), _figures(made)),
        "## What each judge adds",
        _singles(figures),
        "## Reliability",
        markdown_table(
            ("pairs", "mean P", "share relevant"),
            [(f"{one.pairs:,}", f"{one.mean_p:.3f}", show(one.relevant)) for one in figures.bins],
        ),
        "## Thresholds",
        markdown_table(("`decide:`", "P from", "pairs called", "precision", "recall", "F1"), presets(made)),
        "A threshold is chosen by the estimate, not by the lower end of its interval.",
    ]
    return "\n\n".join(parts) + "\n"


def summary_lines(made: Calibration) -> list[str]:
    """Return the three lines that a terminal shows first."""
    figures = made.figures
    lines = [
        f"{made.counts.labels:,} labels of {made.counts.queries:,} queries, from {_source(made.origin.labels_from)}",
        f"ECE {show(figures.ece)}, Brier {show(figures.brier)} (base rate alone {show(figures.brier_base)}), "
        f"AUC {show(figures.auc)}, within queries {show(figures.auc_within)}",
    ]
    return lines if made.separates else [*lines, _NOT_SEPARATING.replace("**", "")]


def presets(made: Calibration) -> list[tuple[str, ...]]:
    """Return a row for each preset: its setting, threshold, and what the threshold costs."""
    return [(_setting(name, wanted), *_point(_chosen(made, name, wanted))) for name, wanted in PRESETS]


def show(value: Value) -> str:
    """Show a figure with its interval.

    >>> show(Value(value=0.81234, low=0.7, high=0.9)), show(Value(value=None)), show(Value(value=0.5))
    ('0.812 (0.700 to 0.900)', '-', '0.500')
    """
    if value.value is None:
        return "-"
    shown = f"{value.value:.3f}"
    return shown if value.low is None or value.high is None else f"{shown} ({value.low:.3f} to {value.high:.3f})"


def _source(labels_from: str) -> str:
    named = {"people": "people", "known": "what is known in advance", "data": "the data itself"}
    return named.get(labels_from, f"the tier {labels_from!r}")


def _figures(made: Calibration) -> list[tuple[str, str]]:
    figures = made.figures
    return [
        ("share of relevant pairs", show(figures.prevalence)),
        ("ECE, 10 bins of equal mass", show(figures.ece)),
        ("Brier", show(figures.brier)),
        ("Brier of the share of relevant pairs alone", show(figures.brier_base)),
        ("AUC over all pairs", show(figures.auc)),
        ("AUC within queries", show(figures.auc_within)),
        *((f"AUC over all pairs after {name} alone", show(after.auc)) for name, after in made.after.items()),
    ]


def _singles(figures: Figures) -> str:
    if not figures.singles:
        return "Similarity is the only judge."
    rows = [
        (name, f"{one.pairs:,}", show(one.auc), _gain(one.gain), show(one.auc_within), _gain(one.gain_within))
        for name, one in figures.singles.items()
    ]
    header = ("judge alone", "pairs", "AUC", "all together add", "AUC within queries", "all together add there")
    return markdown_table(header, rows)


def _gain(value: Value) -> str:
    if value.value is None or value.low is None or value.high is None:
        return "-"
    return f"{signed(value.value)} ({signed(value.low)} to {signed(value.high)})"


def _setting(name: str, wanted: float | bool) -> str:
    return f"{{{name}: {str(wanted).lower()}}}"


def _chosen(made: Calibration, name: str, wanted: float | bool) -> Point | None:
    target = {"precision": None, "recall": None, "f1": False} | {name: wanted}
    threshold = made.threshold_for(
        precision=target["precision"] or None, recall=target["recall"] or None, f1=bool(target["f1"])
    )
    return next((point for point in made.sweep if point.threshold == threshold), None)


def _point(point: Point | None) -> tuple[str, ...]:
    if point is None:
        return ("no threshold reaches it", "0%", "-", "-", "-")
    return (f"{point.threshold:.4g}", percent(point.share), show(point.precision), show(point.recall), show(point.f1))
