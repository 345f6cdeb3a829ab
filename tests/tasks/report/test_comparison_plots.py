"""The plots that compare models: which differences are shown, and how far the histogram reaches."""

import polars as pl

from tasks import schemas
from tasks.report.comparison_plots import plot_differences, plot_forest
from tasks.training.evaluate import Comparison
from tests.tasks.report.tables import rows


def comparison(dataset: str, measure: str) -> Comparison:
    return Comparison(dataset, measure, 40, 0.5, 0.53, 0.03, 0.01, 0.05, 0.004, 20, 15, 5)


def test_the_forest_shows_every_measure_over_all_queries_and_one_measure_of_each_dataset() -> None:
    shown = plot_forest([comparison("all", "R@100"), comparison("nq", "nDCG@10"), comparison("nq", "R@100")])
    assert shown is not None
    assert "R@100 +0.030  [+0.010, +0.050]; nDCG@10, nq +0.030  [+0.010, +0.050]" in shown
    assert "difference, relabel minus default" in shown
    assert "difference, remove minus base" in (plot_forest([comparison("all", "R@100")], ("base", "remove")) or "")
    assert plot_forest([comparison("nq", "R@100")]) is None
    assert plot_forest([]) is None


def scores(change: float) -> pl.DataFrame:
    return rows(
        schemas.SCORES,
        *[(model, "d", "nDCG@10", f"q{n}", value, 42) for n in range(3)
          for model, value in (("default", 0.2), ("relabel", 0.2 + change))],
    )  # fmt: skip


def test_the_histogram_of_differences_reaches_the_next_round_number_and_is_left_out_without_any() -> None:
    for change, edge in ((0.05, ">0.1<"), (0.15, ">0.2<"), (0.9, ">1<")):
        shown = plot_differences(scores(change))
        assert shown is not None
        assert edge in shown
    assert plot_differences(schemas.SCORES.empty()) is None
    other = scores(0.05).with_columns(pl.col("model").replace("relabel", "remove_hn"))
    assert plot_differences(other) is None
    assert "from default to remove_hn" in (plot_differences(other, ("default", "remove_hn")) or "")
