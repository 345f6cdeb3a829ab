"""Pruning: whether a model is better without one of its datasets."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from tasks.schemas import INSTANCES, PRUNING, SCORES
from tasks.training.prune import PAGE_FILE, SUMMARY_FILE, LeaveOutConfig, PruneConfig, leave_out, prune
from tests.tasks.settings import REQUIRED, settings_of

GAINS = {"good": -0.2, "bad|one": 0.2, "idle": 0.0}  # of leaving it out
MODELS = {name: f"without {name}" for name in GAINS}


def instances() -> pl.DataFrame:
    rows = [(name, f"q{i}", ["p"], ["n"], "relabel", "h") for name in GAINS for i in range(3)]
    return pl.DataFrame(rows, schema=INSTANCES.columns, orient="row")


def scores() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for q in range(30):
        base = rng.uniform(0.4, 0.6)
        for seed in (1, 2, 3):
            for model, gain in {"relabel": 0.0, **{MODELS[n]: g for n, g in GAINS.items()}}.items():
                value = base + gain + rng.normal(0, 0.03)
                rows.append((model, "good", "nDCG@10", f"q{q}", value, seed))
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row")


def test_only_the_rows_of_the_dataset_left_out_are_missing() -> None:
    mix = leave_out(LeaveOutConfig(dataset="bad|one"), instances=instances())["mix"]
    assert mix["dataset"].unique().sort().to_list() == ["good", "idle"]
    assert mix.height == 6


def test_each_dataset_hurts_helps_or_nothing_is_shown(tmp_path: Path) -> None:
    config = PruneConfig(complete="relabel", models=MODELS)
    table = prune(config, instances=instances(), scores=scores(), out=tmp_path)["pruning"]
    assert dict(table.schema) == PRUNING.columns
    assert dict(table.filter(held_out="all").select("left_out", "verdict").iter_rows()) == {
        "good": "helps",
        "bad|one": "hurts",
        "idle": "not shown",
    }
    row = table.row(by_predicate=(pl.col("left_out") == "bad|one"), named=True)
    assert row["difference"] == pytest.approx(0.2, abs=0.02)
    assert row["difference"] == pytest.approx(row["without"] - row["complete"])
    assert row["low"] < row["difference"] < row["high"]
    assert (row["queries"], row["seeds"], row["instances"]) == (30, 3, 3)
    assert (table["p_adjusted"] >= table["p_value"]).all()


def test_the_page_warns_of_choosing_by_what_is_reported(tmp_path: Path) -> None:
    prune(PruneConfig(complete="relabel", models=MODELS), instances=instances(), scores=scores(), out=tmp_path)
    summary = json.loads((tmp_path / SUMMARY_FILE).read_text())
    assert summary["verdicts"]["nDCG@10"] == {"good": "helps", "bad|one": "hurts", "idle": "not shown"}
    assert "3 datasets were tried" in summary["remark"]
    page = (tmp_path / PAGE_FILE).read_text()
    assert "reported on others" in page
    assert r"| bad\|one | all | nDCG@10 | 30 | +0." in page


def test_many_datasets_that_do_nothing_are_rarely_blamed(tmp_path: Path) -> None:
    """Without the correction one of twenty would be."""
    rng = np.random.default_rng(3)
    names = [f"d{i}" for i in range(20)]
    blamed = 0
    for _ in range(10):
        rows = [
            (model, "t", "nDCG@10", f"q{q}", rng.normal(0.5, 0.1), seed)
            for model in ("relabel", *names)
            for q in range(20)
            for seed in (1, 2, 3)
        ]
        config = PruneConfig(complete="relabel", models={name: name for name in names})
        table = prune(
            config, instances=instances(), scores=pl.DataFrame(rows, schema=SCORES.columns, orient="row"), out=tmp_path
        )["pruning"]
        blamed += table.filter(held_out="all")["verdict"].ne("not shown").any()
    assert blamed <= 2


def test_one_held_out_query_shows_nothing(tmp_path: Path) -> None:
    config = PruneConfig(complete="relabel", models=MODELS)
    table = prune(config, instances=instances(), scores=scores().filter(query_id="q0"), out=tmp_path)["pruning"]
    assert table["p_adjusted"].null_count() == table.height
    assert set(table["verdict"]) == {"not shown"}


def test_one_dataset_of_several_may_be_tried_alone_and_none_may_not() -> None:
    assert PruneConfig(complete="relabel", models={"only": "x"}).models == {"only": "x"}
    with pytest.raises(ValidationError, match="at least 1 item"):
        PruneConfig(complete="relabel", models={})


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(LeaveOutConfig) == {"dataset": REQUIRED}
    assert settings_of(PruneConfig) == {
        "complete": REQUIRED,
        "models": (REQUIRED, "len>=1"),
        "level": (0.05, ">0", "<1"),
        "title": "Pruning",
        "training": {},
    }
