"""What is looked at on this machine, and the remedy that stands beside each thing that is missing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flows.curation.lookup import Job
from flows.curation.workspace import Workspace
from flows.operations import cluster_doctor, doctor
from flows.operations.deploy import api
from flows.operations.doctor import Finding, examine
from flows.operations.supervisor import Supervisor
from flows.runs.servers import in_own_flow_run
from infra.prefect_api.health import ServerError
from infra.settings import Settings
from tests.conftest import free_port
from tests.flows.animals import make_setup, write_source
from tests.infra.prefect_calls import PREFECT, serving


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", str(tmp_path / "store"), tmp_path / "cache", None, None)


def found(settings: Settings) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(settings)}


def test_everything_a_curation_needs_is_looked_at_and_a_machine_that_runs_the_tests_lacks_nothing(
    settings: Settings,
) -> None:
    looked_at = found(settings)
    assert {"python", "polars", "ray", "vllm", "cores", "memory", "free disk", "store", "Prefect", "Ray"} <= set(
        looked_at
    )
    assert {what for what, finding in looked_at.items() if finding.state == "missing"} == set()
    assert looked_at["polars"].found.startswith("polars ")
    assert looked_at["store"].found == f"{settings.store} (writable, honours create-if-absent)"
    assert looked_at["Prefect"].found == "embedded, started by a run"
    assert looked_at["package:minilm"].remedy == "fetched at first use"


def test_a_package_that_is_not_installed_is_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("no_such_package_anywhere", "json"))
    looked_at = found(settings)
    missing = looked_at["no_such_package_anywhere"]
    assert (missing.state, missing.remedy) == ("missing", "run `make install` (or `make install-gpu`)")
    assert (looked_at["json"].state, looked_at["json"].found) == ("ok", "present")


def test_a_store_that_cannot_be_written_is_missing_with_the_reason(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = found(replace(settings, store=str(tmp_path / "file" / "store")))["store"]
    assert store.state == "missing"
    assert str(tmp_path / "file") in store.remedy


def test_servers_that_are_named_and_do_not_answer_are_missing(settings: Settings) -> None:
    port = free_port()
    looked_at = found(
        replace(settings, prefect_api_url=f"http://127.0.0.1:{port}/api", ray_address=f"127.0.0.1:{port}")
    )
    assert (looked_at["Prefect"].state, looked_at["Ray"].state) == ("missing", "missing")
    assert looked_at["Prefect"].remedy == "start that server, or unset it to use an embedded one"
    assert looked_at["Ray"].found == f"127.0.0.1:{port} does not listen"


def test_every_command_says_the_same_of_an_address_without_api(settings: Settings) -> None:
    with serving(PREFECT) as address:
        named = replace(settings, prefect_api_url=address)
        remedy = f"its API is at {address}/api: set PREFECT_API_URL to that"
        assert doctor._prefect(named).remedy == cluster_doctor._prefect(named, None)[0].remedy == remedy
        workspace = Workspace.open(named)
        setup = make_setup(workspace.store, write_source(settings.home / "source", 4))
        commands: list[Callable[[], object]] = [
            lambda: api(named).__enter__(),
            Supervisor(named, print).run,
            lambda: in_own_flow_run(workspace, setup, Job()),
        ]
        for command in commands:
            with pytest.raises(ServerError) as refused:
                command()
            assert str(refused.value).endswith(f"; {remedy}")


def test_an_embedded_server_without_a_password_is_noted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = [True, False]
    monkeypatch.setattr(doctor.PrefectServer, "running", lambda self: "http://127.0.0.1:4200/api")
    monkeypatch.setattr(doctor.PrefectServer, "asks_for_password", lambda self: asks.pop(0))
    assert doctor._prefect(settings) == Finding("Prefect", "ok", "embedded, up at http://127.0.0.1:4200/api")
    old = doctor._prefect(settings)
    assert (old.state, "without a password" in old.found) == ("note", True)


def test_an_empty_password_file_is_missing_whether_the_server_runs_or_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = doctor.PrefectServer(settings.home)
    server.auth_string()
    server.auth_file.write_text("")
    for running in (None, "http://127.0.0.1:4200/api"):
        monkeypatch.setattr(doctor.PrefectServer, "running", lambda self, running=running: running)
        finding = found(settings)["Prefect"]
        assert finding.state == "missing"
        assert "auth-string is empty; delete it" in finding.remedy


def test_too_little_of_something_is_a_note_and_enough_is_none() -> None:
    assert doctor._enough("memory", 8.0, 8, "a smaller model") == Finding("memory", "ok", "8 GiB", "")
    assert doctor._enough("memory", 7.9, 8, "a smaller model") == Finding("memory", "note", "8 GiB", "a smaller model")


def test_a_home_that_is_not_there_yet_is_measured_where_it_will_be(settings: Settings, tmp_path: Path) -> None:
    deep = replace(settings, home=tmp_path / "a" / "b" / "c")
    assert found(deep)["free disk"].found.endswith(" GiB")
    assert not (tmp_path / "a").exists()
