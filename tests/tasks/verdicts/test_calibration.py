"""The artifact of a calibration."""

from functools import cache

import polars as pl
import pytest

from tasks.verdicts.calibration import Calibration, Counts, Origin, calibrate
from tasks.verdicts.combiner import CombineConfig, NotEnoughLabels
from tasks.verdicts.fitting.figures import Point, Value
from tests.tasks.verdicts.fitting.pairs import labels_of, make_pairs

BOTH = CombineConfig(tiers=("weak", "strong"))


@cache
def made() -> Calibration:
    pairs = make_pairs(queries=60)
    origin = Origin(curation="c-000001", encoder="enc", judges={"weak": "w"}, at="2026-01-01T00:00:00Z")
    return calibrate(BOTH, wide=pairs, labels=labels_of(pairs), origin=origin)


def test_an_artifact_is_json_with_a_digest_of_its_content() -> None:
    again = Calibration.model_validate_json(made().model_dump_json())
    assert again == made() and again.digest == made().digest
    later = made().model_copy(update={"origin": made().origin.model_copy(update={"at": "2027"})})
    other = made().model_copy(update={"origin": made().origin.model_copy(update={"encoder": "b"})})
    assert later.digest == made().digest != other.digest


def test_it_says_how_good_it_is_on_queries_it_was_not_fitted_on() -> None:
    figures = made().figures
    assert (figures.pairs, figures.queries) == (1200, 60)
    assert figures.ece.value < 0.05  # type: ignore[operator]
    assert figures.brier.value < figures.brier_base.value  # type: ignore[operator]
    assert made().separates and not made().by_machine
    assert set(figures.singles) == {"similarity", "weak", "strong"}
    assert figures.singles["weak"].gain.low > 0  # type: ignore[operator]
    better = [made().after[tier].auc.value for tier in ("similarity", "weak")]
    assert better[0] < better[1] < figures.auc.value  # type: ignore[operator]


def test_presets_give_thresholds_that_hold_for_new_queries() -> None:
    new = make_pairs(queries=200, seed=7)
    p = made().predict(new)
    for wanted in (0.7, 0.9):
        called = new.filter(p >= made().threshold_for(precision=wanted))
        assert called["relevant"].mean() == pytest.approx(wanted, abs=0.04)
        found = new.filter((p >= made().threshold_for(recall=wanted)) & new["relevant"])
        assert found.height / new["relevant"].sum() == pytest.approx(wanted, abs=0.04)
    best = made().threshold_for(f1=True)
    assert best is not None
    assert made().threshold_for(precision=0.9) < made().threshold_for(precision=0.9, sure=True)  # type: ignore[operator]


def test_a_target_that_is_out_of_reach_has_no_threshold() -> None:
    pairs = make_pairs(queries=40)
    alone = calibrate(CombineConfig(), wide=pairs, labels=labels_of(pairs), origin=Origin())
    assert alone.threshold_for(precision=0.999, sure=True) is None
    with pytest.raises(ValueError, match="exactly one"):
        alone.threshold_for(precision=0.9, recall=0.9)


def test_a_precision_that_a_handful_of_labels_have_by_chance_has_no_threshold() -> None:
    yes, no = Value(value=1.0, low=0.2, high=1.0), Value(value=0.5, low=0.4, high=0.6)
    points = [
        Point(threshold=p, share=share, precision=found, recall=no, f1=no)
        for p, share, found in ((0.3, 1.0, no), (0.5, 0.3, no), (0.52, 0.09, yes), (0.53, 0.01, yes))
    ]
    of_100 = made().model_copy(update={"sweep": tuple(points), "counts": Counts(labels=100, relevant=50, queries=20)})
    assert of_100.threshold_for(precision=0.9) is None  # nine labels, all relevant
    of_1000 = of_100.model_copy(update={"counts": Counts(labels=1000, relevant=500, queries=20)})
    assert of_1000.threshold_for(precision=0.9) == 0.52


def test_scores_that_tell_nothing_are_said_not_to_separate() -> None:
    pairs = make_pairs(queries=30)
    noise = pairs["relevant"].sample(fraction=1, shuffle=True, seed=1)
    labels = labels_of(pairs).with_columns(relevant=noise)
    found = calibrate(CombineConfig(), wide=pairs, labels=labels, origin=Origin())
    assert not found.separates


def test_where_a_tier_gave_the_labels_its_score_is_no_feature_and_stands_where_it_answered() -> None:
    pairs = make_pairs(queries=40)
    asked = pairs.filter(pl.col("rank") <= 10)
    labels = asked.select("dataset", "query_id", "doc_id", relevant=pl.col("score_strong") > 0.5)
    found = calibrate(BOTH, wide=pairs, labels=labels, origin=Origin(labels_from="strong"))
    assert found.by_machine and found.combiner.tiers == ("weak",)
    part = pairs.with_columns(score_strong=pl.when(pl.col("rank") <= 10).then("score_strong"))
    p = found.predict(part)
    assert p.filter(part["rank"] <= 10).equals(part["score_strong"].drop_nulls().alias("p"))
    rest = part.filter(pl.col("rank") > 10)
    assert p.filter(part["rank"] > 10).mean() == pytest.approx(rest["relevant"].mean(), abs=0.08)


def test_too_few_labels_are_refused() -> None:
    pairs = make_pairs(queries=2)
    with pytest.raises(NotEnoughLabels):
        calibrate(BOTH, wide=pairs, labels=labels_of(pairs), origin=Origin())
