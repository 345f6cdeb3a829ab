"""Engines in Ray actors: shared by parts, built again when one dies."""

from pathlib import Path

import pytest

from infra.engines.specs import SentenceTransformersSpec
from tests.infra.toy import ToyConfig
from tests.infra.toy_runs import engine_pipeline, execute, executions, log_of


@pytest.mark.slow
def test_an_engine_that_dies_is_rebuilt_and_the_parts_in_it_are_tried_again_each_alone(
    services: None, tmp_path: Path, encoder: SentenceTransformersSpec
) -> None:
    log = tmp_path / "log"
    config = ToyConfig(log=str(log), trouble=f"kill:{tmp_path / 'once'}")
    run, _ = execute(str(tmp_path / "store"), tmp_path, config, engine_pipeline(encoder))
    assert (run.runs[1].failed, run.runs[1].computed) == ({}, 4)
    done = executions(log)
    assert set(done) == {"0 8", "10 8", "20 8", "30 8"}
    assert done.count("20 8") == 2
    assert len(done) <= 6  # its companion in the engine, at most, was in vain too


@pytest.mark.slow
def test_a_part_that_kills_engines_is_set_aside_with_its_reason(
    services: None, tmp_path: Path, encoder: SentenceTransformersSpec
) -> None:
    log = tmp_path / "log"
    run, _ = execute(
        str(tmp_path / "store"), tmp_path, ToyConfig(log=str(log), trouble="kill"), engine_pipeline(encoder)
    )
    assert run.runs[1].computed == 3
    assert "set aside: the engine died 2 times" in run.runs[1].failed[2]
    assert executions(log).count("20 8") == 2


@pytest.mark.slow
def test_an_engine_that_cannot_be_built_says_why_and_is_not_tried_again(services: None, tmp_path: Path) -> None:
    nowhere = SentenceTransformersSpec(model=str(tmp_path / "nowhere"), digest="none")
    run, _ = execute(str(tmp_path / "store"), tmp_path, ToyConfig(), engine_pipeline(nowhere))
    assert set(run.runs[1].failed) == {0, 1, 2, 3}
    assert all("nowhere" in reason for reason in run.runs[1].failed.values())


@pytest.mark.slow
def test_parts_that_share_an_engine_have_each_its_own_lines_and_one_tells_of_its_building(
    services: None, tmp_path: Path, encoder: SentenceTransformersSpec
) -> None:
    _, flow_run = execute(str(tmp_path / "store"), tmp_path, ToyConfig(), engine_pipeline(encoder))
    built = 0
    for number in range(4):
        lines = [line for _, line in log_of(flow_run, f"with_engine-{number:05d}", "doubling")]
        assert [line for line in lines if "doubling" in line] == [f"doubling from {number * 10}"]
        built += any(line.startswith("engine built in") for line in lines)
    assert built == 1
