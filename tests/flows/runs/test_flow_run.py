"""A job inside a Prefect flow run: how the run ends, what is told meanwhile, what it leaves on Prefect's pages."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import stages as st
from flows.curation.lookup import Job
from flows.curation.records import failures_of
from flows.curation.workspace import Hooks, Workspace
from flows.method.setup import CurationFailed, WaitingForLabels
from flows.runs import flow_run
from flows.runs.failures import CurationStopped
from flows.runs.flow_run import WORK, Work, await_history, curate, run_flow, watch
from infra.cluster.ray_cluster import ray_cluster
from infra.prefect_api.client import Api, connected
from infra.prefect_api.server import PrefectServer
from infra.settings import Settings
from infra.stages.runner import PartUnready
from infra.storage.artifacts import write_directory
from infra.storage.store import Store
from tests.flows.animals import make_setup, write_source
from tests.infra.prefect_calls import ask, seed


def end_with(error: Exception | None) -> tuple[Any, list[Exception]]:
    """Run the flow's own code on work that ends so; returns the state and what the work was told."""
    told: list[Exception] = []

    def do() -> None:
        if error is not None:
            raise error

    token = WORK.set(Work(do, told.append))
    try:
        return curate.fn("animals-000001"), told
    finally:
        WORK.reset(token)


def test_a_curation_that_came_to_its_end_says_so() -> None:
    state, told = end_with(None)
    assert (state.name, state.message, told) == ("Completed", "animals-000001: finished", [])


def test_waiting_for_people_is_no_failure_of_the_flow_run() -> None:
    waiting = WaitingForLabels("2 of 12 pairs are labelled")
    state, told = end_with(waiting)
    assert (state.name, state.is_completed(), state.message) == ("Waiting", True, "2 of 12 pairs are labelled")
    assert told == [waiting]


def test_any_other_error_fails_the_flow_run_and_is_handed_on() -> None:
    failed = CurationFailed("judge-llm part 3: engine died")
    with pytest.raises(CurationFailed, match="engine died"):
        end_with(failed)


def test_what_is_used_up_is_told_while_the_work_goes_on_and_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_run, "_METER_SECONDS", 0.01)
    told: list[Any] = []
    often = threading.Event()

    def tell(totals: Any) -> None:
        told.append(totals)
        if len(told) == 3:
            often.set()

    meter: Any = SimpleNamespace(totals=lambda: {"judge-llm": {"calls": 2.0}})
    with watch(meter, tell):
        assert often.wait(30)
    at_the_end = len(told)
    assert told[-1] == {"judge-llm": {"calls": 2.0}}
    time.sleep(0.05)
    assert len(told) == at_the_end


def test_it_is_told_at_the_end_though_the_work_failed() -> None:
    told: list[Any] = []
    meter: Any = SimpleNamespace(totals=lambda: {})
    with pytest.raises(CurationFailed), watch(meter, told.append):
        raise CurationFailed("x")
    assert told == [{}]


@dataclass
class Counting:
    """A server that has recorded some task runs, one more with every question."""

    answers: list[int] = field(default_factory=list)

    def __enter__(self) -> str:
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_error(422, "CSRF protection is disabled.")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                count = kept.answers.pop(0) if kept.answers else -1
                self.send_response(200 if count >= 0 else 500)
                self.end_headers()
                self.wfile.write(str(count).encode())

            def log_message(self, *_: Any) -> None:
                return

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/api"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()


def test_the_history_is_awaited_until_it_holds_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Counting([-1, 2, 3, 99])  # it fails, then two of three are there, then all
    with server as url, connected(Api(url)):
        assert await_history("0" * 36, 3)
    assert server.answers == [99]
    monkeypatch.setattr(flow_run, "_HISTORY_SECONDS", 0.0)
    with Counting([5]) as url, connected(Api(url)):
        assert not await_history("0" * 36, 3)


# ---- on a real Prefect server and a real Ray ----


@dataclass
class Place:
    """A workspace beside the servers."""

    api: Api
    workspace: Workspace
    source: Path
    said: list[str] = field(default_factory=list)

    def run(self, job: Job, **changes: Any) -> Any:
        setup = make_setup(self.workspace.store, self.source, **changes)
        return run_flow(self.workspace, replace(setup, curation="animals-000001"), job, self.api)

    def last_run(self) -> dict[str, Any]:
        newest: dict[str, Any] = self.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})[0]
        return newest

    def ask(self, path: str, body: Any) -> Any:
        with connected(self.api):
            return ask("POST", path, body)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    server = PrefectServer(seed(tmp_path_factory.mktemp("home")))
    try:
        with ray_cluster(None):
            yield server.api(server.start())
    finally:
        assert server.stop()


@pytest.fixture
def place(api: Api, tmp_path: Path) -> Place:
    said: list[str] = []
    store = str(tmp_path / "store")
    settings = Settings(tmp_path / "home", store, tmp_path / "cache", prefect_api_url=api.url, ray_address=None)
    hooks = Hooks(on_message=said.append)
    return Place(api, Workspace(settings, Store.open(store), hooks), write_source(tmp_path / "source", 4), said)


def ingest(run: Any, setup: Any) -> Any:
    return run(st.INGEST, setup.config.ingest, source=setup.source)


@pytest.mark.slow
def test_a_job_is_a_flow_run_named_after_its_curation_and_its_page_is_an_artifact(place: Place) -> None:
    def job(run: Any, setup: Any) -> Any:
        folder = place.source.parent / "page"
        folder.mkdir()
        (folder / "comparison.md").write_text("# Which is better")
        ingest(run, setup)
        return SimpleNamespace(page=write_directory(place.workspace.store, "page", folder))

    outcome, runs = place.run(Job("retrain", job))
    assert outcome.page.files
    assert [(r.name, r.computed) for r in runs] == [("ingest", 1)]
    newest = place.last_run()
    assert (newest["name"], newest["state"]["name"]) == ("animals-000001", "Completed")
    assert {"reneg", "animals"} <= set(newest["tags"])
    of_run = {"artifacts": {"flow_run_id": {"any_": [newest["id"]]}, "type": {"any_": ["markdown"]}}}
    shown = place.ask("/artifacts/filter", of_run)
    assert shown[0]["description"] == "animals-retrain: summary"
    assert shown[0]["data"].startswith("# Which is better")


@pytest.mark.slow
def test_a_failed_part_is_recorded_and_fails_the_flow_run(place: Place) -> None:
    (place.source / "queries.jsonl").write_text("not a query\n")
    with pytest.raises(CurationFailed, match="reneg rerun animals-000001 --stage ingest --part 0 --downstream"):
        place.run(Job("curate", ingest))
    assert list(failures_of(place.workspace.store, "animals-000001")) == [("ingest", 0)]
    assert place.last_run()["state"]["name"] == "Failed"


@pytest.mark.slow
def test_an_end_that_has_passed_stops_the_job_and_one_part_alone_is_computed_alone(place: Place) -> None:
    with pytest.raises(CurationStopped, match="stopped: end-by time"):
        place.run(Job("curate", ingest, until=time.time() - 1))
    outcome, runs = place.run(Job("rerun-part", ingest, only=("ingest", 0), force=frozenset({("ingest", 0)})))
    assert outcome is None
    assert [(r.name, r.computed) for r in runs] == [("ingest", 1)]
    with pytest.raises(PartUnready, match="no part 3 of it is among what the curation needs"):
        place.run(Job("rerun-part", ingest, only=("mine", 3), force=frozenset({("mine", 3)})))


def adopt(run: Any, setup: Any) -> Any:
    data = ingest(run, setup)
    tables = {name: data[name] for name in ("given", "queries", "positives", "irrelevant")}
    return run(st.ADOPT, setup.config.adopt, **tables)


@pytest.mark.slow
def test_after_one_part_alone_nobody_waits_for_task_runs_of_the_parts_that_were_only_looked_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited: list[tuple[int, bool]] = []

    def note(flow_run_id: str, task_runs: int) -> bool:
        awaited.append((task_runs, await_history(flow_run_id, task_runs)))
        return awaited[-1][1]

    monkeypatch.setattr(flow_run, "await_history", note)
    place.run(Job("curate", adopt))
    _, runs = place.run(Job("rerun-part", adopt, only=("adopt", 0), force=frozenset({("adopt", 0)})))
    assert [(r.name, r.computed) for r in runs] == [("ingest", 0), ("adopt", 1)]
    assert awaited == [(3, True), (1, True)]
