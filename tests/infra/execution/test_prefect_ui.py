"""Rows and keys of the artifacts; what a Prefect server keeps of them, in test_flow_runs.py."""

import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from infra.execution import prefect_ui
from infra.execution.prefect_ui import StageProgress, key_of, row_of, show_stage, show_summary
from infra.stages.runner import Failure, PartSpec
from infra.storage.artifacts import Manifest
from tests.infra.toy import DOUBLE

SPEC = PartSpec(DOUBLE, "double-00003", 3, 3, "key", 0, {}, {}, {})
STATS = {
    "seconds": 1.25,
    "rows_in": 7,
    "rows_out": 9,
    "rows": {"doubled": 8, "rejects": 1},
    "read_bytes": 4096,
    "peak_gib": 0.25,
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
        "read_bytes": 4096,
        "peak_gib": 0.25,
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


def test_the_facts_of_a_part_tell_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_API_KEY", "sk-123456")
    done = manifest({"seconds": 1.0, "rows_in": 1, "rows_out": 1, "facts": {"failures": {"error": "401 sk-123456"}}})
    assert row_of(SPEC, done, reused=False)["failures"] == {"error": "401 ***"}


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
    assert time.monotonic() - started < 15  # nobody was waited for


# ---- what is handed to Prefect ----


class Prefect:
    """Keeps what is shown, in the place of Prefect's artifacts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[tuple[Any, ...]] = []
        self.trouble: Exception | None = None
        monkeypatch.setattr(prefect_ui.FlowRunContext, "get", staticmethod(lambda: "a flow run"))
        for name in ("table", "markdown", "link", "progress"):
            monkeypatch.setattr(prefect_ui, f"create_{name}_artifact", partial(self._show, name))
        monkeypatch.setattr(prefect_ui, "update_progress_artifact", partial(self._show, "update"))

    def _show(self, name: str, *args: Any, **kwargs: Any) -> UUID:
        if self.trouble is not None:
            raise self.trouble
        self.shown.append((name, *args, *kwargs.values()))
        return UUID(int=7)


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    return Prefect(monkeypatch)


def specs_of(number: int) -> list[PartSpec]:
    return [replace(SPEC, number=i) for i in range(number)]


def test_a_stage_is_a_table_of_its_parts_with_every_column_in_every_row(prefect: Prefect) -> None:
    done = manifest({"seconds": 1.0, "rows_in": 1, "rows_out": 2})
    show_stage("judge-llm", specs_of(2), {0: done}, {0: done, 1: Failure("KeyError")})
    ((kind, table, key, shown),) = prefect.shown
    assert (kind, key, shown) == ("table", "judge-llm", "judge-llm: 2 part(s)")
    assert table == [
        {"part": 0, "ended": "reused", "rows_in": 1, "rows_out": 2, "seconds": 1.0, "reason": None},
        {"part": 1, "ended": "failed", "rows_in": None, "rows_out": None, "seconds": None, "reason": "KeyError"},
    ]


def test_of_too_many_parts_the_failed_and_then_the_computed_are_shown(
    prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_ui, "_ROWS", 3)
    done = manifest({"seconds": 1.0, "rows_in": 1, "rows_out": 2})
    results = {0: done, 1: done, 2: Failure("KeyError"), 3: done}
    show_stage("double", specs_of(4), {0: done, 1: done}, results)
    ((_, table, _, shown),) = prefect.shown
    assert [(row["part"], row["ended"]) for row in table] == [(2, "failed"), (3, "computed"), (0, "reused")]
    assert shown == "double: 4 part(s), of which 3 are shown"
    show_stage("double", specs_of(3), {}, results)
    assert prefect.shown[1][3] == "double: 3 part(s)"


def test_a_stage_without_parts_is_not_shown(prefect: Prefect) -> None:
    show_stage("double", [], {}, {})
    assert prefect.shown == []


def test_a_part_that_was_computed_is_told_from_one_that_was_reused() -> None:
    assert row_of(SPEC, manifest(STATS), reused=False)["ended"] == "computed"


def test_progress_is_told_at_most_once_a_second_and_at_the_end(
    prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(prefect_ui, "time", SimpleNamespace(monotonic=lambda: now[0]))
    progress = StageProgress("double", 4)
    for done, at in ((1, 0.5), (1, 1.0), (2, 1.9), (3, 2.0)):
        now[0] = at
        progress.update(done)
    progress.close(4)
    told = [("update", UUID(int=7), percent) for percent in (25.0, 75.0, 100.0)]
    assert prefect.shown == [("progress", 0.0, "progress-double", "double: 4 parts to compute"), *told]


def test_progress_that_is_being_told_is_not_waited_for(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_ui, "_UPDATE_SECONDS", 0.0)
    progress = StageProgress("double", 4)
    with progress._lock:
        progress.update(1)
    assert len(prefect.shown) == 1
    progress.update(1)
    progress.update(2)
    assert len(prefect.shown) == 3  # the lock was given back


@pytest.mark.parametrize("total", [0, 1])
def test_a_stage_of_one_part_shows_no_progress(prefect: Prefect, total: int) -> None:
    StageProgress("double", total).close(total)
    assert prefect.shown == []


def test_a_summary_has_a_link_only_to_a_report_that_a_browser_can_open(
    prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_API_KEY", "sk-123456")
    show_summary("My_data", "3 found with sk-123456", "/home/me/report.html")
    assert prefect.shown == [("markdown", "3 found with ***", "summary-my-data", "My_data: summary")]
    show_summary("My_data", "", "file:///home/me/report.html")
    link = ("link", "file:///home/me/report.html", "report", "report-my-data", "My_data: the report")
    assert prefect.shown[2] == link


def test_what_prefect_does_not_take_is_told_in_the_log_and_fails_nothing(
    prefect: Prefect, caplog: pytest.LogCaptureFixture
) -> None:
    prefect.trouble = ValueError("key is taken")
    show_summary("My_data", "text", "https://reports.example")
    StageProgress("double", 4).update(3)
    assert set(caplog.messages) == {"Prefect could not show something: ValueError: key is taken"}
