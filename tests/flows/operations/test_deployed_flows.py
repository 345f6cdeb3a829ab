"""How a flow run of a deployment says what came of it; the flows themselves run in tests/system/test_operations.py."""

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.states import Completed, Failed

from flows.config.section import ConfigError
from flows.curation.lookup import Job
from flows.curation.workspace import Hooks, Workspace
from flows.method.setup import CurationFailed, TooManyRejected, WaitingForLabels
from flows.operations import deployed_flows
from flows.operations.deploy import _ENDS
from flows.operations.deployed_flows import Collect, do, resume
from flows.runs.failures import CurationStopped
from infra.settings import Settings
from tasks.rejects import LeftOut

CURATION: Any = SimpleNamespace(id="mine-000001")


WORKSPACE: Any = SimpleNamespace(store=None, hooks=SimpleNamespace(on_message=lambda text: None))


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let executions end in a named way instead of computing."""

    def ends(error: Exception | None = None, computed: int = 0, summary: Any = None) -> None:
        def execute(_workspace: Any, _curation: Any, _compute: Any, _job: Job) -> Any:
            if error is not None:
                raise error
            return SimpleNamespace(computed=computed, reused=3, folder=Path(), summary=summary or {})

        monkeypatch.setattr(deployed_flows, "execute", execute)

    return ends


@pytest.mark.parametrize(
    ("ended", "name", "completed"),
    [
        (WaitingForLabels("2 of 40 are labelled"), "Waiting", True),
        (CurationStopped("stopped: end-by time reached"), "Stopped", False),
        (TooManyRejected("ingest left out 2 of 3 rows"), "Stopped", False),
    ],
)
def test_what_is_no_failure_of_a_part_has_a_name_of_its_own(
    work: Callable[..., None], ended: Exception, name: str, completed: bool
) -> None:
    work(ended)
    state = do(WORKSPACE, CURATION, Job())
    assert (state.name, state.is_completed(), state.message) == (name, completed, str(ended))


def test_a_night_without_change_says_so_and_one_with_work_says_how_much(work: Callable[..., None]) -> None:
    work()
    assert do(WORKSPACE, CURATION, Job()).name == "NoChange"
    work(computed=2)
    assert do(WORKSPACE, CURATION, Job()).message == "mine-000001: 2 parts computed, 3 reused"
    work(computed=2, summary={"rejects": LeftOut(9, 1, {"no_query": 1}).as_dict()})
    said = "mine-000001: 2 parts computed, 3 reused; ingest left out 1 of 9 rows: no_query 1 (see report.html)"
    assert do(WORKSPACE, CURATION, Job()).message == said


def test_failed_parts_fail_the_flow_run_with_their_list(work: Callable[..., None]) -> None:
    work(CurationFailed("judge-llm part 3: engine died"))
    with pytest.raises(CurationFailed, match="judge-llm part 3"):
        do(WORKSPACE, CURATION, Job())


def ended_after_a_failure(_workspace: Any, curation: Any, _job: Job, _compute: Any) -> Any:
    if curation.id == "mine-000002":
        raise CurationFailed("train part 0: diverged")
    return Failed(name="Stopped", message="stopped: end-by time reached")


def test_a_curation_that_goes_on_and_fails_keeps_neither_those_behind_it_nor_tonights_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def execute(_workspace: Any, curation: Any, _compute: Any, _job: Job) -> Any:
        if curation.id == "mine-000002":
            raise CurationFailed("train part 0: diverged")
        done.append(curation.id)
        return SimpleNamespace(computed=2, reused=0, summary={})

    monkeypatch.setattr(deployed_flows, "execute", execute)
    monkeypatch.setattr(deployed_flows, "load_curation", lambda _, id_: SimpleNamespace(id=id_))
    waiting = ["mine-000002", "mine-000003"]
    monkeypatch.setattr(deployed_flows, "resumable", lambda *_: waiting)
    tonight = Completed(name="Waiting", message="mine-000004 waits for people")
    with pytest.raises(
        CurationFailed, match=r"mine-000004 waits for people\nmine-000003: 2 parts computed.*\ntrain part 0"
    ):
        resume(WORKSPACE, "mine", Job(), tonight)
    assert done == ["mine-000003"]
    with monkeypatch.context() as late:  # the night ends after one failed: that is told all the same
        late.setattr(deployed_flows, "do", ended_after_a_failure)
        with pytest.raises(CurationFailed, match=r"end-by time reached\ntrain part 0"):
            resume(WORKSPACE, "mine", Job(), tonight)
        late.setattr(deployed_flows, "resumable", lambda *_: ["mine-000003"])
        assert resume(WORKSPACE, "mine", Job(), tonight).name == "Stopped"
    waiting.remove("mine-000002")
    state = resume(WORKSPACE, "mine", Job(), tonight)
    assert (state.name, state.message) == (
        "Waiting", "mine-000004 waits for people; mine-000003: 2 parts computed, 0 reused"
    )  # fmt: skip
    assert resume(WORKSPACE, "mine", Job(), Completed(name="NoChange", message="no")).name == "Completed"
    waiting.clear()
    assert resume(WORKSPACE, "mine", Job(), tonight) is tonight


@pytest.mark.parametrize("name", ["nightly", "curate", "rerun_part", "validate", "retrain", "prune"])
def test_the_error_that_a_flow_run_ends_with_tells_no_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASS", "hunter2!")

    def refused() -> Any:
        raise ConfigError("s3://bucket: hunter2! was refused at https://me:pw12@host")

    monkeypatch.setattr(deployed_flows, "_workspace", refused)
    work = getattr(deployed_flows, name).fn
    (parameters,) = inspect.get_annotations(inspect.unwrap(work)).keys() - {"return"}
    values = {"configuration": "x"} if name in ("nightly", "curate") else {"curation": "x-000001"}
    more = {"stage": "judge", "part": 0} if name == "rerun_part" else {}
    given = inspect.get_annotations(inspect.unwrap(work))[parameters](**values, **more)
    with pytest.raises(ConfigError) as caught:
        work(given)
    assert str(caught.value) == "s3://bucket: *** was refused at https://me:***@host"


def test_the_automation_on_heartbeats_knows_every_way_our_flow_runs_end() -> None:
    ends = set(re.findall(r'name="([A-Z]\w+)"', inspect.getsource(deployed_flows)))
    assert ends >= {"NoChange", "Waiting", "Stopped", "Skipped"}
    assert {f"prefect.flow-run.{end}" for end in ends} <= set(_ENDS)


def test_gc_removes_what_is_not_kept_and_tells_it_unless_it_shall_only_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    settings = Settings(tmp_path / "home", str(tmp_path / "store"), tmp_path / "cache", None, None)
    workspace = Workspace.open(settings, Hooks(on_message=said.append))
    monkeypatch.setattr(deployed_flows, "_workspace", lambda: workspace)
    key = workspace.store.put_object(b"of nobody", "")
    os.utime(tmp_path / "store" / key, (1, 1))
    state = deployed_flows.gc.fn(Collect(remove=False))
    told = "0 curations, 0 releases, 0 finished parts and 1 objects (0.0 MB), to the trash; from the trash for good: "
    assert state.message == f"would be removed: {told}0 objects (0.0 MB)"
    assert workspace.store.exists(key)
    assert deployed_flows.gc.fn().message == f"removed: {told}0 objects (0.0 MB)"
    assert not workspace.store.exists(key)
    assert [text.splitlines()[0] for text in said] == [
        f"would be removed: {told}0 objects (0.0 MB)", f"removed: {told}0 objects (0.0 MB)"
    ]  # fmt: skip
