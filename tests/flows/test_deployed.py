"""How a flow run of a deployment says what came of it; the flows themselves run in tests/system/test_operations.py."""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.states import Completed, Failed

from flows import deployed
from flows.curate import CurationStopped
from flows.deploy import _ENDS
from flows.deployed import do, resume
from flows.job import Job
from flows.method import CurationFailed, WaitingForLabels

CURATION: Any = SimpleNamespace(id="mine-000001")


def curator(ended: Exception | None = None, computed: int = 0) -> Any:
    def execute(curation: Any, job: Job) -> Any:
        if ended is not None:
            raise ended
        return SimpleNamespace(computed=computed, reused=3, folder=Path())

    return SimpleNamespace(execute=execute)


@pytest.mark.parametrize(
    ("ended", "name", "completed"),
    [
        (WaitingForLabels("2 of 40 are labelled"), "Waiting", True),
        (CurationStopped("stopped: end-by time reached"), "Stopped", False),
    ],
)
def test_what_is_no_failure_of_a_part_has_a_name_of_its_own(ended: Exception, name: str, completed: bool) -> None:
    state = do(curator(ended), CURATION, Job())
    assert (state.name, state.is_completed(), state.message) == (name, completed, str(ended))


def test_a_night_without_change_says_so_and_one_with_work_says_how_much() -> None:
    assert do(curator(), CURATION, Job()).name == "NoChange"
    assert do(curator(computed=2), CURATION, Job()).message == "mine-000001: 2 parts computed, 3 reused"


def test_failed_parts_fail_the_flow_run_with_their_list() -> None:
    with pytest.raises(CurationFailed, match="judge-llm part 3"):
        do(curator(CurationFailed("judge-llm part 3: engine died")), CURATION, Job())


def ended_after_a_failure(_curator: Any, curation: Any, _job: Job) -> Any:
    if curation.id == "mine-000002":
        raise CurationFailed("train part 0: diverged")
    return Failed(name="Stopped", message="stopped: end-by time reached")


def test_a_curation_that_goes_on_and_fails_keeps_neither_those_behind_it_nor_tonights_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def execute(curation: Any, job: Job) -> Any:
        if curation.id == "mine-000002":
            raise CurationFailed("train part 0: diverged")
        done.append(curation.id)
        return SimpleNamespace(computed=2, reused=0)

    loaded: Any = SimpleNamespace(
        execute=execute, load=lambda id_: SimpleNamespace(id=id_), hooks=SimpleNamespace(on_message=done.append)
    )
    waiting = ["mine-000002", "mine-000003"]
    monkeypatch.setattr(deployed, "resumable", lambda *_: waiting)
    tonight = Completed(name="Waiting", message="mine-000004 waits for people")
    with pytest.raises(
        CurationFailed, match=r"mine-000004 waits for people\nmine-000003: 2 parts computed.*\ntrain part 0"
    ):
        resume(loaded, "mine", Job(), tonight)
    assert done[-1] == "mine-000003"
    with monkeypatch.context() as late:  # the night ends after one failed: that is told all the same
        late.setattr(deployed, "do", ended_after_a_failure)
        with pytest.raises(CurationFailed, match=r"end-by time reached\ntrain part 0"):
            resume(loaded, "mine", Job(), tonight)
        late.setattr(deployed, "resumable", lambda *_: ["mine-000003"])
        assert resume(loaded, "mine", Job(), tonight).name == "Stopped"
    waiting.remove("mine-000002")
    state = resume(loaded, "mine", Job(), tonight)
    assert (state.name, state.message) == (
        "Waiting", "mine-000004 waits for people; mine-000003: 2 parts computed, 0 reused"
    )  # fmt: skip
    assert resume(loaded, "mine", Job(), Completed(name="NoChange", message="no")).name == "Completed"
    waiting.clear()
    assert resume(loaded, "mine", Job(), tonight) is tonight


def test_the_automation_on_heartbeats_knows_every_way_our_flow_runs_end() -> None:
    ends = set(re.findall(r'name="([A-Z]\w+)"', inspect.getsource(deployed)))
    assert ends >= {"NoChange", "Waiting", "Stopped", "Skipped"}
    assert {f"prefect.flow-run.{end}" for end in ends} <= set(_ENDS)
