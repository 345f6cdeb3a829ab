"""How a flow run of a deployment says what came of it; the flows themselves run in tests/system/test_operations.py."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.curate import CurationStopped
from flows.deployed import do
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
