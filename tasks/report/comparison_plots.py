"""Plots of the report that compare models: intervals of the differences, and the differences query by query."""

from collections.abc import Sequence

import polars as pl
from markupsafe import Markup

from tasks.formatting import printable, signed
from tasks.report import plots
from tasks.report.summary import NDCG
from tasks.training.evaluate import ALL_DATASETS, PAIR, Comparison, paired_differences

_BINS = 25


def plot_forest(comparisons: Sequence[Comparison], pair: tuple[str, str] = PAIR) -> Markup | None:
    """Plot the intervals of the differences over all queries, and those in nDCG@10 of each dataset.

    `pair` names the models: baseline, treatment.
    """
    baseline, treatment = pair
    shown = [c for c in comparisons if c.dataset == ALL_DATASETS or c.measure == NDCG]
    if not shown:
        return None
    rows = [
        plots.Interval(
            label=c.measure if c.dataset == ALL_DATASETS else f"{c.measure}, {printable(c.dataset)}",
            detail=f"{signed(c.difference)}  [{signed(c.low)}, {signed(c.high)}]"
            if c.low is not None and c.high is not None
            else signed(c.difference),
            value=c.difference,
            low=c.low,
            high=c.high,
            is_clear=c.is_clear,
        )
        for c in shown
    ]
    return plots.intervals(
        rows,
        label=f"Difference of {treatment} and {baseline} with 95% intervals: "
        + "; ".join(f"{row.label} {row.detail}" for row in rows),
        x_title=f"difference, {treatment} minus {baseline}",
    )


def plot_differences(scores: pl.DataFrame, pair: tuple[str, str] = PAIR) -> Markup | None:
    """Plot a histogram of the differences in nDCG@10 per query; `pair` names the models: baseline, treatment."""
    values = paired_differences(scores, *pair).filter(pl.col("measure") == NDCG)["difference"].to_list()
    if not values:
        return None
    reach = max(0.1, *(abs(value) for value in values))
    edge = next(limit for limit in (0.1, 0.2, 0.5, 1.0) if reach <= limit + 1e-9)
    return plots.histogram(
        plots.bin_values(values, -edge, edge, _BINS),  # an odd number of bins: the middle one contains zero
        label=f"How much {NDCG} of a query changes from {pair[0]} to {pair[1]}",
        x_title=f"change in {NDCG} of a query",
        y_title="queries",
    )
