"""Which servers a run starts, joins and stops; the jobs themselves are in test_flow_run.py and test_execute.py."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from flows import stages as st
from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation.lookup import Job
from flows.curation.workspace import Hooks, Workspace
from flows.method.setup import CurationFailed
from flows.runs import servers
from flows.runs.servers import in_own_flow_run, in_this_flow_run, keep_servers, ray_for
from infra.cluster.ray_cluster import ClusterError
from infra.prefect_api.client import Api
from infra.prefect_api.health import ServerError, is_healthy
from infra.prefect_api.server import PrefectServer
from infra.settings import Settings
from infra.storage.store import Store
from tests.conftest import free_port
from tests.flows.animals import make_setup, write_source


@dataclass
class Machine:
    """A workspace, and notes of what was started and stopped."""

    folder: Path
    said: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def workspace(self, **addresses: str) -> Workspace:
        store = str(self.folder / "store")
        settings = Settings(self.folder / "home", store, self.folder / "cache", None, None)
        return Workspace(replace(settings, **addresses), Store.open(store), Hooks(on_message=self.said.append))

    def setup(self, workspace: Workspace) -> Any:
        source = self.folder / "source"
        setup = make_setup(workspace.store, source if source.exists() else write_source(source, 4))
        return replace(setup, curation="animals-000001")

    def install(self, patch: pytest.MonkeyPatch) -> "Machine":
        """Note what Ray and Prefect are asked to do instead of starting them."""
        notes, main = self.notes, threading.main_thread()

        @contextmanager
        def ray_cluster(address: str | None, *, code: str = "") -> Iterator[None]:
            assert threading.current_thread() is main  # Ray sets its signal handlers there only
            notes.append(f"ray {address} {'with code' if code else 'alone'}")
            yield
            notes.append("ray stopped")

        class Server:
            def __init__(self, home: Path) -> None:
                self.home = home

            def start(self) -> str:
                notes.append("prefect started")
                return "http://embedded/api"

            def api(self, url: str) -> Api:
                return Api(url, "reneg:secret")

            def stop(self) -> bool:
                notes.append("prefect stopped")
                return True

        patch.setattr(servers, "ray_cluster", ray_cluster)
        patch.setattr(servers, "PrefectServer", Server)
        patch.setattr(servers, "refuse_skew", lambda packages: notes.append("nodes compared"))
        patch.setattr(servers, "publish_for", lambda store, engines, cache: [f"{len(engines)} engines"])
        return self


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in ("PREFECT_HOME", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"):
        monkeypatch.setenv(name, "before")
    return Machine(tmp_path)


def test_a_prefect_server_that_does_not_answer_is_refused_before_anything_starts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.install(monkeypatch)
    workspace = machine.workspace(prefect_api_url=f"http://127.0.0.1:{free_port()}/api")
    with pytest.raises(ServerError, match=r"does not answer \(ConnectError.*\); start that server, or unset it"):
        in_own_flow_run(workspace, machine.setup(workspace), Job())
    assert machine.notes == []


def test_a_cluster_that_does_not_listen_is_refused(machine: Machine) -> None:
    workspace = machine.workspace(ray_address=f"127.0.0.1:{free_port()}")
    with pytest.raises(ClusterError, match="does not listen; start that cluster, or unset it"):
        in_this_flow_run(workspace, machine.setup(workspace), Job())


def test_without_addresses_both_servers_are_started_and_stopped(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = machine.install(monkeypatch).workspace()
    with servers._servers(workspace, machine.setup(workspace)) as api:
        assert api == Api("http://embedded/api", "reneg:secret")
        assert set(machine.notes) == {"prefect started", "ray None alone"}
    assert machine.notes[2:] == ["ray stopped", "prefect stopped"]
    assert machine.said == ["starting Ray and the embedded Prefect server"]


def test_several_jobs_of_a_command_share_the_servers(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    apis: list[Api] = []
    monkeypatch.setattr("flows.runs.flow_run.run_flow", lambda workspace, setup, job, api: apis.append(api))
    workspace = machine.install(monkeypatch).workspace()
    with keep_servers():
        assert machine.notes == []
        for _ in range(2):
            in_own_flow_run(workspace, machine.setup(workspace), Job())
        assert len(machine.notes) == 2
    in_own_flow_run(workspace, machine.setup(workspace), Job())
    assert sorted(machine.notes) == sorted(2 * ["prefect started", "ray None alone", "ray stopped", "prefect stopped"])
    assert [api.url for api in apis] == ["http://embedded/api"] * 3


def test_a_server_that_is_named_is_joined_and_left_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "check_named", lambda url: machine.notes.append(f"{url} checked"))
    workspace = machine.install(monkeypatch).workspace(prefect_api_url="http://named/api")
    with servers._servers(workspace, machine.setup(workspace)) as api:
        assert api == Api("http://named/api", None)  # Prefect's own settings say how to identify
    assert machine.notes == ["http://named/api checked", "ray None alone", "ray stopped"]
    assert machine.said == ["starting Ray"]


def test_what_was_started_is_stopped_where_the_work_fails(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = machine.install(monkeypatch).workspace()
    with pytest.raises(CurationFailed), servers._servers(workspace, machine.setup(workspace)):
        raise CurationFailed("judge-llm part 3: engine died")
    assert "prefect stopped" in machine.notes


def test_on_a_cluster_the_nodes_are_compared_and_the_weights_published(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = machine.install(monkeypatch).workspace(ray_address="head:6379")
    with ray_for(workspace, machine.setup(workspace)):
        assert machine.notes == ["ray head:6379 with code", "nodes compared"]
    assert machine.said == ["the weights 2 engines are in the store now, for the nodes"]


@pytest.mark.slow
def test_a_run_on_a_bare_machine_starts_prefect_and_ray_and_leaves_neither(machine: Machine) -> None:
    workspace = machine.workspace()
    urls: list[str] = []

    def ingest(run: Any, setup: Any) -> Any:
        urls.append(os.environ.get("PREFECT_API_URL", "") or str(PrefectServer(workspace.settings.home).running()))
        return run(st.INGEST, setup.config.ingest, source=setup.source)

    with keep_servers():
        outcome, runs = in_own_flow_run(workspace, machine.setup(workspace), Job("ingest", ingest))
        in_own_flow_run(workspace, machine.setup(workspace), Job("again", ingest))
    assert urls[0] == urls[1]
    assert [(run.name, run.computed, dict(run.failed)) for run in runs] == [("ingest", 1, {})]
    assert outcome["queries"].rows == 4
    assert json.loads(workspace.store.read(workspace.store.list("parts/ingest")[0]) or b"{}")["stage"] == "ingest"
    assert not is_healthy(urls[0])
    assert PrefectServer(workspace.settings.home).running() is None


def test_a_key_that_a_stored_configuration_may_not_use_is_refused_before_anything_starts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RENEG_ALLOWED_KEYS", raising=False)
    monkeypatch.setattr("flows.runs.flow_run.compute_parts", lambda workspace, setup, job: "computed")
    workspace = machine.install(monkeypatch).workspace()
    setup = machine.setup(workspace)
    spec = {
        "kind": "openai",
        "model": "m",
        "api_key_env": "AWS_SECRET_ACCESS_KEY",
        "base_url": "https://gpu.example/v1",
    }
    far = {"name": "far", "engine": spec}
    settings = {**setup.config.model_dump(mode="json"), "tiers": [far]}
    stored = replace(setup, config=parse_config(settings, "the store"), own_file=False)
    for compute in (in_own_flow_run, in_this_flow_run):
        with pytest.raises(ConfigError, match=r"may not send AWS_SECRET_ACCESS_KEY to gpu\.example"):
            compute(workspace, stored, Job())
    assert machine.notes == []
    assert in_this_flow_run(workspace, replace(stored, own_file=True), Job()) == "computed"
    assert in_this_flow_run(workspace, stored, Job("validate", again="reneg validate")) == "computed"  # asks no judge
    workspace.store.create("ledger/judge/one.parquet", b"")
    assert in_this_flow_run(workspace, stored, Job()) == "computed"  # it may hold every answer; else the engine refuses
