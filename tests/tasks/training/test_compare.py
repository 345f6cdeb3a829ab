"""Comparison over queries and training seeds: intervals that cover both."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from tasks.schemas import SCORES
from tasks.training.compare import (
    PAGE_FILE,
    SUMMARY_FILE,
    CompareConfig,
    compare_models,
    compare_over_seeds,
    crossed_interval,
    say_difference,
)
from tasks.training.evaluate import compare
from tests.tasks.settings import settings_of


def scores_of(
    gain: float = 0.1, seeds: int = 3, queries: int = 40, models: tuple[str, ...] = ("relabel",)
) -> pl.DataFrame:
    """Each model better than `default` by `gain` on average, with queries and seeds of their own."""
    rng = np.random.default_rng(0)
    rows = []
    for q in range(queries):
        base, of_query = rng.uniform(0.3, 0.6), rng.normal(gain, 0.05)
        for seed in range(seeds):
            rows.append(("default", f"d{q % 2}", "nDCG@10", f"q{q // 2}", base + rng.normal(0, 0.01), 42 + seed))
            for model in models:
                value = base + of_query + rng.normal(0, 0.01)
                rows.append((model, f"d{q % 2}", "nDCG@10", f"q{q // 2}", value, 42 + seed))
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row")


def test_a_difference_is_found_over_all_queries_and_in_each_dataset() -> None:
    everywhere, one, two = compare_over_seeds(scores_of(), "default", "relabel")
    assert [everywhere.dataset, one.dataset, two.dataset] == ["all", "d0", "d1"]
    assert (everywhere.queries, one.queries) == (40, 20)
    assert everywhere.difference == pytest.approx(0.1, abs=0.03)
    assert everywhere.is_clear
    assert everywhere.p_value is not None
    assert everywhere.p_value < 1e-6
    assert everywhere.better + everywhere.equal + everywhere.worse == 40


def test_queries_of_two_datasets_with_one_id_are_two_queries() -> None:
    assert compare_over_seeds(scores_of(queries=8), "default", "relabel")[0].queries == 8


def test_with_one_seed_the_difference_is_that_of_the_report() -> None:
    scores = scores_of(seeds=1)
    ours, theirs = compare_over_seeds(scores, "default", "relabel")[0], compare(scores)[0]
    assert ours.difference == pytest.approx(theirs.difference)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    of_query, of_seed = rng.normal(0.05, 0.02, (50, 1)), np.array([[-0.06, 0.0, 0.06]])
    calm, torn = crossed_interval(of_query + 0 * of_seed), crossed_interval(of_query + of_seed)
    assert calm is not None
    assert torn is not None
    assert torn[1] - torn[0] > 5 * (calm[1] - calm[0])
    assert calm[2] < 0.001
    assert torn[2] > 0.05


@pytest.mark.parametrize("seed_spread", [0.0, 0.01, 0.05])
def test_the_interval_covers_the_true_difference_over_queries_and_seeds(seed_spread: float) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(500):
        drawn = rng.normal(0.02, 0.2, (60, 1)) + rng.normal(0, seed_spread, (1, 3)) + rng.normal(0, 0.1, (60, 3))
        low, high, _ = crossed_interval(drawn) or (1.0, 0.0, 1.0)
        covered += low <= 0.02 <= high
    assert covered / 500 > 0.9


def test_one_query_gives_no_interval_and_equal_scores_no_difference() -> None:
    assert crossed_interval(np.zeros((1, 3))) is None
    assert crossed_interval(np.zeros((5, 3))) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("difference", [0.5, 0.1, 1 - 0.63093, -2 / 3])
@pytest.mark.parametrize("shape", [(2, 3), (12, 1), (7, 2), (3, 1)])
def test_the_same_difference_everywhere_is_no_certainty(difference: float, shape: tuple[int, int]) -> None:
    assert crossed_interval(np.full(shape, difference)) is None


def test_a_query_without_all_seeds_is_left_out_and_no_common_query_is_no_comparison() -> None:
    scores = scores_of(queries=4)
    gap = scores.filter(~((pl.col("query_id") == "q0") & (pl.col("dataset") == "d0") & (pl.col("seed") == 44)))
    assert compare_over_seeds(gap, "default", "relabel")[0].queries == 3
    assert compare_over_seeds(scores, "default", "remove") == []


def test_the_page_and_the_json_say_what_the_interval_covers(tmp_path: Path) -> None:
    config = CompareConfig(training={"steps": 60, "seeds": "42, 43, 44"})
    assert compare_models(config, scores=scores_of(), out=tmp_path) == {}
    summary = json.loads((tmp_path / SUMMARY_FILE).read_text())
    assert summary["seeds"] == [42, 43, 44]
    assert "queries and training seeds" in summary["interval_covers"]
    assert summary["comparisons"]["relabel"][0]["dataset"] == "all"
    assert {row["model"] for row in summary["means"]} == {"default", "relabel"}
    page = (tmp_path / PAGE_FILE).read_text()
    assert "steps 60" in page
    assert "| relabel | all | nDCG@10 | 40 | +0." in page
    compare_models(config, scores=scores_of(seeds=1), out=tmp_path)
    assert "queries only" in json.loads((tmp_path / SUMMARY_FILE).read_text())["interval_covers"]


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(CompareConfig) == {
        "title": "Retraining",
        "baseline": "default",
        "models": ("relabel",),
        "training": {},
    }


def test_the_variance_of_a_small_table_is_that_of_queries_and_seeds_without_the_rest() -> None:
    """Mean squares: queries 0.08 (2 degrees of freedom), seeds 0.24 (1), rest 0.02 (2); six differences of mean 0.4."""
    differences = np.array([[0.1, 0.3], [0.3, 0.9], [0.2, 0.6]])
    variance = (0.08 + 0.24 - 0.02) / 6
    freedom = variance**2 / ((0.08 / 6) ** 2 / 2 + (0.24 / 6) ** 2 / 1 + (0.02 / 6) ** 2 / 2)
    reach = stats.t.ppf(0.975, freedom) * variance**0.5
    p_value = 2 * stats.t.sf(0.4 / variance**0.5, freedom)
    assert crossed_interval(differences) == pytest.approx((0.4 - reach, 0.4 + reach, p_value))


def test_seeds_that_differ_no_more_than_the_rest_add_nothing_to_the_variance() -> None:
    differences = np.array([[0.1, 0.3], [0.5, 0.3], [0.2, 0.4]])  # both seeds have nearly the same mean
    of_query = differences.mean(axis=1)
    reach = stats.t.ppf(0.975, 2) * of_query.std(ddof=1) / 3**0.5
    found = crossed_interval(differences)
    assert found is not None
    assert found[:2] == pytest.approx((of_query.mean() - reach, of_query.mean() + reach))


def test_one_seed_is_the_t_interval_of_the_queries() -> None:
    differences = np.array([[0.1], [0.3], [0.2], [0.6]])
    test = stats.ttest_1samp(differences[:, 0], 0)
    interval = test.confidence_interval(0.95)
    assert crossed_interval(differences) == pytest.approx((interval.low, interval.high, test.pvalue))
    assert crossed_interval(differences[:2]) is not None


def toy_scores() -> pl.DataFrame:
    values = {"default": (0.5, 0.25, 0.5), "relabel": (0.5, 0.5, 0.25), "remove": (0.75, 0.5, 0.75)}
    rows = [
        (model, "nq", measure, f"q{q}", value, 42)
        for model, of in values.items()
        for measure in ("Odd", "RR@10", "nDCG@10")
        for q, value in enumerate(of)
    ]
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row")


def test_better_equal_and_worse_queries_are_counted() -> None:
    found = {c.measure: c for c in compare_over_seeds(toy_scores(), "default", "relabel")}
    assert list(found) == ["nDCG@10", "RR@10", "Odd"]
    one = found["Odd"]
    assert (one.better, one.equal, one.worse, one.queries) == (1, 1, 1, 3)
    assert (one.baseline, one.treatment, one.confidence) == (pytest.approx(5 / 12), pytest.approx(5 / 12), 0.95)


def test_the_page_is_these_lines(tmp_path: Path) -> None:
    scores = toy_scores().filter(measure="nDCG@10", model="default")
    scores = pl.concat([scores, toy_scores().filter(measure="nDCG@10", model="remove")])
    config = CompareConfig(models=("remove",), training={"steps": 60})
    compare_models(config, scores=scores, out=tmp_path)
    assert (tmp_path / PAGE_FILE).read_text().split("\n\n") == [
        "# Retraining",
        "Trained from the same start: steps 60.",
        "## Mean scores on the held-out queries",
        "| trained on | measure | mean | by seed |\n| --- | --- | --- | --- |\n"
        "| default | nDCG@10 | 0.417 | 42: 0.417 |\n| remove | nDCG@10 | 0.667 | 42: 0.667 |",
        "## Differences from default",
        "| trained on | held-out | measure | queries | difference (95%) | corrected p | effect | better on | worse "
        "on | shown |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| remove | all | nDCG@10 | 3 | +0.250, no interval can be given | – | – | 3 | 0 | no |",
        "Intervals cover queries only: one seed was trained, so how much another seed would change is not known. The "
        "corrected p-value is Holm's over the models and the datasets of a measure; a difference counts as shown if it "
        "is below 0.05. The effect is the difference in standard deviations of the queries' differences.",
        "",
    ]
    summary = json.loads((tmp_path / SUMMARY_FILE).read_text())
    assert summary["means"][0] == {
        "model": "default",
        "measure": "nDCG@10",
        "mean": 0.416667,
        "by_seed": {"42": 0.416667},
    }


@pytest.mark.parametrize(("p_value", "said"), [(0.0009, "p < 0.001"), (0.001, "p = 0.001"), (0.0125, "p = 0.013")])
def test_small_p_values_are_not_written_out(p_value: float, said: str) -> None:
    found = compare_over_seeds(scores_of(), "default", "relabel")[0]
    assert say_difference(replace(found, p_value=p_value)).endswith(said)


def test_the_page_says_what_got_worse_as_what_got_better_corrected_over_models_and_datasets(tmp_path: Path) -> None:
    """Before, each p-value stood alone, and no effect size was given."""
    scores = scores_of(models=("relabel", "remove_hn"))
    lower = pl.when(pl.col("model") == "remove_hn").then(pl.col("value") - 0.3).otherwise(pl.col("value"))
    compare_models(
        CompareConfig(models=("relabel", "remove_hn")), scores=scores.with_columns(value=lower), out=tmp_path
    )
    made = json.loads((tmp_path / SUMMARY_FILE).read_text())["comparisons"]
    rows = [row for of in made.values() for row in of]
    assert len(rows) == 6
    assert min(row["p_corrected"] for row in rows) == pytest.approx(6 * min(row["p_value"] for row in rows))
    (better, *_), (worse, *_) = made["relabel"], made["remove_hn"]
    assert (better["effect"] > 1, worse["effect"] < -1) == (True, True)
    lines = (tmp_path / PAGE_FILE).read_text().splitlines()
    shown = {
        tuple(line.strip("| ").split(" | "))[::9] for line in lines if line.startswith(("| relabel", "| remove_hn"))
    }
    assert {("relabel", "better"), ("remove_hn", "worse")} <= shown
