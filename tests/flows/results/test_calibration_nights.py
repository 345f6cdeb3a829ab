"""Tonight's labels against the calibration that a curation names: what is recorded, and when it alarms."""

from pathlib import Path

import polars as pl

from flows.method.human_labels import write_labels
from flows.results.calibration_nights import alarms_of
from flows.results.history import read_history
from tasks import schemas
from tasks.quality.drift import DriftConfig
from tests.flows.nightly import Nights, sources
from tests.flows.runs.test_calibrate_curation import AT, calibrate, label_all, table


def turn_labels(nights: Nights, curation: str) -> None:
    """Say of every candidate that it is relevant, later than before, so that these labels count."""
    features = table(nights, curation, "judge_similarity", "features")
    labels = features.select(
        "query_hash", "text_hash", annotator=pl.lit("ann"), label=pl.lit("relevant"),
        at=pl.lit(AT.replace("2026", "2027")), curation=pl.lit(curation), comment=pl.lit(""),
    )  # fmt: skip
    write_labels(nights.workspace.store, labels.unique(["query_hash", "text_hash"]).select(*schemas.HUMAN.columns))


def test_a_night_whose_labels_contradict_its_calibration_raises_an_alarm_and_one_that_fits_none(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 12)
    label_all(nights, nights.curate(source).curation)
    calibrate(nights, "animals-000001")
    settings = {"calibration": "latest", "decide": {"f1": True}, "drift": {"min_pairs": 20}}
    nights.sleep()
    done = nights.curate(source, **settings)
    assert done.summary["alarms"] == []
    record = read_history(nights.workspace.store, "animals")[-1]["calibration"]
    assert (record["labels_from"], record["bins"][0]["pairs"] > 40) == ("people", True)
    turn_labels(nights, done.curation)
    nights.sleep()
    (alarm,) = nights.curate(source, **settings).summary["alarms"]
    assert alarm.startswith("calibration: of ")
    assert "100% are relevant" in alarm


def test_a_curation_without_a_calibration_has_nothing_to_compare() -> None:
    assert alarms_of(DriftConfig(), None) == []
