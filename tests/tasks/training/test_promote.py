"""Promotion: what must hold before a training set replaces the one that trainers read."""

import math
import re
from typing import Any

import numpy as np
import polars as pl
import pytest

from tasks.schemas import SCORES
from tasks.training import promote as promote_module
from tasks.training.gate.checks import Check
from tasks.training.promote import RELEASED, Decision, PromoteConfig, decide_promotion
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of

SUMMARY: dict[str, Any] = {"candidates": 1000, "verdicts": {"unparsed": 10, "relevant": 60}}


def scores(
    gain: float,
    queries: int = 100,
    dataset: str = "nq",
    measure: str = "nDCG@10",
    *,
    seeds: int = 3,
    baseline: str = "default",
) -> pl.DataFrame:
    """Two systems on the same queries, whose difference is `gain` with a spread of 0.05; seeds are equal."""
    spread = np.random.default_rng(0).normal(0, 0.05, queries)
    spread -= spread.mean()
    base = np.linspace(0.2, 0.8, queries)
    sides = {baseline: base, "relabel": base + gain + spread}
    rows = [
        (model, dataset, measure, f"q{number}", float(value), 42 + seed)
        for seed in range(seeds)
        for model, values in sides.items()
        for number, value in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row")


def decide(found: pl.DataFrame, config: PromoteConfig | None = None, **more: Any) -> Decision:
    given = {"summary": SUMMARY, "instances": 500, **more}
    return decide_promotion(config or PromoteConfig(), scores=found, **given)


def check(decision: Decision, name: str) -> Check:
    return next(check for check in decision.checks if check.name == name)


@pytest.mark.parametrize(
    ("require", "gain", "promoted"),
    [
        ("better", 0.03, True),
        ("better", 0.001, False),  # the interval spans zero
        ("better", -0.03, False),
        ("not_worse", 0.003, True),  # from about -0.008
        ("not_worse", -0.005, False),  # from about -0.016
        ("none", -0.5, True),  # nobody asked
    ],
)
def test_the_whole_interval_must_be_on_the_right_side_of_what_is_required(
    require: str, gain: float, promoted: bool
) -> None:
    decision = decide(scores(gain), PromoteConfig.model_validate({"require": require}))
    assert decision.promote is promoted
    score = check(decision, "score")
    if require != "none":
        assert score.low is not None and score.threshold is not None
        assert (score.low > score.threshold) is promoted
        assert score.figure == pytest.approx(gain, abs=1e-9)


def test_a_promotion_needs_a_gain_by_default_and_says_how_many_queries_would_show_it() -> None:
    decision = decide(scores(0.008, queries=40))
    assert not decision.promote
    assert "not shown to be better than default in nDCG@10: +0.008" in decision.because
    assert "on 40 held-out queries; a difference of this size shows on about" in decision.because
    assert decide(scores(0.008, queries=1000)).promote


def test_few_queries_are_too_few_and_the_record_says_so() -> None:
    assert "nDCG@10 was measured on 1 held-out queries, 10 are wanted" in decide(scores(0.5, queries=1)).because
    assert decide(scores(0.5, queries=2), PromoteConfig(min_queries=2)).promote


def test_the_same_difference_on_every_query_shows_nothing_of_other_queries() -> None:
    alike = scores(0.0).with_columns(value=pl.when(pl.col("model") == "relabel").then(1.0).otherwise(0.5))
    decision = decide(alike)
    assert not decision.promote
    assert "nDCG@10 differs by +0.500 on every query" in decision.because


def test_without_trained_models_nothing_is_promoted_unless_no_comparison_is_wanted() -> None:
    decision = decide(SCORES.empty())
    assert not decision.promote
    assert "promote.require: none" in decision.because
    assert decide(SCORES.empty(), PromoteConfig(require="none")).promote


def test_a_measure_that_was_not_taken_is_no_comparison() -> None:
    assert "compared with 'default' in nDCG@10" in decide(scores(0.5, measure="RR@10")).because


def test_development_queries_decide_and_the_test_queries_are_shown() -> None:
    """Before, the gate chose by the queries that the report shows."""
    decision = decide(scores(0.1), reported=scores(-0.1))
    assert decision.promote
    shown = check(decision, "test")
    assert (shown.passed, round(shown.figure or 0, 3)) == (None, -0.1)
    assert shown.said.startswith("on the test queries: nDCG@10 −0.100")
    assert not decide(scores(-0.1), reported=scores(0.1)).promote


def test_where_no_query_is_held_out_for_development_the_record_says_that_the_test_queries_decided() -> None:
    said = check(decide(scores(0.1)), "test").said
    assert said == "the test queries decided, as none is held out for development; set ingest.dev, or ingest.dev_split"


def test_where_only_development_queries_are_scored_the_record_names_no_test_queries() -> None:
    said = check(decide(scores(0.1), decided_by="dev"), "test").said
    assert said == "the development queries decided, and no test queries were scored; evaluate.split is dev"


def test_all_datasets_decide_together_and_each_is_reported() -> None:
    decision = decide(pl.concat([scores(0.06, dataset="nq"), scores(-0.02, dataset="scidocs")]))
    assert decision.promote
    assert check(decision, "score").figure == pytest.approx(0.02)
    single = [check(decision, f"score of {name}") for name in ("nq", "scidocs")]
    assert [round(c.figure or 0, 3) for c in single] == [0.06, -0.02]
    assert [(c.passed, c.shown) for c in single] == [(True, "better"), (True, "worse")]
    assert decision.because.endswith("higher in 1 of 2 datasets, lower in 1: scidocs −0.020 (shown)")


def test_a_dataset_that_loses_more_than_is_allowed_holds_the_night() -> None:
    """Before, the differences of single datasets were only reported."""
    found = pl.concat([scores(0.05, 900), scores(-0.499, 50, dataset="small")])
    decision = decide(found)
    assert not decision.promote
    assert check(decision, "score").passed
    assert [c.name for c in decision.checks if c.passed is False] == ["score of small"]
    assert "small: nDCG@10 −0.499" in decision.because
    assert decide(found, PromoteConfig(max_loss=0.6)).promote


def test_one_seed_promotes_nothing_unless_it_is_asked_for() -> None:
    """Before, one seed decided: with no effect, 16 to 29% of nights were promoted."""
    decision = decide(scores(0.1, seeds=1))
    assert [c.name for c in decision.checks if c.passed is False] == ["seeds"]
    assert decide(scores(0.1, seeds=1), PromoteConfig(seeds=1)).promote
    assert check(decide(scores(0.1, seeds=1), PromoteConfig(seeds=1)), "seeds").passed is None


def test_later_nights_have_a_smaller_level_and_the_record_says_which() -> None:
    first, sixth = decide(scores(0.015)), decide(scores(0.015), night=6)
    assert (first.promote, sixth.promote) == (True, False)
    assert decide(scores(0.015), PromoteConfig(nights=1), night=6).promote
    assert check(sixth, "night").figure == 6
    assert check(sixth, "night").threshold == pytest.approx(0.025 * 8 / 7 / 42)
    assert check(first, "night").said == (
        "night 1 since the last promotion; each test has the one-sided level 0.014, which is its share of 0.025 for 7 "
        "nights"
    )


@pytest.mark.parametrize(("gain", "promoted"), [(0.0, True), (-0.03, False)])
def test_the_released_models_are_compared_on_tonights_queries(gain: float, promoted: bool) -> None:
    """Before, tonight's baseline stood for the release."""
    released = scores(gain, baseline=RELEASED).filter(model=RELEASED)
    lower = released.with_columns(value=pl.col("value") - gain)  # relabel is `gain` better than the release
    found = pl.concat([scores(0.1), lower.with_columns(value=pl.col("value") + 0.1)])
    decision = decide(found, previous=500)
    assert decision.promote is promoted
    assert check(decision, "released").figure == pytest.approx(gain)
    assert check(decision, "released").threshold == -0.02
    assert decide(found, PromoteConfig(against_release="none"), previous=500).promote
    assert not decide(found, PromoteConfig(against_release="better"), previous=500).promote


def test_where_the_released_models_are_not_there_the_record_says_why() -> None:
    decision = decide(scores(0.1), previous=500, missing="release 3 keeps the models of 0 seeds, 3 are wanted")
    assert decision.promote
    assert check(decision, "released") == Check(
        RELEASED,
        None,
        "not compared with the current release: release 3 keeps the models of 0 seeds, 3 are wanted",
    )
    assert RELEASED not in [c.name for c in decide(scores(0.1)).checks]


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        (
            "relevant",
            {"summary": SUMMARY | {"verdicts": {"unparsed": 0, "relevant": 301}}},
            "301 of 1,000 candidates (30%) relevant",
        ),
        (
            "unparsed",
            {"summary": SUMMARY | {"verdicts": {"unparsed": 51, "relevant": 0}}},
            "51 of 1,000 candidates (5.1%) unparsed",
        ),
        ("size", {"previous": 700}, "500 instances after 700"),
        ("size", {"instances": 0}, "the training set is empty"),
        ("drift", {"alarms": ["agreement fell to 0.4"]}, "drift: agreement fell to 0.4"),
    ],
)
def test_a_night_that_went_wrong_is_held_whatever_the_scores_say(name: str, more: dict[str, Any], said: str) -> None:
    decision = decide(scores(0.1), **more)
    assert not decision.promote
    assert said in decision.because
    assert [c.name for c in decision.checks if c.passed is False] == [name]


def test_limits_are_inclusive_and_nothing_judged_is_nothing_relabelled() -> None:
    at_limit = SUMMARY | {"verdicts": {"unparsed": 50, "relevant": 300}}
    assert decide(scores(0.1), summary=at_limit, previous=625).promote
    nothing = {"candidates": 0, "verdicts": {"unparsed": 0, "relevant": 0}}
    assert decide(scores(0.1), summary=nothing).promote


def test_drift_is_only_reported_where_it_is_not_to_hold() -> None:
    decision = decide(scores(0.1), PromoteConfig(hold_on_drift=False), alarms=["mix moved"])
    assert decision.promote
    assert check(decision, "drift").passed is None


def test_every_failed_check_is_in_the_reason() -> None:
    because = decide(scores(-0.1), alarms=["mix moved"], previous=10_000).because
    assert all(part in because for part in ("not shown to be better", "mix moved", "500 instances after 10,000"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"treatment": "remove"}, "promote.treatment is 'remove'"),
        ({"against": "remove_hn"}, "none is trained on remove_hn"),
        ({"against": "relabel"}, "compares 'relabel' with itself"),
        ({"measure": "nDCG@5"}, "evaluate.measures are nDCG@10"),
    ],
)
def test_requirements_that_no_night_could_meet_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PromoteConfig.model_validate(config).check(("default", "relabel"), ("default", "relabel"), ("nDCG@10",))


def test_without_training_the_requirement_must_be_none() -> None:
    with pytest.raises(ValueError, match="require: none"):
        PromoteConfig().check(("default", "relabel"), (), ("nDCG@10",))
    PromoteConfig(require="none").check(("default", "relabel"), (), ())


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(PromoteConfig) == {
        "treatment": "relabel",
        "against": "default",
        "measure": "nDCG@10",
        "require": "better",
        "margin": (0.01, ">=0", "<=1"),
        "max_loss": (0.05, ">=0", "<=1"),
        "seeds": (3, ">=1"),
        "against_release": "not_worse",
        "release_margin": (0.02, ">=0", "<=1"),
        "alpha": (0.025, ">0", "<0.5"),
        "nights": (7, ">=1"),
        "min_queries": (10, ">=2"),
        "max_relevant_share": (0.3, ">=0", "<=1"),
        "max_unparsed_share": (0.05, ">=0", "<=1"),
        "min_size_ratio": (0.8, ">=0"),
        "hold_on_drift": True,
        "publish_model": False,
    }


def queries_needed(decision: Decision) -> int | None:
    found = re.search(r"shows on about ([\d,]+)", decision.because)
    return int(found[1].replace(",", "")) if found else None


@pytest.mark.parametrize(("require", "margin"), [("better", 0.0), ("not_worse", 0.004)])
def test_the_queries_asked_for_shrink_the_interval_to_the_distance_from_the_bound(require: str, margin: float) -> None:
    """A half width w at n queries becomes the distance d at n * (w / d)^2; a tenth more queries are asked for."""
    decision = decide(scores(0.002, queries=40), PromoteConfig.model_validate({"require": require, "margin": margin}))
    score = check(decision, "score")
    assert score.figure is not None and score.low is not None
    needed = 1.1 * 40 * ((score.figure - score.low) / (score.figure + margin)) ** 2
    assert queries_needed(decision) == math.ceil(needed / 10) * 10


def test_where_the_difference_is_on_the_wrong_side_no_number_of_queries_would_show_it() -> None:
    assert queries_needed(decide(scores(-0.002, queries=40))) is None
    assert queries_needed(decide(scores(0.0, queries=40))) is None


def test_what_was_looked_at_is_recorded_with_figures_and_thresholds() -> None:
    decision = decide(scores(0.1), previous=500, alarms=())
    kept = {c.name: (c.passed, c.figure, c.threshold) for c in decision.checks if c.name != "score"}
    assert kept == {
        "relevant": (True, 0.06, 0.3),
        "unparsed": (True, 0.01, 0.05),
        "size": (True, 1.0, 0.8),
        "drift": (True, 0.0, 0.0),
        "test": (None, None, None),
        "seeds": (True, 3.0, 3.0),
        "released": (None, None, None),
        "night": (None, 1.0, pytest.approx(0.025 * 8 / 7 / 2)),
    }
    assert check(decision, "score").threshold == 0.0
    assert check(decide(scores(0.1), PromoteConfig(require="not_worse")), "score").threshold == -0.01
    assert check(decision, "drift").as_dict() == {
        "name": "drift", "passed": True, "said": "no drift", "figure": 0.0, "low": None, "high": None, "threshold": 0.0
    }  # fmt: skip


def test_a_night_without_release_before_it_has_no_size_to_hold() -> None:
    assert check(decide(scores(0.1)), "size") == Check("size", True, "500 instances, no release before", threshold=0.8)
    empty = check(decide(scores(0.1), instances=0), "size")
    assert (empty.passed, empty.figure, empty.threshold) == (False, 0.0, 0.8)
    small = decide(scores(0.1), previous=626)
    assert small.because == "500 instances after 626 in the current release, at least 80% wanted"


def test_the_smallest_number_of_queries_is_enough() -> None:
    assert decide(scores(0.5, queries=10)).promote
    assert not decide(scores(0.5, queries=9)).promote


def test_the_reason_names_the_margin_and_the_number_of_queries() -> None:
    assert decide(scores(0.05), PromoteConfig(require="not_worse")).because.startswith(
        "not worse by more than 0.01 than default in nDCG@10: +0.050, +0.0"
    )
    assert decide(scores(0.05, queries=2000)).because.endswith(" on 2,000 held-out queries")


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(promote_module) == set()
