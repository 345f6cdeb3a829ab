"""Rows and keys of the artifacts, and what a real Prefect server keeps of them."""

import time
from pathlib import Path
from typing import Any

import pytest

from infra.execution.prefect_ui import StageProgress, key_of, row_of, show_stage, show_summary
from infra.stages.runner import Failure, PartSpec, Runner
from infra.storage.artifacts import Manifest
from tests.infra.toy import DOUBLE, ToyConfig
from tests.infra.toy_runs import artifact, execute, pipeline

SPEC = PartSpec(DOUBLE, "double-00003", 3, 3, "key", 0, {}, {}, {})
STATS = {
    "seconds": 1.25,
    "rows_in": 7,
    "rows_out": 9,
    "rows": {"doubled": 8, "rejects": 1},
    "node": "10.0.0.2 (node 0a1b2c3d)",
    "facts": {"prompt_tokens": 120, "failures": {}},
}


def manifest(stats: dict[str, Any]) -> Manifest:
    return Manifest("double", 1, 3, "key", 0, ingredients={}, tables={}, directories={}, stats=stats)


def test_a_row_tells_rows_rejects_seconds_node_and_tokens() -> None:
    assert row_of(SPEC, manifest(STATS), reused=True) == {
        "part": 3,
        "ended": "reused",
        "rows_in": 7,
        "rows_out": 9,
        "seconds": 1.25,
        "rejects": 1,
        "node": "10.0.0.2 (node 0a1b2c3d)",
        "prompt_tokens": 120,
    }


def test_a_part_of_an_older_release_that_kept_no_node_is_shown_without() -> None:
    stats = {"seconds": 1.0, "rows_in": 1, "rows_out": 1}
    assert "node" not in row_of(SPEC, manifest(stats), reused=False)


def test_the_reason_of_a_failure_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_API_KEY", "sk-123456")
    row = row_of(SPEC, Failure("OSError: sk-123456 is refused"), reused=False)
    assert row == {"part": 3, "ended": "failed", "reason": "OSError: *** is refused"}


def test_keys_hold_lower_case_letters_digits_and_dashes_only() -> None:
    assert key_of("summary", "My Data_2") == "summary-my-data-2"
    assert key_of("judge-llm") == "judge-llm"


def test_outside_a_flow_run_nothing_is_shown_and_nothing_fails() -> None:
    started = time.monotonic()
    progress = StageProgress("double", 300)
    for done in range(300):
        progress.update(done)
    progress.close(300)
    show_stage("double", [SPEC], {}, {3: manifest(STATS)})
    show_summary("toy", "text", "https://reports.example")
    assert time.monotonic() - started < 1


@pytest.mark.slow
def test_progress_and_the_summary_are_shown_and_a_key_holds_only_what_prefect_allows(
    services: None, tmp_path: Path
) -> None:
    def stages(run: Runner, config: ToyConfig) -> object:
        show_summary("Toy_data", "**3** found", "https://reports.example/toy.html")
        return pipeline(run, config)

    execute(str(tmp_path / "store"), tmp_path, ToyConfig(), stages)
    assert float(artifact("progress-double")) == 100.0
    assert artifact("summary-toy-data") == "**3** found"
    assert "https://reports.example/toy.html" in artifact("report-toy-data")
