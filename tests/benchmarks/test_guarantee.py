"""The benchmark of the guarantee: what it counts as a failure, and its stored figures."""

import json

import numpy as np
import pytest

from benchmarks.guarantee import RESULT, SHAPES, calibrated, describe, floor, trial


def test_a_trial_looks_at_the_truth_of_the_final_set() -> None:
    def perfect(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        relevant = rng.random(5000) < 0.3
        return np.where(relevant, 0.9, 0.1), relevant

    found = trial(perfect, 1)
    assert (found["failed"], found["covered"], found["recall"], found["precision"]) == (0.0, 1.0, 1.0, 1.0)
    assert found["asked"] == pytest.approx(found["audited"])


def test_the_floor_is_what_lies_between_thresholds_that_just_keep_the_targets() -> None:
    scores = np.arange(100) / 100
    assert floor(scores, scores >= 0.5) == 0.0
    mixed = np.isin(np.arange(100), [10, *range(80, 100)])  # of 21 relevant pairs one may be missed
    assert floor(scores, mixed) == 0.0
    assert floor(scores, np.isin(np.arange(100), [10, 20, *range(80, 100)])) > 0.5


def test_a_shape_is_summed_up_with_its_interval_and_what_is_allowed() -> None:
    pool = calibrated(0.2, 0.3, 500, np.random.default_rng(0))
    one = trial(lambda _: pool, 0)
    row = describe("small", [one | {"failed": 1.0}] + [one | {"failed": 0.0}] * 39, pool)
    assert (row["failed"], row["allowed"], row["repetitions"]) == (1, 2, 40)
    share, low, high = row["failed_share"]  # type: ignore[misc]
    assert low < share < high


def test_the_stored_figures_keep_what_the_project_states() -> None:
    stored = json.loads(RESULT.read_text())
    shapes = {shape["name"]: shape for shape in stored["shapes"]}
    assert set(SHAPES) <= set(shapes)
    assert all(shape["failed"] <= shape["allowed"] for shape in shapes.values())
    assert shapes["informative"]["asked_share"] <= 0.2
    assert shapes["informative"]["pairs"] == 50_000
    assert shapes["informative"]["repetitions"] == 1000
