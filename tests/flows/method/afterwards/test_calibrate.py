"""The method that makes a calibration reads a finished curation and computes one stage."""

from pathlib import Path

import pytest

from flows.config.section import ConfigError
from flows.method.afterwards.calibrate import Wanted, calibrate_method
from flows.runs.light_parts import LightParts
from infra.stages.runner import Runner
from infra.storage.store import Store
from tests.flows.animals import make_setup, run_method, tier, write_source


def test_it_computes_one_stage_of_what_the_judges_said_already(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    tiers = [tier("weak"), tier("strong", {"relevant_from": 0.85, "not_relevant_below": 0.85})]
    run_method(tmp_path, source, tiers=tiers)
    store = Store.open(str(tmp_path / "store"))
    setup = make_setup(store, source, tiers=tiers)
    run = Runner(store, LightParts(store, tmp_path / "scratch"))
    page = calibrate_method(Runner(store), run, setup, Wanted("strong", "reneg calibrate", "2026-01-01T00:00:00Z"))
    assert set(page.files) == {"calibration.json", "calibration.md"}
    assert [(done.name, done.computed) for done in run.runs] == [("calibrate", 1)]
    with pytest.raises(ConfigError, match=r"--from weaker: .* has the labels of people, known, data, weak, strong"):
        calibrate_method(Runner(store), run, setup, Wanted("weaker"))
    other = make_setup(store, source, tiers=tiers, name="others", mine={"range_max": 5, "num_negatives": 3})
    with pytest.raises(ConfigError, match="has not finished"):
        calibrate_method(Runner(store), run, other, Wanted())
