"""The promotion gate by simulation, in small: no gain, one dataset made worse on purpose, everything made better."""

import json
from dataclasses import replace

import pytest
from scipy.stats import binom

from benchmarks.gate import RESULT, SIZES, World, simulate
from tasks.training.promote import PromoteConfig

REPETITIONS = 200
STILL = World({}, SIZES)
NOMINAL = float(binom.ppf(0.99, REPETITIONS, PromoteConfig().alpha)) / REPETITIONS


def test_the_former_rule_promotes_without_a_gain_and_with_one_dataset_ruined() -> None:
    alone = replace(STILL, sizes={"large": 900}, seeds=1)
    assert simulate("former", alone, REPETITIONS, old=True)["promoted"] > 0.15
    ruined = replace(STILL, gains={"large": 0.05, "a": -0.499}, seeds=1)
    assert simulate("former", ruined, REPETITIONS, old=True)["promoted"] > 0.7


@pytest.mark.parametrize(
    "world",
    [STILL, replace(STILL, sizes={"large": 900}), replace(STILL, noise=(0.06, 0.0)), replace(STILL, skewed=True)],
)
def test_without_a_gain_at_most_the_nominal_share_is_promoted(world: World) -> None:
    assert simulate("no gain", world, REPETITIONS)["score"] <= NOMINAL


def test_a_week_of_nights_without_a_gain_has_the_nominal_share_together() -> None:
    assert simulate("week", replace(STILL, sizes={"large": 900}), REPETITIONS, nights=7)["promoted"] <= NOMINAL


@pytest.mark.parametrize("loss", [0.05, 0.1, 0.499])
def test_one_small_dataset_made_worse_is_refused(loss: float) -> None:
    world = replace(STILL, gains=dict.fromkeys(SIZES, 0.05) | {"a": -loss})
    assert simulate("worse", world, REPETITIONS)["promoted"] <= NOMINAL


def test_what_is_better_is_promoted() -> None:
    world = replace(STILL, gains=dict.fromkeys(SIZES, 0.05))
    assert simulate("better", world, REPETITIONS)["promoted"] > 0.9


def test_training_sets_as_good_as_the_release_pass_with_five_seeds_and_worse_ones_do_not() -> None:
    world = replace(STILL, seeds=5)
    assert simulate("equal", world, REPETITIONS, released=True)["promoted"] > 0.75
    worse = replace(world, gains=dict.fromkeys(SIZES, -0.02))
    assert simulate("worse", worse, REPETITIONS, released=True)["promoted"] <= NOMINAL


def test_the_kept_figures_hold_the_nominal_level() -> None:
    kept = json.loads(RESULT.read_text(encoding="utf-8"))
    without = [case for case in kept["cases"] if "no gain" in case["name"] or "without gain" in case["name"]]
    assert all(case["promoted"] <= kept["nominal"] for case in without if not case["name"].startswith("former"))
    assert {case["repetitions"] for case in kept["cases"]} == {1000}
